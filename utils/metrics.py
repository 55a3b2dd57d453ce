"""Distances between texts, and how far an attention map is a diagonal."""

from collections.abc import Sequence
from typing import NamedTuple

import Levenshtein
import torch
from torch import Tensor


class Score(NamedTuple):
    """distance: mean characters of edit distance an utterance, the competition's metric. cer, wer: fractions."""

    distance: float
    cer: float
    wer: float


def score(references: Sequence[str], hypotheses: Sequence[str]) -> Score:
    """Spaces count as characters; words are what stands between spaces."""
    pairs = list(zip(references, hypotheses, strict=True))
    characters = sum(Levenshtein.distance(*pair) for pair in pairs)
    words = sum(Levenshtein.distance(reference.split(), hypothesis.split()) for reference, hypothesis in pairs)
    return Score(
        characters / len(pairs),
        characters / max(1, sum(map(len, references))),
        words / max(1, sum(len(reference.split()) for reference in references)),
    )


def monotonicity(attention: Tensor, steps: int) -> float:
    """How far an attention map `(U, S)` moves forward through the utterance's `steps`.

    The attention's centre `c_u` (mean position, as a share of the utterance) makes a way of length
    `sum |c_{u+1} - c_u|`, of which `c_U - c_1` is progress. Returned is progress over way, the way taken as at least
    half the utterance: 1 for a diagonal, near 0 for a flat map or one that jumps to and fro.
    """
    if len(attention) < 2:
        return 1.0
    centre = attention @ torch.arange(attention.size(1), device=attention.device, dtype=attention.dtype) / steps
    moves = centre.diff()
    return float(moves.sum() / moves.abs().sum().clamp(min=0.5))
