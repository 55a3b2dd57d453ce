"""Listen, Attend and Spell as a textbook writes it: the layers and parameters of models/ without its optimisations.

Written for comparison and never trained. It differs from models/ in what costs time, not in what it computes: with the
same weights, `packed` and without dropout, both give the same logits (tests/benchmarks/reference/test_textbook.py).

- It runs a bidirectional `nn.LSTM` on a packed sequence, or on the padded batch, where padding reaches real frames.
- It spells in a Python loop that projects keys and values anew and calls the output layer at every step.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.attention import LocationAttention, Memory
from models.blstm import length_mask
from models.las import EncoderOutput
from models.listener import CTC_MAX_REDUCTION


class Conv(nn.Module):
    """Conv1d over time, layer norm over channels, GELU; arguments as of `models.listener.Conv`."""

    def __init__(self, input_dim: int, channels: int, kernel: int, stride: int):
        super().__init__()
        self.conv = nn.Conv1d(input_dim, channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels)
        self.stride = stride

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, T, C)` to `(B, ceil(T / stride), channels)`, zero beyond each length; lengths `(B,)` likewise."""
        lengths = (lengths - 1) // self.stride + 1
        x = F.gelu(self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2)))
        return x * length_mask(lengths, x.size(1)).unsqueeze(2), lengths


