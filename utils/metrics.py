"""Distances between texts, texts that repeat themselves, and what an attention map looks like, in numbers."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import Levenshtein
import torch
from torch import Tensor

COVERED = 0.25  # attention near a step, in characters, from which on it counts as read
NGRAM = 4  # characters in a row whose return makes a repetition


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


def best_epoch(history: Sequence[dict[str, Any]], ctc_epochs: int) -> dict[str, Any]:
    """Of the epochs' dev metrics those of the least distance, the first of equals.

    Any epoch that trained the Speller is better than one that did not: the first `ctc_epochs`.
    """
    return min(history, key=lambda row: (row["epoch"] <= ctc_epochs, row["dev_distance"]))


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


def coverage(attention: Tensor) -> float:
    """How much of the speech was read: the share of the S steps of a map `(U, S)` that attention came near.

    A step was read where it and its neighbours, as far as a character lasts on average (S / U steps to either side),
    got at least a quarter of a character's attention together. So 1 for any diagonal, however sharp, and for a flat
    map; about 3 / U for one that stands still; a half where half of the utterance was skipped. Long pauses count as
    not read.
    """
    U, S = attention.shape
    reach = math.ceil(S / U)
    sums = torch.nn.functional.pad(attention.double().sum(0).cumsum(0), (1, 0))
    s = torch.arange(S)
    near = sums[(s + reach + 1).clamp(max=S)] - sums[(s - reach).clamp(min=0)]
    return float((near >= COVERED).double().mean())


def sharpness(attention: Tensor) -> float:
    """How far each character of a map `(U, S)` looks at one place: 1 - entropy / log S, mean over characters.

    1 where all weight is on a single step, 0 where it is spread evenly over the utterance.
    """
    S = attention.size(1)
    if S == 1:
        return 1.0
    entropy = torch.special.entr(attention / attention.sum(1, keepdim=True)).sum(1)
    return max(0.0, float(1 - entropy.mean() / math.log(S)))


def repetition(text: str) -> float:
    """Share of the runs of 4 characters in `text` that stood in it before: high where a hypothesis loops."""
    runs = [text[start : start + NGRAM] for start in range(len(text) - NGRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
