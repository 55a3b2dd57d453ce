"""The Speller: an attention-based decoder that emits one character at a time (Chan et al. 2015, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import Memory

# h and c of every cell (N, hidden), context (N, dim), attention weights and their sum so far (N, 2, H, S)
State = tuple[Tensor, ...]


class Speller(nn.Module):
    """Embedding, LSTM cells with the context fed back, character distribution with tied embedding.

        s_i = RNN(s_{i-1}, y_{i-1}, c_{i-1});   c_i = Attention(s_i, memory);   P(y_i) = Distribution(s_i, c_i)

    attention: a module of models/attention.py whose queries are of size `hidden`.
    """

    def __init__(
        self, vocabulary_size: int, embedding: int, hidden: int, layers: int, dropout: float, attention: nn.Module
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)  # it is the output layer too
        inputs = [embedding + attention.dim] + [hidden] * (layers - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, hidden) for size in inputs)
        self.attention = attention
        self.output = nn.Linear(hidden + attention.dim, embedding)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.hidden, self.dropout = hidden, dropout

    def initial_state(self, memory: Memory, rows: int = 1) -> State:
        """State before `<sos>` for `rows` hypotheses of each utterance: zeros, attention on the first step."""
        B, H, S, _ = memory.keys.shape
        N = B * rows
        zeros = memory.keys.new_zeros(N, self.hidden)
        attention = torch.zeros(N, 2, H, S, device=memory.keys.device)
        attention[:, 0, :, 0] = 1.0
        context = memory.keys.new_zeros(N, self.attention.dim)
        return (*([zeros] * (2 * len(self.cells))), context, attention)

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        """Reads one character, returns what it thinks of the next.

        token: `(N,)`, `N` a multiple of `B`: row `n` spells utterance `n // (N / B)`.
        Returns logits `(N, V)`, the new state, attention weights `(N, H, S)`.
        """
        state, spoken = self._recur(self.embedding(token), state, memory, self._dropout_masks(0, token))
        return self._distribution(spoken), state, state[-1][:, 0]

    def forward(self, tokens: Tensor, memory: Memory, teacher_forcing_rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Spells along given transcripts.

        tokens: `(N, U)`, starting with `<sos>`, rows as in `step`. With `teacher_forcing_rate` below 1, each true
        character is replaced, by one coin a token, with one drawn from the Speller's own distribution (section 3.3).
        Returns logits `(N, U, V)` and attention weights `(N, H, U, S)`.
        """
        masks = self._dropout_masks(self.dropout if self.training else 0, tokens)
        sample = torch.rand(tokens.shape, device=tokens.device) >= teacher_forcing_rate
        sample[:, 0] = False  # <sos> is never replaced
        sampling = teacher_forcing_rate < 1
        embedded = self.embedding(tokens)

        state, spoken, attention = self.initial_state(memory, tokens.size(0) // memory.keys.size(0)), [], []
        for step in range(tokens.size(1)):
            character = embedded[:, step]
            if sampling and step:
                with torch.no_grad():
                    guess = torch.multinomial(self._distribution(spoken[-1]).float().softmax(-1), 1).squeeze(1)
                character = torch.where(sample[:, step, None], self.embedding(guess), character)
            state, output = self._recur(character, state, memory, masks)
            spoken.append(output)
            attention.append(state[-1][:, 0])
        return self._distribution(torch.stack(spoken, dim=1)), torch.stack(attention, dim=2)

    def _recur(self, character: Tensor, state: State, memory: Memory, masks: list) -> tuple[State, Tensor]:
        """All that depends on the step before: cells and attention. `character (N, embedding)`."""
        *hidden, context, attention = state
        B, N = memory.keys.size(0), character.size(0)
        x = torch.cat([_drop(character, masks[0]), context.to(character.dtype)], dim=1)
        new = []
        for index, cell in enumerate(self.cells):
            h, c = cell(x, (hidden[2 * index], hidden[2 * index + 1]))
            new += [h, c]
            x = _drop(h, masks[index + 1])
        past = attention.unflatten(0, (B, N // B)).movedim(1, 3)  # (B, 2, H, Q, S)
        context, weights = self.attention(x.unflatten(0, (B, N // B)), memory, past)
        context, weights = context.flatten(0, 1), weights.transpose(1, 2).flatten(0, 1)
        attention = torch.stack([weights, attention[:, 1] + weights], dim=1)
        return (*new, context, attention), torch.cat([x, context.to(x.dtype)], dim=1)

    def _distribution(self, spoken: Tensor) -> Tensor:
        """Characters' logits, float32, `(..., V)`, from `(..., hidden + dim)`; the embedding is the output layer."""
        projected = F.dropout(F.gelu(self.output(spoken)), self.dropout, self.training)
        return F.linear(projected, self.embedding.weight, self.output_bias).float()

    def _dropout_masks(self, rate: float, tokens: Tensor) -> list[Tensor | None]:
        """One mask for all steps of an utterance: for the embedding and each cell's output."""
        sizes = [self.embedding.embedding_dim] + [self.hidden] * len(self.cells)
        if rate == 0:
            return [None] * len(sizes)
        ones = self.embedding.weight.new_ones
        return [F.dropout(ones(tokens.size(0), size), rate) for size in sizes]


def _drop(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)
