"""The Speller: an attention-based decoder that emits one character at a time (Chan et al. 2015, section 3.2)."""

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import Attention, Memory, Past
from models.deferred_grad import DeferredWeightGrad, Matmul, matmul


class CellState(NamedTuple):
    """State of one LSTM layer."""

    h: Tensor  # (N, hidden)
    c: Tensor  # (N, hidden)


class InputFeedingState(NamedTuple):
    """State of the InputFeedingSpeller."""

    cells: tuple[CellState, ...]
    context: Tensor  # (N, dim), of the step before
    past: Past | None  # (N, H, S), attention weights of the steps before; None if not needed


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

    def step(
        self, token: Tensor, state: State, memory: Memory, spoken: Tensor | None = None
    ) -> tuple[Tensor, State, Tensor]:
        """Reads one character per row and predicts the next.

        Args:
            token: `(N,)`, `N` a multiple of `B`: row `n` spells utterance `n // (N / B)`.
            state: before the character.
            memory: of the `B` utterances.
            spoken: `(N,)`, the encoder step at which the character is spoken, for an attention that `sees_position`.

        Returns:
            Logits `(N, V)`, the state after the character, attention weights `(N, H, S)`.
        """
        raise NotImplementedError

    def forward(
        self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0, spoken: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Spells along given transcripts.

        Args:
            tokens: `(N, U)`, beginning with `<sos>`, rows as in `step`.
            memory: of the `B` utterances.
            teacher_forcing_rate: probability, per token, that the true character is read and not one drawn from the
                Speller's own distribution (scheduled sampling; section 3.3 of the paper).
            spoken: `(N, U)`, the encoder step at which each token is spoken, for an attention that `sees_position`.

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

    def _noise(self, *shape: int) -> Tensor:
        """Gumbel noise `(*shape, V)`: the largest of logits with it is a draw from their distribution.

        Unlike torch.multinomial it neither checks the logits, which fails on what is not finite, nor waits for the GPU.
        """
        noise = self.embedding.weight.new_empty(*shape, self.embedding.num_embeddings)
        return noise.exponential_().log_().neg_()

    def _zero_cells(self, memory: Memory, rows: int, layers: int) -> tuple[CellState, ...]:
        zeros = memory.keys.new_zeros(memory.keys.size(0) * rows, self.hidden)
        return (CellState(zeros, zeros),) * layers


class InputFeedingSpeller(Speller[InputFeedingState]):
    """The paper's Speller: LSTM cells, the first of which reads the context of the step before.

        s_i = RNN(s_{i-1}, y_{i-1}, c_{i-1});   c_i = Attention(s_i, memory);   P(y_i) = Distribution(s_i, c_i)

    Args:
        layers: number of LSTM cells. The others: see `Speller`.

    Raises:
        ValueError: `attention` sees where the character that is read was spoken.
    """

    def __init__(
        self, vocabulary_size: int, embedding: int, hidden: int, layers: int, dropout: float, attention: Attention
    ):
        super().__init__(vocabulary_size, embedding, hidden, dropout, attention)
        if attention.sees_position:
            raise ValueError("model.speller.input_feeding=true needs an attention that does not see positions")
        inputs = [embedding + attention.dim] + [hidden] * (layers - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, hidden) for size in inputs)

    def initial_state(self, memory: Memory, rows: int = 1) -> InputFeedingState:
        """Zeros; attention on the first encoder step."""
        B, H, S, _ = memory.keys.shape
        N = B * rows
        cells, context = self._zero_cells(memory, rows, len(self.cells)), memory.keys.new_zeros(N, self.attention.dim)
        if not self.attention.sees_past:
            return InputFeedingState(cells, context, None)
        nothing = torch.zeros(N, H, S, device=memory.keys.device)
        previous = nothing.clone()
        previous[:, :, 0].fill_(1.0)
        return InputFeedingState(cells, context, Past(previous, nothing))

    def step(
        self, token: Tensor, state: InputFeedingState, memory: Memory, spoken: Tensor | None = None
    ) -> tuple[Tensor, InputFeedingState, Tensor]:
        masks, weights = self._dropout_masks(token, len(self.cells)), self._cell_weights(token.size(0))
        gates = self._character_gates(token, masks, weights, matmul)
        x, state, attention = self._recur(gates, state, memory, masks, weights, matmul)
        return self._distribution(torch.cat([x, state.context], dim=1)), state, attention

    def forward(
        self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0, spoken: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        (N, U), B = tokens.shape, memory.keys.size(0)
        masks, weights = self._dropout_masks(tokens, len(self.cells)), self._cell_weights(N)
        sampling = teacher_forcing_rate < 1
        sample, noise = _sampling_mask(tokens, teacher_forcing_rate), self._noise(U, N) if sampling else ()
        # unbind, since the gradient of indexing would write a whole (N, U, 4 hidden) of zeros at every step
        gates_at = self._character_gates(tokens, masks, weights, matmul).unbind(1)

        state, deferred = self.initial_state(memory, N // B), DeferredWeightGrad()
        recompute = torch.is_grad_enabled() and self.attention.must_recompute(memory, N // B * U)
        outputs: list[Tensor] = []
        contexts: list[Tensor] = []
        attention: list[Tensor] = []
        for step, gates in enumerate(gates_at):
            if sampling and step:
                with torch.no_grad():
                    before = self._distribution(torch.cat([outputs[-1], contexts[-1]], dim=1))
                    drawn = (before + noise[step]).argmax(-1)
                of_drawn = self._character_gates(drawn, masks, weights, deferred)
                gates = torch.where(sample[:, step, None], of_drawn, gates)
            output, state, looked = self._recur(gates, state, memory, masks, weights, deferred, recompute)
            outputs.append(output)
            contexts.append(state.context)
            attention.append(looked)
        spelled = torch.cat([torch.stack(outputs, dim=1), torch.stack(contexts, dim=1)], dim=2)
        return self._distribution(spelled), torch.stack(attention, dim=2)

    def _cell_weights(self, rows: int) -> "_CellWeights":
        """The cells' weights as a step of so many rows needs them; to be taken once for all steps."""
        cells = [cell for cell in self.cells if isinstance(cell, nn.LSTMCell)]
        size = self.embedding.embedding_dim
        for_characters, for_context = cells[0].weight_ih.split([size, cells[0].input_size - size], dim=1)
        inputs = [for_context, *(cell.weight_ih for cell in cells[1:])]
        recurrent = [torch.cat([weight, cell.weight_hh], dim=1).T for weight, cell in zip(inputs, cells, strict=True)]
        first, *biases = [cell.bias_ih + cell.bias_hh for cell in cells]
        return _CellWeights(for_characters.T, first, recurrent, biases, first.new_zeros(rows, first.size(0)))

    def _character_gates(self, tokens: Tensor, masks: Masks, weights: "_CellWeights", matmul: Matmul) -> Tensor:
        """Contribution of characters to the first cell's gates, for a whole transcript at once.

        `tokens (...)` to `(..., 4 hidden)`.
        """
        embedded = _drop(self.embedding(tokens), masks[0])
        return matmul("characters", embedded, weights.for_characters, weights.first_bias)

    def _recur(
        self,
        character_gates: Tensor,
        state: InputFeedingState,
        memory: Memory,
        masks: Masks,
        weights: "_CellWeights",
        matmul: Matmul,
        recompute: bool = False,
    ) -> tuple[Tensor, InputFeedingState, Tensor]:
        """The recurrent part of a step: cells, then attention.

        Args:
            character_gates: `(N, 4 hidden)`, of the characters read.
            state: before the step.
            memory: of the `B` utterances.
            masks: for dropout.
            weights: of the cells.
            matmul: for products with weights that are the same at every step.
            recompute: see `Attention.forward`.

        Returns:
            The last cell's output `(N, hidden)`, the state after the step, attention weights `(N, H, S)`.
        """
        B, N = memory.keys.size(0), character_gates.size(0)
        cells, x = [], state.context
        for index, (h, c) in enumerate(state.cells):
            both, weight = torch.cat([x, h], dim=1), weights.recurrent[index]
            if index == 0:
                cells.append(_lstm(character_gates, matmul("cell 0", both, weight), c))
            else:
                gates = matmul(f"cell {index}", both, weight, weights.biases[index - 1])
                cells.append(_lstm(weights.nothing, gates, c))
            x = _drop(cells[-1].h, masks[index + 1])
        past = None
        if state.past is not None:  # from rows to queries, (B, H, Q, S)
            past = Past(*(tensor.unflatten(0, (B, N // B)).transpose(1, 2) for tensor in state.past))
        context, attention = self.attention(x.unflatten(0, (B, N // B)), memory, past, matmul, recompute)
        context, attention = context.flatten(0, 1), attention.transpose(1, 2).flatten(0, 1)
        past = None if state.past is None else Past(attention, state.past.total + attention)
        return x, InputFeedingState(tuple(cells), context, past), attention


class _CellWeights(NamedTuple):
    """Weights of `InputFeedingSpeller.cells`, one product for what a cell reads and its own output of before."""

    for_characters: Tensor  # (embedding, 4 hidden)
    first_bias: Tensor  # (4 hidden,)
    recurrent: list[Tensor]  # (input + hidden, 4 hidden) of each cell; the first one's input is the context
    biases: list[Tensor]  # (4 hidden,) of all cells but the first
    nothing: Tensor  # (N, 4 hidden), zeros: what characters contribute to those


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

    def step(
        self, token: Tensor, state: ParallelState, memory: Memory, spoken: Tensor | None = None
    ) -> tuple[Tensor, ParallelState, Tensor]:
        masks, spoken = self._dropout_masks(token, len(self.lstms)), None if spoken is None else spoken.unsqueeze(1)
        logits, weights, state = self._spell(token.unsqueeze(1), state, memory, masks, spoken)
        return logits[:, 0], state, weights[:, :, 0]

    def forward(
        self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0, spoken: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        masks = self._dropout_masks(tokens, len(self.lstms))
        start = self.initial_state(memory, tokens.size(0) // memory.keys.size(0))
        if teacher_forcing_rate < 1:
            with torch.no_grad():
                logits = self._spell(tokens, start, memory, masks, spoken)[0]
                drawn = (logits + self._noise(*tokens.shape)).argmax(-1).roll(1, dims=1)  # after what it follows
            tokens = torch.where(_sampling_mask(tokens, teacher_forcing_rate), drawn, tokens)
        logits, weights, _ = self._spell(tokens, start, memory, masks, spoken)
        return logits, weights

    def _spell(
        self, tokens: Tensor, state: ParallelState, memory: Memory, masks: Masks, spoken: Tensor | None = None
    ) -> tuple[Tensor, Tensor, ParallelState]:
        """`tokens (N, U)` from `state` on: logits `(N, U, V)`, attention weights `(N, H, U, S)`, the state after."""
        x, cells = _drop(self.embedding(tokens), masks[0]), []
        lstms = [lstm for lstm in self.lstms if isinstance(lstm, nn.LSTM)]
        for index, (lstm, before) in enumerate(zip(lstms, state.cells, strict=True)):
            x, after = _run(lstm, x, before)
            cells.append(after)
            x = _drop(x, masks[index + 1])
            if index == 0:
                context, weights = self._look(x, memory, spoken)
                if len(self.lstms) > 1:
                    x = torch.cat([x, context], dim=2)
        return self._distribution(torch.cat([x, context], dim=2)), weights, ParallelState(tuple(cells))

    def _look(self, x: Tensor, memory: Memory, spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attention of `x (N, U, hidden)`: context `(N, U, dim)`, weights `(N, H, U, S)`."""
        B, (N, U, _) = memory.keys.size(0), x.shape
        spoken = None if spoken is None else spoken.reshape(B, N // B * U)
        context, weights = self.attention(x.reshape(B, N // B * U, -1), memory, spoken)
        return context.view(N, U, -1), weights.unflatten(2, (N // B, U)).transpose(1, 2).flatten(0, 1)


def _run(lstm: nn.LSTM, x: Tensor, before: CellState) -> tuple[Tensor, CellState]:
    """A layer over `x (N, U, size)`: its output `(N, U, hidden)`, and its state after the last step."""
    if x.size(1) > 1:
        x, after = lstm(x, tuple(tensor.unsqueeze(0) for tensor in before))
        return x, CellState(*(tensor.squeeze(0) for tensor in after))
    # In decoding: on a CPU nn.LSTM would bring its weights into oneDNN's layout anew for every character.
    after = CellState(*torch.lstm_cell(x[:, 0], before, *lstm.all_weights[0]))
    return after.h.unsqueeze(1), after


def _lstm(from_characters: Tensor, gates: Tensor, c: Tensor) -> CellState:
    """An LSTM cell after its products, whose sum is its gates, `(N, 4 hidden)` each, in the order of `nn.LSTMCell`."""
    if gates.is_cuda:  # one kernel forward and one backward; nn.LSTMCell uses it there too
        h, c, _ = torch.ops.aten._thnn_fused_lstm_cell(from_characters, gates, c)
        return CellState(h, c)
    input_gate, forget_gate, cell_gate, output_gate = (from_characters + gates).chunk(4, dim=1)
    c = forget_gate.sigmoid() * c + input_gate.sigmoid() * cell_gate.tanh()
    return CellState(output_gate.sigmoid() * c.tanh(), c)


def _sampling_mask(tokens: Tensor, teacher_forcing_rate: float) -> Tensor:
    """Which of `tokens (N, U)` are replaced by drawn ones; `<sos>` never is."""
    sample = torch.rand(tokens.shape, device=tokens.device) >= teacher_forcing_rate
    sample[:, 0] = False
    return sample


def _drop(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x (N, size)` or `(N, U, size)` under a mask `(N, size)`."""
    if mask is None:
        return x
    mask = mask.to(x.dtype)
    return x * (mask if x.ndim == 2 else mask.unsqueeze(1))
