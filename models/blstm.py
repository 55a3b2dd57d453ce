"""Recurrent layers of the Listener: BLSTM, pyramid BLSTM, and the dropout between them.

Every layer takes and returns `(B, T, C)` tensors that are zero beyond each utterance's length, so an utterance's
output never depends on how much padding its batch gave it.
"""

import torch
from torch import Tensor, nn


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """`(B, size)`, True inside each length."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


class _ReverseWithinLengths(torch.autograd.Function):
    """Reverses each row of `(B, T, C)` inside its own length; padding stays where it is.

    The permutation is its own inverse, so the gradient is permuted alike instead of a slow scatter. Whole rows of
    `(B T, C)` are selected, several times as fast as a gather of every element.
    """

    @staticmethod
    def forward(ctx, x: Tensor, lengths: Tensor) -> Tensor:
        B, T, _ = x.shape
        position = torch.arange(T, device=x.device)
        last = lengths.unsqueeze(1) - 1
        index = torch.where(position <= last, last - position, position)
        index = (index + T * torch.arange(B, device=x.device).unsqueeze(1)).flatten()
        ctx.save_for_backward(index)
        return _select_rows(x, index)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _select_rows(gradient, index), None


def _select_rows(x: Tensor, index: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, index).view_as(x)


def reverse_within_lengths(x: Tensor, lengths: Tensor) -> Tensor:
    """`x (B, T, C)` with each row reversed inside its length `(B,)`."""
    return _ReverseWithinLengths.apply(x, lengths)


class Dropout(nn.Module):
    """Dropout; on a CPU in a third of the time of `nn.Dropout`, since an element of the mask takes 8 random bits.

    The mask is drawn anew for every frame. One for all frames of an utterance (locked dropout) makes the first epochs
    learn more slowly (docs/experiments.md).

    Args:
        rate: of elements that become 0, below 1; on a CPU rounded to a 256th.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.level = rate, min(255, round(256 * rate))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, to the same."""
        if not self.training or self.level == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.rate)
        numbers = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 8),))
        keep = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= self.level
        return x * (keep.to(x.dtype) * (256 / (256 - self.level)))


class BLSTM(nn.Module):
    """One bidirectional LSTM layer, equal to `nn.LSTM` on a packed sequence without the price of packing.

    The backward direction is an LSTM of its own that reads each utterance reversed inside its length: padding comes
    last in both directions, so it cannot reach a real frame. Layer norm on the output: without it a stack of three
    layers needs twice the epochs to leave CTC's plateau of blanks (docs/experiments.md).

    Args:
        input_dim: `C`.
        hidden: LSTM units per direction.
    """

    def __init__(self, input_dim: int, hidden: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(input_dim, hidden, batch_first=True)
        self.backward_lstm = nn.LSTM(input_dim, hidden, batch_first=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.output_dim = 2 * hidden

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, T, C)` to `(B, T, 2 * hidden)`; lengths `(B,)` stay as they are."""
        ahead, _ = self.forward_lstm(x)
        back, _ = self.backward_lstm(reverse_within_lengths(x, lengths))
        both = torch.cat([ahead, reverse_within_lengths(back, lengths)], dim=2)
        normed = self.norm(both).to(both.dtype)  # CUDA's autocast makes it float32, of twice the memory traffic
        return normed * length_mask(lengths, x.size(1)).unsqueeze(2), lengths


class PyramidBLSTM(nn.Module):
    """pBLSTM (Chan et al. 2015, equation 5): a BLSTM over concatenated pairs of frames, half as many steps.

    A last frame without a partner is paired with zeros.

    Args:
        input_dim: `C`, of a single frame.
        hidden: LSTM units per direction.
    """

    def __init__(self, input_dim: int, hidden: int):
        super().__init__()
        self.blstm = BLSTM(2 * input_dim, hidden)
        self.output_dim = self.blstm.output_dim

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, T, C)` to `(B, (T + 1) // 2, 2 * hidden)`; lengths `(B,)` to `(lengths + 1) // 2`."""
        if x.size(1) % 2:
            x = nn.functional.pad(x, (0, 0, 0, 1))
        pairs = x.reshape(x.size(0), x.size(1) // 2, 2 * x.size(2))
        return self.blstm(pairs, (lengths + 1) // 2)
