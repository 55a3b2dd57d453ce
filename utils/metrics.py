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


def monotonicity(attention: Tensor) -> float:
    """How far an attention map `(U, S)` of one utterance is a diagonal: its correlation.

    Taken as a joint distribution of character `u` and step `s`, the map has a Pearson correlation between the two:
    1 for a straight diagonal, 0 for a map that is flat or stands still, a third for one that runs through three times.
    """
    U, S = attention.shape
    joint = attention.double() / attention.sum()
    u, s = torch.arange(U, dtype=torch.double), torch.arange(S, dtype=torch.double)
    u, s = u - joint.sum(1) @ u, s - joint.sum(0) @ s
    spread = (joint.sum(1) @ u**2 * (joint.sum(0) @ s**2)).sqrt()
    return float(u @ joint @ s / spread) if spread > 1e-9 else 0.0
