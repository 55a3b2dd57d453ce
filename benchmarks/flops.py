"""Floating point operations of a forward pass, counted from the model's settings; multiplication and addition are two.

Matrix products only (convolutions, LSTMs, linear layers, attention), at true lengths: padding is not useful work. What
is elementwise is left out, as usual. A training step counts three times the forward pass (one product forward, two
backward). Every function takes numbers or arrays of them.
"""

from typing import NamedTuple, TypeVar

import numpy as np

from models.attention import LocationAttention
from models.listener import CTC_MAX_REDUCTION

TRAINING = 3  # a training step in forward passes
Number = TypeVar("Number", int, np.ndarray)


class Flops(NamedTuple):
    listener: Number
    attention: Number
    speller: Number
    ctc: Number

    @property
    def total(self) -> Number:
        return self.listener + self.attention + self.speller + self.ctc


def lstm(steps: Number, input_dim: int, hidden: int) -> Number:
    """One direction of an LSTM: four gates of the input and of the state."""
    return 2 * steps * 4 * hidden * (input_dim + hidden)


def count_flops(
    frames: Number,
    tokens: Number,
    feature_dim: int,
    vocabulary_size: int,
    listener: dict,
    attention: dict,
    speller: dict,
    ctc: bool,
) -> Flops:
    """A forward pass of `models.las.LAS` along the transcript, per utterance.

    frames, tokens: as in `Lengths`.   The rest: as for `LAS`.
    """
    encoded, steps, dim, ctc_flops = _listener(frames, feature_dim, vocabulary_size, **listener)
    spelled = tokens - 1  # <eos> is never read
    return Flops(
        encoded,
        _attention(steps, spelled, speller["hidden"], dim, **attention),
        spelled * _speller(vocabulary_size, attention["dim"], **speller),
        ctc_flops if ctc else 0 * frames,
    )


def _listener(
    steps: Number, dim: int, V: int, conv: list[dict], blstm_layers: int, pblstm_layers: int, hidden: int, **_
) -> tuple[Number, Number, int, Number]:
    """Of the Listener, its steps and dimension, and of the CTC branch."""
    flops, reduction, ctc = 0, 1, 2 * steps * dim * V
    layers = [*conv, *["blstm"] * blstm_layers, *["pblstm"] * pblstm_layers]
    for layer in layers:
        if isinstance(layer, dict):
            steps, reduction = (steps - 1) // layer["stride"] + 1, reduction * layer["stride"]
            flops, dim = flops + 2 * steps * layer["kernel"] * dim * layer["channels"], layer["channels"]
        else:
            if layer == "pblstm":
                steps, reduction, dim = (steps + 1) // 2, reduction * 2, 2 * dim
            flops, dim = flops + 2 * lstm(steps, dim, hidden), 2 * hidden
        if reduction <= CTC_MAX_REDUCTION:
            ctc = 2 * steps * dim * V
    return flops, steps, dim, ctc


def _attention(steps: Number, spelled: Number, query_dim: int, memory_dim: int, kind: str, heads: int, dim: int):
    """Keys and values once; a query a character; at each step of the memory energies and the weighted sum."""
    energy = dim
    if kind == "location":
        channels, width = LocationAttention.CHANNELS, LocationAttention.WIDTH
        energy = heads * 2 * channels * width + channels * dim + dim
    return 2 * (2 * steps * memory_dim * dim + spelled * query_dim * dim + spelled * steps * (energy + dim))


def _speller(V: int, context: int, embedding: int, hidden: int, layers: int, input_feeding: bool, **_) -> int:
    """One character: LSTMs, output layer, logits."""
    inputs = [embedding, *[hidden] * (layers - 1)]
    if input_feeding:
        inputs[0] += context
    elif layers > 1:
        inputs[1] += context
    cells = sum(lstm(1, dim, hidden) for dim in inputs)
    return cells + 2 * (hidden + context) * embedding + 2 * embedding * V
