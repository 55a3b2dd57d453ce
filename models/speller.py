"""The Speller: an attention-based decoder that emits one character at a time (Chan et al. 2015, section 3.2)."""

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import Attention, Memory
from models.deferred_grad import DeferredWeightGrad, Matmul, matmul


class CellState(NamedTuple):
    """State of one LSTM layer."""

    h: Tensor  # (N, hidden)
    c: Tensor  # (N, hidden)


class InputFeedingState(NamedTuple):
    """State of the InputFeedingSpeller."""

    cells: tuple[CellState, ...]
    context: Tensor  # (N, dim), of the step before
    past_attention: Tensor | None  # (N, 2, H, S), weights of the step before and the sum so far; None if not needed


class ParallelState(NamedTuple):
    """State of the ParallelSpeller."""

    cells: tuple[CellState, ...]


State = TypeVar("State", InputFeedingState, ParallelState)
Masks = list[Tensor | None]  # dropout masks: of the embedding, then of each layer's output


class Speller(nn.Module, Generic[State]):
    """What both kinds of Speller share: the embedding, tied with the output layer, and one interface.

    States are NamedTuples of tensors whose first dimension is the row, `N` hypotheses: a beam re-orders them all by one
    index.

    Args:
        vocabulary_size: `V`.
        embedding: size of a character's embedding.
        hidden: LSTM units.
        dropout: on the embedding, between layers and before the output.
        attention: an attention whose queries are of size `hidden`.
    """

    embedding: nn.Embedding
    attention: Attention

    def __init__(self, vocabulary_size: int, embedding: int, hidden: int, dropout: float, attention: Attention):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)  # it is the output layer too
        self.attention = attention
        self.output = nn.Linear(hidden + attention.dim, embedding)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.hidden, self.dropout = hidden, dropout

    def initial_state(self, memory: Memory, rows: int = 1) -> State:
        """State before `<sos>` for `rows` hypotheses of each utterance, `N = B * rows`."""
        raise NotImplementedError

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        """Reads one character per row and predicts the next.

        Args:
            token: `(N,)`, `N` a multiple of `B`: row `n` spells utterance `n // (N / B)`.
            state: before the character.
            memory: of the `B` utterances.

        Returns:
            Logits `(N, V)`, the state after the character, attention weights `(N, H, S)`.
        """
        raise NotImplementedError

    def forward(self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Spells along given transcripts.

        Args:
            tokens: `(N, U)`, beginning with `<sos>`, rows as in `step`.
            memory: of the `B` utterances.
            teacher_forcing_rate: probability, per token, that the true character is read and not one drawn from the
                Speller's own distribution (scheduled sampling; section 3.3 of the paper).

        Returns:
            Logits `(N, U, V)` and attention weights `(N, H, U, S)`.
        """
        raise NotImplementedError

    def _distribution(self, x: Tensor) -> Tensor:
        """Characters' logits, float32, `(..., V)`, from `(..., hidden + dim)`; the embedding is the output layer."""
        projected = F.dropout(F.gelu(self.output(x)), self.dropout, self.training)
        return F.linear(projected, self.embedding.weight, self.output_bias).float()

    def _dropout_masks(self, tokens: Tensor, layers: int) -> Masks:
        """One mask for all steps of an utterance, `(N, size)`, for the embedding and each layer's output."""
        sizes = [self.embedding.embedding_dim] + [self.hidden] * layers
        if self.dropout == 0 or not self.training:
            return [None] * len(sizes)
        ones = self.embedding.weight.new_ones
        return [F.dropout(ones(tokens.size(0), size), self.dropout) for size in sizes]

    def _zero_cells(self, memory: Memory, rows: int, layers: int) -> tuple[CellState, ...]:
        zeros = memory.keys.new_zeros(memory.keys.size(0) * rows, self.hidden)
        return (CellState(zeros, zeros),) * layers


class InputFeedingSpeller(Speller[InputFeedingState]):
    """The paper's Speller: LSTM cells, the first of which reads the context of the step before.

        s_i = RNN(s_{i-1}, y_{i-1}, c_{i-1});   c_i = Attention(s_i, memory);   P(y_i) = Distribution(s_i, c_i)

    Args:
        layers: number of LSTM cells. The others: see `Speller`.
    """

    def __init__(
        self, vocabulary_size: int, embedding: int, hidden: int, layers: int, dropout: float, attention: Attention
    ):
        super().__init__(vocabulary_size, embedding, hidden, dropout, attention)
        inputs = [embedding + attention.dim] + [hidden] * (layers - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, hidden) for size in inputs)

    def initial_state(self, memory: Memory, rows: int = 1) -> InputFeedingState:
        """Zeros; attention on the first encoder step."""
        B, H, S, _ = memory.keys.shape
        N = B * rows
        cells, context = self._zero_cells(memory, rows, len(self.cells)), memory.keys.new_zeros(N, self.attention.dim)
        if not self.attention.sees_past:
            return InputFeedingState(cells, context, None)
        past = torch.zeros(N, 2, H, S, device=memory.keys.device)
        past[:, 0, :, 0] = 1.0
        return InputFeedingState(cells, context, past)

    def step(self, token: Tensor, state: InputFeedingState, memory: Memory) -> tuple[Tensor, InputFeedingState, Tensor]:
        masks = self._dropout_masks(token, len(self.cells))
        gates = self._character_gates(self.embedding(token), masks)
        state, output, weights = self._recur(gates, state, memory, masks, matmul)
        return self._distribution(output), state, weights

    def forward(self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0) -> tuple[Tensor, Tensor]:
        masks = self._dropout_masks(tokens, len(self.cells))
        sample = _sampling_mask(tokens, teacher_forcing_rate)
        # unbind, since the gradient of indexing would write a whole (N, U, 4 hidden) of zeros at every step
        gates_at = self._character_gates(self.embedding(tokens), masks).unbind(1)

        state, deferred = self.initial_state(memory, tokens.size(0) // memory.keys.size(0)), DeferredWeightGrad()
        outputs: list[Tensor] = []
        attention: list[Tensor] = []
        for step, gates in enumerate(gates_at):
            if teacher_forcing_rate < 1 and step:
                with torch.no_grad():
                    drawn = _draw(self._distribution(outputs[-1]))
                of_drawn = self._character_gates(self.embedding(drawn), masks)
                gates = torch.where(sample[:, step, None], of_drawn, gates)
            state, output, weights = self._recur(gates, state, memory, masks, deferred)
            outputs.append(output)
            attention.append(weights)
        return self._distribution(torch.stack(outputs, dim=1)), torch.stack(attention, dim=2)

    def _character_gates(self, embedded: Tensor, masks: Masks) -> Tensor:
        """Contribution of characters to the first cell's gates, for a whole transcript at once.

        `(..., embedding)` to `(..., 4 hidden)`.
        """
        first = self._cell(0)
        for_characters = first.weight_ih[:, : embedded.size(-1)]
        return F.linear(_drop(embedded, masks[0]), for_characters, first.bias_ih + first.bias_hh)

    def _cell(self, index: int) -> nn.LSTMCell:
        cell = self.cells[index]
        assert isinstance(cell, nn.LSTMCell)
        return cell

    def _recur(
        self, character_gates: Tensor, state: InputFeedingState, memory: Memory, masks: Masks, matmul: Matmul
    ) -> tuple[InputFeedingState, Tensor, Tensor]:
        """The recurrent part of a step: cells, then attention.

        Args:
            character_gates: `(N, 4 hidden)`, of the characters read.
            state: before the step.
            memory: of the `B` utterances.
            masks: for dropout.
            matmul: for products with weights that are the same at every step.

        Returns:
            The state after the step, the output `(N, hidden + dim)`, attention weights `(N, H, S)`.
        """
        B, N = memory.keys.size(0), character_gates.size(0)
        cells, x = [], state.context
        for index, (h, c) in enumerate(state.cells):
            cell = self._cell(index)
            weight = cell.weight_ih[:, -x.size(1) :]  # of the first cell, the part for the context
            gates = character_gates if index == 0 else cell.bias_ih + cell.bias_hh
            gates = gates + matmul(f"input {index}", x, weight.T) + matmul(f"hidden {index}", h, cell.weight_hh.T)
            cells.append(_lstm(gates, c))
            x = _drop(cells[-1].h, masks[index + 1])
        past = state.past_attention
        seen = None if past is None else past.unflatten(0, (B, N // B)).movedim(1, 3)  # (B, 2, H, Q, S)
        context, weights = self.attention(x.unflatten(0, (B, N // B)), memory, seen, matmul)
        context, weights = context.flatten(0, 1), weights.transpose(1, 2).flatten(0, 1)
        if past is not None:
            past = torch.stack([weights, past[:, 1] + weights], dim=1)
        return InputFeedingState(tuple(cells), context, past), torch.cat([x, context], dim=1), weights


class ParallelSpeller(Speller[ParallelState]):
    """A Speller without a loop in training: its first LSTM reads characters only, the context joins after it.

        s_i = RNN(s_{i-1}, y_{i-1});   c_i = Attention(s_i, memory);   r_i = RNN'(r_{i-1}, s_i, c_i)
        P(y_i) = Distribution(r_i, c_i)

    Nothing waits for the attention of the step before, so a whole transcript is one call per layer. Scheduled sampling
    takes two passes: predict along the truth, mix, spell along the mixture (Duckworth et al. 2019).

    Args:
        layers: number of LSTM layers. The others: see `Speller`.

    Raises:
        ValueError: `attention` needs the weights of the step before.
    """

    def __init__(
        self, vocabulary_size: int, embedding: int, hidden: int, layers: int, dropout: float, attention: Attention
    ):
        super().__init__(vocabulary_size, embedding, hidden, dropout, attention)
        if attention.sees_past:
            raise ValueError("model.speller.input_feeding=false needs an attention that does not see its past weights")
        inputs = [embedding, *([hidden + attention.dim] + [hidden] * (layers - 2) if layers > 1 else [])]
        self.lstms = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in inputs)

    def initial_state(self, memory: Memory, rows: int = 1) -> ParallelState:
        """Zeros."""
        return ParallelState(self._zero_cells(memory, rows, len(self.lstms)))

    def step(self, token: Tensor, state: ParallelState, memory: Memory) -> tuple[Tensor, ParallelState, Tensor]:
        masks = self._dropout_masks(token, len(self.lstms))
        logits, weights, state = self._spell(token.unsqueeze(1), state, memory, masks)
        return logits[:, 0], state, weights[:, :, 0]

    def forward(self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0) -> tuple[Tensor, Tensor]:
        masks = self._dropout_masks(tokens, len(self.lstms))
        start = self.initial_state(memory, tokens.size(0) // memory.keys.size(0))
        if teacher_forcing_rate < 1:
            with torch.no_grad():
                drawn = _draw(self._spell(tokens, start, memory, masks)[0]).roll(1, dims=1)  # after what it follows
            tokens = torch.where(_sampling_mask(tokens, teacher_forcing_rate), drawn, tokens)
        logits, weights, _ = self._spell(tokens, start, memory, masks)
        return logits, weights

    def _spell(
        self, tokens: Tensor, state: ParallelState, memory: Memory, masks: Masks
    ) -> tuple[Tensor, Tensor, ParallelState]:
        """`tokens (N, U)` from `state` on: logits `(N, U, V)`, attention weights `(N, H, U, S)`, the state after."""
        B, (N, U) = memory.keys.size(0), tokens.shape
        x, cells = _drop(self.embedding(tokens), masks[0]), []
        for index, (lstm, before) in enumerate(zip(self.lstms, state.cells, strict=True)):
            x, after = lstm(x, tuple(tensor.unsqueeze(0) for tensor in before))
            cells.append(CellState(*(tensor.squeeze(0) for tensor in after)))
            x = _drop(x, masks[index + 1])
            if index == 0:
                context, weights = self.attention(x.reshape(B, N // B * U, -1), memory)
                context, weights = context.view(N, U, -1), weights.unflatten(2, (N // B, U))
                if len(self.lstms) > 1:
                    x = torch.cat([x, context], dim=2)
        weights = weights.transpose(1, 2).flatten(0, 1)
        return self._distribution(torch.cat([x, context], dim=2)), weights, ParallelState(tuple(cells))


def _lstm(gates: Tensor, c: Tensor) -> CellState:
    """An LSTM cell after its products: `gates (N, 4 hidden)`, in the order of `nn.LSTMCell`, and the c before."""
    input_gate, forget_gate, cell_gate, output_gate = gates.chunk(4, dim=1)
    c = forget_gate.sigmoid() * c + input_gate.sigmoid() * cell_gate.tanh()
    return CellState(output_gate.sigmoid() * c.tanh(), c)


def _sampling_mask(tokens: Tensor, teacher_forcing_rate: float) -> Tensor:
    """Which of `tokens (N, U)` are replaced by drawn ones; `<sos>` never is."""
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
