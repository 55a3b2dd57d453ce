"""Attention: which part of the memory the Speller looks at for its next character (Chan et al. 2015, equations 6-11).

All kinds are pure functions of their inputs. `project` prepares a memory once; `forward` may then be asked for `Q`
queries per utterance: one per step in training, one per hypothesis in beam search, without copying the memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.blstm import length_mask
from models.deferred_grad import Matmul, matmul
from utils.device import memory_to_spare


class Memory(NamedTuple):
    """The Listener's output, projected to keys and values once per utterance."""

    keys: Tensor  # (B, H, S, A)
    values: Tensor  # (B, H, S, A)
    padding: Tensor  # (B, 1, 1, S), True beyond each length
    lengths: Tensor  # (B,)


class Past(NamedTuple):
    """Attention weights of the steps before."""

    previous: Tensor  # (..., S), of the step before
    total: Tensor  # (..., S), the sum of all so far


Seen = Past | Tensor | None  # what an attention sees besides its query, see `Attention.forward`


class Attention(nn.Module):
    """What all kinds of attention share: projections into heads, masked softmax, weighted sum of the values.

    Args:
        query_dim: size of the queries, the Speller's hidden units.
        memory_dim: size of the memory, `E`.
        dim: size of query, key and value, all heads together; each head has `A = dim / heads`.
        heads: number of heads, `H`.

    Raises:
        ValueError: `dim` is not a multiple of `heads`.
    """

    kind: str  # its name in config.yaml
    sees_past = False  # whether `forward` needs the weights of the steps before
    sees_position = False  # whether it needs the encoder step at which the character that is read was spoken

    def __init__(self, query_dim: int, memory_dim: int, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"model.attention.dim ({dim}) must be a multiple of model.attention.heads ({heads})")
        self.heads, self.dim = heads, dim
        self.query = nn.Linear(query_dim, dim)
        self.key = nn.Linear(memory_dim, dim)
        self.value = nn.Linear(memory_dim, dim)

    def project(self, memory: Tensor, lengths: Tensor) -> Memory:
        """`memory (B, S, E)` of `lengths (B,)`, with keys and values."""
        padding = ~length_mask(lengths, memory.size(1))[:, None, None, :]
        # Contiguous, or every look at them would copy them whole.
        keys, values = (self._split(layer(memory)).contiguous() for layer in (self.key, self.value))
        return Memory(keys, values, padding, lengths)

    def _split(self, x: Tensor) -> Tensor:
        """`(B, S, dim)` to heads, `(B, H, S, A)`."""
        return x.unflatten(2, (self.heads, self.dim // self.heads)).transpose(1, 2)

    def energies(self, query: Tensor, keys: Tensor, seen: Seen, matmul: Matmul, recompute: bool) -> Tensor:
        """Scores before the softmax, `(B, H, Q, S)`, of `query (B, H, Q, A)` and `keys (B, H, S, A)`; see `forward`."""
        raise NotImplementedError

    def must_recompute(self, memory: Memory, queries: int) -> bool:
        """Whether the backward pass of so many queries per utterance needs more memory than the device has to spare."""
        return False

    def forward(
        self,
        query: Tensor,
        memory: Memory,
        seen: Seen = None,
        matmul: Matmul = matmul,
        recompute: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """One look at the memory.

        Args:
            query: `(B, Q, query_dim)`.
            memory: as `project` returned it.
            seen: for an attention that `sees_past` its `Past`, of `(B, H, Q, S)`; for one that `sees_position` the
                encoder step of the character before, `(B, Q)`.
            matmul: in a loop, one `DeferredWeightGrad` for all its steps.
            recompute: compute the largest intermediates again in the backward pass instead of keeping them.

        Returns:
            The context `(B, Q, dim)`, and the weights `(B, H, Q, S)`: float32, 0 on padding, of sum 1.
        """
        queries = self._split(matmul("query", query, self.query.weight.T, self.query.bias))
        energies = self.energies(queries, memory.keys, seen, matmul, recompute).float()
        weights = energies.masked_fill(memory.padding, float("-inf")).softmax(dim=3)
        context = matmul("values", weights.to(memory.values.dtype), memory.values)
        return context.transpose(1, 2).flatten(2), weights


class DotAttention(Attention):
    """Scaled dot product with heads: softmax(q k / sqrt(A)) v (Vaswani et al. 2017, equation 1)."""

    kind = "dot"

    def project(self, memory: Tensor, lengths: Tensor) -> Memory:
        projected = super().project(memory, lengths)
        return projected._replace(keys=projected.keys / projected.keys.size(3) ** 0.5)  # once, not for every query

    def energies(self, query: Tensor, keys: Tensor, seen: Seen, matmul: Matmul, recompute: bool) -> Tensor:
        return matmul("keys", query, keys.transpose(2, 3))


class RelativeAttention(DotAttention):
    """Scaled dot product, with a prior on how many encoder steps lie between the character before and each look.

        softmax(q k / sqrt(A) - strength log(1 + ((offset - centre) / width)^2)) v,   offset = step - position

    The position is where the CTC branch hears the character before. The prior is that of a Student-t distribution,
    with a width of its own for looks behind the centre: speech does not run backwards, and may pause. Its tails fall
    slowly enough for what is heard to outweigh it. All of it is learned, by each head. Unlike the filters of location
    attention it needs nothing of its own past: no loop over characters in training (see `ParallelSpeller`), and no
    look that goes wrong leads the next ones astray.
    """

    kind = "relative"
    sees_position = True
    CENTRE, BEHIND, AHEAD, STRENGTH = 1.0, 0.75, 3.0, 2.0  # before training, in encoder steps
    PACE = 10  # the centre is to move by steps while other weights move by tenths

    def __init__(self, query_dim: int, memory_dim: int, dim: int, heads: int):
        super().__init__(query_dim, memory_dim, dim, heads)
        self.centre = nn.Parameter(torch.full((heads,), self.CENTRE / self.PACE))
        self.log_behind = nn.Parameter(torch.full((heads,), self.BEHIND).log())
        self.log_ahead = nn.Parameter(torch.full((heads,), self.AHEAD).log())
        self.strength = nn.Parameter(torch.full((heads,), self.STRENGTH).expm1().log())  # before a softplus

    def energies(self, query: Tensor, keys: Tensor, seen: Seen, matmul: Matmul, recompute: bool) -> Tensor:
        if not isinstance(seen, Tensor):
            raise ValueError("relative attention needs the position of the character before")
        return super().energies(query, keys, seen, matmul, recompute) + self._prior(seen, keys.size(2))

    def _prior(self, position: Tensor, steps: int) -> Tensor:
        """Logarithm of the prior, up to a constant, of so many steps: `(B, H, Q, steps)`."""
        centre, behind, ahead, strength = (
            parameter[:, None, None]
            for parameter in (
                self.PACE * self.centre,
                self.log_behind.exp(),
                self.log_ahead.exp(),
                F.softplus(self.strength),
            )
        )
        offset = torch.arange(steps, device=position.device) - position[:, None, :, None] - centre
        return -strength * torch.log1p((offset / torch.where(offset < 0, behind, ahead)) ** 2)


class LocationAttention(Attention):
    """Location-aware additive attention: v tanh(q + k + conv(past weights)) (Chorowski et al. 2015, equations 8-9).

    The filters see the weights of the step before and, as in Tacotron 2 (Shen et al. 2018), the sum of all so far,
    which tells what has been spelled already.
    """

    kind = "location"
    sees_past = True
    CHANNELS, WIDTH = 10, 31  # filters over past weights; 31 steps reach about half a second each way

    def __init__(self, query_dim: int, memory_dim: int, dim: int, heads: int):
        super().__init__(query_dim, memory_dim, dim, heads)
        size = dim // heads
        self.location = nn.Conv1d(2, self.CHANNELS, self.WIDTH, padding=self.WIDTH // 2, bias=False)
        self.location_key = nn.Linear(self.CHANNELS, size, bias=False)
        self.energy = nn.Parameter(torch.randn(heads, size) / size**0.5)

    def must_recompute(self, memory: Memory, queries: int) -> bool:
        keys = memory.keys  # of every query, an intermediate of their size is kept
        return keys.is_cuda and queries * keys.numel() * keys.element_size() > memory_to_spare(keys.device)

    def energies(self, query: Tensor, keys: Tensor, seen: Seen, matmul: Matmul, recompute: bool) -> Tensor:
        if not isinstance(seen, Past):
            raise ValueError("location attention needs the weights of the steps before")
        if recompute:
            return checkpoint(self._energies, query, keys, seen, use_reentrant=False, preserve_rng_state=False)
        return self._energies(query, keys, seen)

    def _energies(self, query: Tensor, keys: Tensor, past: Past) -> Tensor:
        (B, H, Q, A), S = query.shape, keys.size(2)
        location = self.location(torch.stack(past, dim=3).flatten(0, 2).to(query.dtype))  # (B H Q, CHANNELS, S)
        location = location.transpose(1, 2).reshape(-1, self.CHANNELS)  # (B H Q S, CHANNELS)
        hidden = (query.unsqueeze(3) + keys.unsqueeze(2)).flatten(0, 3)  # (B H Q S, A)
        weight, energy = self.location_key.weight.T, self.energy.to(hidden.dtype)
        if torch.is_grad_enabled():  # not addmm_: in place on a view, autograd would copy it
            hidden = torch.addmm(hidden, location, weight).tanh_()
        else:  # tanh(x) = 2 sigmoid(2 x) - 1 is twice as fast on a CPU, and the softmax does not see the constant
            hidden = hidden.addmm_(location, weight, beta=2, alpha=2).sigmoid_()
            energy = 2 * energy
        if H == 1:
            return (hidden @ energy[0]).view(B, H, Q, S)
        return (hidden.view(B, H, Q * S, A) @ energy.unsqueeze(2)).view(B, H, Q, S)  # einsum would copy `hidden`


ATTENTION = {attention.kind: attention for attention in (DotAttention, RelativeAttention, LocationAttention)}
