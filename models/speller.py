"""The Speller: an attention-based decoder that emits one character at a time (Chan et al. 2015, section 3.2)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import Memory
from models.deferred_grad import LoopProducts, product

State = tuple[Tensor, ...]  # tensors whose first dimension is the row, so that a beam re-orders them with one index


class Speller(nn.Module):
    """What both kinds of Speller share: the embedding, tied with the output layer, and one interface.

    attention: a module of models/attention.py whose queries are of size `hidden`.
    """

    def __init__(self, vocabulary_size: int, embedding: int, hidden: int, dropout: float, attention: nn.Module):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)  # it is the output layer too
        self.attention = attention
        self.output = nn.Linear(hidden + attention.dim, embedding)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.hidden, self.dropout = hidden, dropout

    def initial_state(self, memory: Memory, rows: int = 1) -> State:
        """State before `<sos>` for `rows` hypotheses of each utterance."""
        raise NotImplementedError

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        """Reads one character, returns what it thinks of the next.

        token: `(N,)`, `N` a multiple of `B`: row `n` spells utterance `n // (N / B)`.
        Returns logits `(N, V)`, the new state, attention weights `(N, H, S)`.
        """
        raise NotImplementedError

    def forward(self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Spells along given transcripts.

        tokens: `(N, U)`, starting with `<sos>`, rows as in `step`. With `teacher_forcing_rate` below 1, each true
        character is replaced, by one coin a token, with one drawn from the Speller's own distribution (section 3.3).
        Returns logits `(N, U, V)` and attention weights `(N, H, U, S)`.
        """
        raise NotImplementedError

    def _distribution(self, spoken: Tensor) -> Tensor:
        """Characters' logits, float32, `(..., V)`, from `(..., hidden + dim)`; the embedding is the output layer."""
        projected = F.dropout(F.gelu(self.output(spoken)), self.dropout, self.training)
        return F.linear(projected, self.embedding.weight, self.output_bias).float()

    def _dropout_masks(self, tokens: Tensor, layers: int) -> list[Tensor | None]:
        """One mask for all steps of an utterance `(N, size)`: for the embedding and each layer's output."""
        sizes = [self.embedding.embedding_dim] + [self.hidden] * layers
        if self.dropout == 0 or not self.training:
            return [None] * len(sizes)
        ones = self.embedding.weight.new_ones
        return [F.dropout(ones(tokens.size(0), size), self.dropout) for size in sizes]