class BLSTM(nn.Module):
    """Bidirectional LSTM and layer norm; a pyramid layer first joins pairs of frames by a reshape.

    Args:
        input_dim: `C`, of a single frame.
        hidden: LSTM units per direction.
        stride: frames per step, 2 in a pyramid layer and 1 elsewhere.
        packed: whether the LSTM reads a packed sequence, or padding as well.
    """

    def __init__(self, input_dim: int, hidden: int, stride: int, packed: bool):
        super().__init__()
        self.lstm = nn.LSTM(stride * input_dim, hidden, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.stride, self.packed = stride, packed

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, T, C)` to `(B, ceil(T / stride), 2 * hidden)`, lengths `(B,)` likewise."""
        if self.stride > 1:
            x = F.pad(x, (0, 0, 0, -x.size(1) % self.stride))
            x = x.reshape(x.size(0), -1, self.stride * x.size(2))
            lengths = (lengths - 1) // self.stride + 1
        if self.packed:
            sequence = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(self.lstm(sequence)[0], batch_first=True)
        else:
            x, _ = self.lstm(x)
        return self.norm(x), lengths


class Attention(nn.Module):
    """The equations of models/attention.py for one query per utterance; arguments as of the classes there."""

    def __init__(self, query_dim: int, memory_dim: int, kind: str, heads: int, dim: int):
        super().__init__()
        self.kind, self.heads, size = kind, heads, dim // heads
        self.query = nn.Linear(query_dim, dim)
        self.key = nn.Linear(memory_dim, dim)
        self.value = nn.Linear(memory_dim, dim)
        if kind == "location":
            channels, width = LocationAttention.CHANNELS, LocationAttention.WIDTH
            self.location = nn.Conv1d(2, channels, width, padding=width // 2, bias=False)
            self.location_key = nn.Linear(channels, size, bias=False)
            self.energy = nn.Parameter(torch.randn(heads, size) / size**0.5)

    def forward(self, query: Tensor, encoded: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One step of attention.

        Args:
            query: `(B, query_dim)`.
            encoded: `(B, S, memory_dim)`.
            mask: `(B, S)`, True inside each length.
            past: `(B, H, 2, S)`, the weights of the step before and the sum of all so far.

        Returns:
            The context `(B, dim)` and the weights `(B, H, S)`.
        """
        queries = self.query(query).unflatten(1, (self.heads, 1, -1))
        keys, values = (f(encoded).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.key, self.value))
        if self.kind == "location":
            location = self.location_key(self.location(past.flatten(0, 1)).transpose(1, 2)).unflatten(0, past.shape[:2])
            hidden = torch.tanh(queries + keys + location)  # (B, H, S, A)
            energies = (hidden * self.energy.unsqueeze(1)).sum(3)
        else:
            energies = (queries @ keys.transpose(2, 3)).squeeze(2) / queries.size(3) ** 0.5
        weights = energies.float().masked_fill(~mask.unsqueeze(1), float("-inf")).softmax(2)
        return (weights.unsqueeze(2).to(values.dtype) @ values).flatten(1), weights


class TextbookLAS(nn.Module):
    """The whole model. Its Speller always feeds the context back, as the paper's does.

    Args:
        packed: see `BLSTM`. The others: see `models.las.LAS`.
    """

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        listener: Mapping[str, Any],
        attention: Mapping[str, Any],
        speller: Mapping[str, Any],
        ctc: bool,
        packed: bool,
    ):
        super().__init__()
        layers: list[Conv | BLSTM] = []
        dim = feature_dim
        for settings in listener["conv"]:
            layers.append(Conv(dim, **settings))
            dim = settings["channels"]
        for stride, count in ((1, listener["blstm_layers"]), (2, listener["pblstm_layers"])):
            for _ in range(count):
                layers.append(BLSTM(dim, listener["hidden"], stride, packed))
                dim = 2 * listener["hidden"]
        self.layers = nn.ModuleList(layers)
        self.listener_dropout = nn.Dropout(listener["dropout"])

        hidden, embedding, context = speller["hidden"], speller["embedding"], attention["dim"]
        self.hidden = hidden
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)
        sizes = [embedding + context] + [hidden] * (speller["layers"] - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, hidden) for size in sizes)
        self.attention = Attention(hidden, dim, **attention)
        self.output = nn.Linear(hidden + context, embedding)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.dropout = nn.Dropout(speller["dropout"])

        ctc_dim, reduction = feature_dim, 1
        self.ctc_layer = -1
        for index, layer in enumerate(layers):
            reduction *= layer.stride
            if reduction <= CTC_MAX_REDUCTION:
                self.ctc_layer, ctc_dim = index, layer.norm.normalized_shape[0]
        self.ctc = nn.Linear(ctc_dim, vocabulary_size) if ctc else None

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, EncoderOutput]:
        """As `models.las.LAS` with teacher forcing; the memory is the encoder output as it is, without projections.

        Args:
            features: `(B, T, D)`.
            lengths: `(B,)`.
            tokens: `(B, U)`, beginning with `<sos>`.
        """
        lengths = lengths.to(features.device)
        x, ctc_memory, ctc_lengths = features, features, lengths
        for index, layer in enumerate(self.layers):
            x, lengths = layer(x, lengths)
            x = self.listener_dropout(x)
            if index == self.ctc_layer:
                ctc_memory, ctc_lengths = x, lengths
        ctc = None if self.ctc is None else self.ctc(ctc_memory).float().log_softmax(-1)
        mask = length_mask(lengths, x.size(1))
        logits, attention = self._spell(tokens, x, mask)
        return logits, attention, EncoderOutput(unprojected_memory(x, mask), ctc, ctc_lengths)

    def _spell(self, tokens: Tensor, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, U, V)` and attention weights `(B, H, U, S)` of `tokens (B, U)`."""
        B, S, H = encoded.size(0), encoded.size(1), self.attention.heads
        context = encoded.new_zeros(B, self.attention.value.out_features)
        states = [(encoded.new_zeros(B, self.hidden),) * 2 for _ in self.cells]
        weights, total = torch.zeros(2, B, H, S, device=encoded.device)
        weights[:, :, 0] = 1.0
        logits, attention = [], []
        for token in tokens.unbind(1):
            x = torch.cat([self.dropout(self.embedding(token)), context], dim=1)
            for index, cell in enumerate(self.cells):
                states[index] = cell(x, states[index])
                x = self.dropout(states[index][0])
            context, weights = self.attention(x, encoded, mask, torch.stack([weights, total], dim=2))
            total = total + weights
            projected = self.dropout(F.gelu(self.output(torch.cat([x, context], dim=1))))
            logits.append(F.linear(projected, self.embedding.weight, self.output_bias).float())
            attention.append(weights)
        return torch.stack(logits, dim=1), torch.stack(attention, dim=2)


def unprojected_memory(encoded: Tensor, mask: Tensor) -> Memory:
    """A memory whose keys and values are `encoded (B, S, E)` itself, with `mask (B, S)`, as a single head."""
    return Memory(encoded.unsqueeze(1), encoded.unsqueeze(1), ~mask[:, None, None, :], mask.sum(1))
