"""Floating point operations (FLOPs) of a forward pass, from the model's settings; a multiply-add counts as two.

Only matrix products count (convolutions, LSTMs, linear layers, attention), at true lengths: padding is no useful work,
and elementwise operations are left out, as is usual. A training step is counted as three forward passes: each product
of the forward pass has two in the backward pass. Lengths may be numbers, or arrays of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from models.attention import LocationAttention
from models.listener import CTC_MAX_REDUCTION

TRAINING = 3  # forward passes that a training step costs
Number = TypeVar("Number", int, np.ndarray)


class Flops(NamedTuple, Generic[Number]):
    """FLOPs of a forward pass by part of the model."""

    listener: Number
    attention: Number
    speller: Number
    ctc: Number

    @property
    def total(self) -> Number:
        return self.listener + self.attention + self.speller + self.ctc


def lstm(steps: Number, input_dim: int, hidden: int) -> Number:
    """FLOPs of one direction of an LSTM layer: the products of its four gates with input and state."""
    return 2 * steps * 4 * hidden * (input_dim + hidden)


def count_flops(
    frames: Number,
    tokens: Number,
    feature_dim: int,
    vocabulary_size: int,
    listener: Mapping[str, Any],
    attention: Mapping[str, Any],
    speller: Mapping[str, Any],
    ctc: bool,
) -> Flops[Number]:
    """FLOPs of a forward pass of `models.las.LAS` along the transcript.

    Args:
        frames: number of frames; an int, or `(N,)` for `N` utterances.
        tokens: number of tokens, `<sos>` and `<eos>` included, in the same form.
        feature_dim: `D`.
        vocabulary_size: `V`.
        listener: keyword arguments as of `LAS`.
        attention: likewise.
        speller: likewise.
        ctc: whether there is a CTC branch.

    Returns:
        Counts in the form of `frames`.
    """
    flops, steps, memory_dim, ctc_flops = _listener(frames, feature_dim, vocabulary_size, **listener)
    spelled = tokens - 1  # <eos> is predicted but never read
    return Flops(
        flops,
        _attention(steps, spelled, speller["hidden"], memory_dim, **attention),
        spelled * _speller(vocabulary_size, attention["dim"], **speller),
        ctc_flops if ctc else 0 * frames,
    )


def _listener(
    steps: Number,
    dim: int,
    V: int,
    conv: Sequence[Mapping[str, int]],
    blstm_layers: int,
    pblstm_layers: int,
    hidden: int,
    **_: Any,
) -> tuple[Number, Number, int, Number]:
    """FLOPs of the Listener, its output's steps and dimension, and the FLOPs of the CTC branch."""
    flops, reduction, ctc = 0 * steps, 1, 2 * steps * dim * V
    for layer in conv:
        steps, reduction = (steps - 1) // layer["stride"] + 1, reduction * layer["stride"]
        flops, dim = flops + 2 * steps * layer["kernel"] * dim * layer["channels"], layer["channels"]
        if reduction <= CTC_MAX_REDUCTION:
            ctc = 2 * steps * dim * V
    for factor in [1] * blstm_layers + [2] * pblstm_layers:
        steps, reduction = (steps - 1) // factor + 1, reduction * factor
        flops, dim = flops + 2 * lstm(steps, factor * dim, hidden), 2 * hidden
        if reduction <= CTC_MAX_REDUCTION:
            ctc = 2 * steps * dim * V
    return flops, steps, dim, ctc


def _attention(
    steps: Number, spelled: Number, query_dim: int, memory_dim: int, kind: str, heads: int, dim: int
) -> Number:
    """FLOPs of keys and values (once), of queries (per character), and of energies and contexts (per pair of both)."""
    energy = dim
    if kind == "location":
        channels, width = LocationAttention.CHANNELS, LocationAttention.WIDTH
        energy = heads * 2 * channels * width + channels * dim + dim
    return 2 * (2 * steps * memory_dim * dim + spelled * query_dim * dim + spelled * steps * (energy + dim))


def _speller(V: int, context: int, embedding: int, hidden: int, layers: int, input_feeding: bool, **_: Any) -> int:
    """FLOPs per character of the LSTMs, the output layer and the logits."""
    inputs = [embedding, *[hidden] * (layers - 1)]
    if input_feeding:
        inputs[0] += context
    elif layers > 1:
        inputs[1] += context
    cells = sum(lstm(1, dim, hidden) for dim in inputs)
    return cells + 2 * (hidden + context) * embedding + 2 * embedding * V