class InputFeedingSpeller(Speller):
    """The paper's: LSTM cells, the first of which reads the context of the step before.

        s_i = RNN(s_{i-1}, y_{i-1}, c_{i-1});   c_i = Attention(s_i, memory);   P(y_i) = Distribution(s_i, c_i)

    State: h and c of every cell `(N, hidden)`, context `(N, dim)`, and, for an attention that sees its past, weights
    and their sum so far `(N, 2, H, S)`.
    """

    def __init__(
        self, vocabulary_size: int, embedding: int, hidden: int, layers: int, dropout: float, attention: nn.Module
    ):
        super().__init__(vocabulary_size, embedding, hidden, dropout, attention)
        inputs = [embedding + attention.dim] + [hidden] * (layers - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, hidden) for size in inputs)

    def initial_state(self, memory: Memory, rows: int = 1) -> State:
        """Zeros, attention on the first step."""
        B, H, S, _ = memory.keys.shape
        N = B * rows
        zeros = memory.keys.new_zeros(N, self.hidden)
        state = (*([zeros] * (2 * len(self.cells))), memory.keys.new_zeros(N, self.attention.dim))
        if not self.attention.sees_past:
            return state
        attention = torch.zeros(N, 2, H, S, device=memory.keys.device)
        attention[:, 0, :, 0] = 1.0
        return (*state, attention)

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        masks = self._dropout_masks(token, len(self.cells))
        read = self._read(self.embedding(token), masks)
        state, spoken, weights = self._recur(read, state, memory, masks, product)
        return self._distribution(spoken), state, weights

    def forward(self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0) -> tuple[Tensor, Tensor]:
        masks = self._dropout_masks(tokens, len(self.cells))
        sample = _coins(tokens, teacher_forcing_rate)
        # unbind, since the gradient of indexing would write a whole (N, U, 4 hidden) of zeros at every step
        read_at = self._read(self.embedding(tokens), masks).unbind(1)

        state, products = self.initial_state(memory, tokens.size(0) // memory.keys.size(0)), LoopProducts()
        spoken, attention = [], []
        for step, read in enumerate(read_at):
            if teacher_forcing_rate < 1 and step:
                with torch.no_grad():
                    guess = _draw(self._distribution(spoken[-1]))
                read = torch.where(sample[:, step, None], self._read(self.embedding(guess), masks), read)
            state, output, weights = self._recur(read, state, memory, masks, products)
            spoken.append(output)
            attention.append(weights)
        return self._distribution(torch.stack(spoken, dim=1)), torch.stack(attention, dim=2)

    def _read(self, embedded: Tensor, masks: list) -> Tensor:
        """What characters add to the first cell's gates, for a whole transcript at once: `(..., embedding)` to
        `(..., 4 hidden)`."""
        first = self.cells[0]
        for_characters = first.weight_ih[:, : embedded.size(-1)]
        return F.linear(_drop(embedded, masks[0]), for_characters, first.bias_ih + first.bias_hh)

    def _recur(
        self, read: Tensor, state: State, memory: Memory, masks: list, product: Callable
    ) -> tuple[State, Tensor, Tensor]:
        """All that depends on the step before: cells and attention. `read (N, 4 hidden)`, see `_read`."""
        hidden, (context, *past) = state[: 2 * len(self.cells)], state[2 * len(self.cells) :]
        B, N = memory.keys.size(0), read.size(0)
        new, x = [], context
        for index, cell in enumerate(self.cells):
            h, c = hidden[2 * index : 2 * index + 2]
            weight = cell.weight_ih[:, -x.size(1) :]  # of the first cell, the part for the context
            gates = read if index == 0 else cell.bias_ih + cell.bias_hh
            gates = gates + product(f"input {index}", x, weight.T) + product(f"hidden {index}", h, cell.weight_hh.T)
            h, c = _lstm(gates, c)
            new += [h, c]
            x = _drop(h, masks[index + 1])
        seen = past[0].unflatten(0, (B, N // B)).movedim(1, 3) if past else None  # (B, 2, H, Q, S)
        context, weights = self.attention(x.unflatten(0, (B, N // B)), memory, seen, product)
        context, weights = context.flatten(0, 1), weights.transpose(1, 2).flatten(0, 1)
        past = [torch.stack([weights, past[0][:, 1] + weights], dim=1)] if past else []
        return (*new, context, *past), torch.cat([x, context], dim=1), weights


class ParallelSpeller(Speller):
    """A Speller without a loop in training: its first LSTM reads characters only, the context joins after it.

        s_i = RNN(s_{i-1}, y_{i-1});   c_i = Attention(s_i, memory);   r_i = RNN'(r_{i-1}, s_i, c_i)
        P(y_i) = Distribution(r_i, c_i)

    Nothing waits for the attention of the step before, so a whole transcript is one call a layer. Sampled characters
    take two passes: predict along the truth, mix, spell along the mixture (Duckworth et al. 2019).
    State: h and c of every LSTM `(N, hidden)`.
    """

    def __init__(
        self, vocabulary_size: int, embedding: int, hidden: int, layers: int, dropout: float, attention: nn.Module
    ):
        super().__init__(vocabulary_size, embedding, hidden, dropout, attention)
        if attention.sees_past:
            raise ValueError("model.speller.input_feeding=false needs an attention that does not see its past weights")
        inputs = [embedding, *([hidden + attention.dim] + [hidden] * (layers - 2) if layers > 1 else [])]
        self.lstms = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in inputs)

    def initial_state(self, memory: Memory, rows: int = 1) -> State:
        """Zeros."""
        return (memory.keys.new_zeros(memory.keys.size(0) * rows, self.hidden),) * (2 * len(self.lstms))

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        masks = self._dropout_masks(token, len(self.lstms))
        logits, weights, state = self._spell(token.unsqueeze(1), state, memory, masks)
        return logits[:, 0], state, weights[:, :, 0]

    def forward(self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0) -> tuple[Tensor, Tensor]:
        masks = self._dropout_masks(tokens, len(self.lstms))
        start = self.initial_state(memory, tokens.size(0) // memory.keys.size(0))
        if teacher_forcing_rate < 1:
            with torch.no_grad():
                guess = _draw(self._spell(tokens, start, memory, masks)[0]).roll(1, dims=1)  # after what it follows
            tokens = torch.where(_coins(tokens, teacher_forcing_rate), guess, tokens)
        logits, weights, _ = self._spell(tokens, start, memory, masks)
        return logits, weights

    def _spell(self, tokens: Tensor, state: State, memory: Memory, masks: list) -> tuple[Tensor, Tensor, State]:
        """`tokens (N, U)` from `state` on: logits `(N, U, V)`, attention weights `(N, H, U, S)`, the state after."""
        B, (N, U) = memory.keys.size(0), tokens.shape
        x, context, new = _drop(self.embedding(tokens), masks[0]), None, []
        for index, lstm in enumerate(self.lstms):
            before = tuple(tensor.unsqueeze(0) for tensor in state[2 * index : 2 * index + 2])
            x, after = lstm(x, before)
            new += [tensor.squeeze(0) for tensor in after]
            x = _drop(x, masks[index + 1])
            if context is None:
                context, weights = self.attention(x.reshape(B, N // B * U, -1), memory)
                context, weights = context.view(N, U, -1), weights.unflatten(2, (N // B, U))
                if index + 1 < len(self.lstms):
                    x = torch.cat([x, context], dim=2)
        weights = weights.transpose(1, 2).flatten(0, 1)
        return self._distribution(torch.cat([x, context], dim=2)), weights, tuple(new)


def _lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c `(N, hidden)` from the gates `(N, 4 hidden)`, in the order of `nn.LSTMCell`, and the c before."""
    to_write, to_keep, candidate, to_show = gates.chunk(4, dim=1)
    c = to_keep.sigmoid() * c + to_write.sigmoid() * candidate.tanh()
    return to_show.sigmoid() * c.tanh(), c


def _coins(tokens: Tensor, teacher_forcing_rate: float) -> Tensor:
    """Which of `tokens (N, U)` are to be replaced; `<sos>` never is."""
    sample = torch.rand(tokens.shape, device=tokens.device) >= teacher_forcing_rate
    sample[:, 0] = False
    return sample


def _draw(logits: Tensor) -> Tensor:
    """Characters `(...)` drawn from the distributions of `logits (..., V)`."""
    flat = logits.float().softmax(-1).flatten(0, -2)
    return torch.multinomial(flat, 1).view(logits.shape[:-1])


def _drop(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x (N, size)` or `(N, U, size)` under a mask `(N, size)`."""
    if mask is None:
        return x
    mask = mask.to(x.dtype)
    return x * (mask if x.ndim == 2 else mask.unsqueeze(1))
