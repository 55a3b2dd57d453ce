"""Edit distances between texts, repetition within a text, and measures of attention maps."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import Levenshtein
import torch
from torch import Tensor

COVERED = 0.25  # attention near a step, in characters, from which on it counts as read
NGRAM = 4  # characters in a row that count as repeated when they occur again


def tidy(text: str) -> str:
    """`text` as it is scored and submitted: without spaces at its ends, and with single ones inside."""
    return " ".join(text.split())


class Score(NamedTuple):
    """Scores of a set of texts."""

    distance: float  # mean Levenshtein distance per utterance, in characters: the competition's metric
    cer: float  # character error rate, a fraction
    wer: float  # word error rate, a fraction


class Comparison(NamedTuple):
    """A reference and what was recognised, both tidy, and their Levenshtein distance in characters."""

    reference: str
    hypothesis: str
    distance: int


def compare(references: Sequence[str], hypotheses: Sequence[str]) -> list[Comparison]:
    """Each hypothesis beside its reference."""
    pairs = [(tidy(reference), tidy(hypothesis)) for reference, hypothesis in zip(references, hypotheses, strict=True)]
    return [Comparison(*pair, Levenshtein.distance(*pair)) for pair in pairs]


def score(references: Sequence[str], hypotheses: Sequence[str]) -> Score:
    """Scores hypotheses against their references, tidy; single spaces count, words are what stands between them."""
    compared = compare(references, hypotheses)
    characters = sum(one.distance for one in compared)
    words = [(one.reference.split(), one.hypothesis.split()) for one in compared]
    return Score(
        characters / len(compared),
        characters / max(1, sum(len(one.reference) for one in compared)),
        sum(Levenshtein.distance(*pair) for pair in words) / max(1, sum(len(reference) for reference, _ in words)),
    )


def spacing_distance(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Errors of word spacing: how much smaller the mean distance is if both texts are written without spaces."""
    compared = compare(references, hypotheses)
    joined = sum(
        Levenshtein.distance(one.reference.replace(" ", ""), one.hypothesis.replace(" ", "")) for one in compared
    )
    return (sum(one.distance for one in compared) - joined) / len(compared)


def best_epoch(history: Sequence[dict[str, Any]], ctc_epochs: int) -> dict[str, Any]:
    """The row of the epoch with the least dev distance, the first of equals.

    Any epoch that trained the Speller is better than one that did not.

    Args:
        history: metrics of each epoch, with `epoch` and `dev_distance`.
        ctc_epochs: how many of the first epochs trained the Listener alone.
    """
    return min(history, key=lambda row: (row["epoch"] <= ctc_epochs, row["dev_distance"]))


def monotonicity(attention: Tensor) -> float:
    """How close an attention map `(U, S)` is to a diagonal: the correlation of character and step.

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
    """How much of the speech was read: the share of the `S` steps of a map `(U, S)` that attention came near.

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
    """How concentrated each character's attention is in a map `(U, S)`: 1 - entropy / log S, mean over characters.

    1 where all weight is on a single step, 0 where it is spread evenly over the utterance.
    """
    S = attention.size(1)
    if S == 1:
        return 1.0
    entropy = torch.special.entr(attention / attention.sum(1, keepdim=True)).sum(1)
    return max(0.0, float(1 - entropy.mean() / math.log(S)))


def repetition(text: str) -> float:
    """Share of the character 4-grams of `text` that occurred in it before: high if a hypothesis loops."""
    runs = [text[start : start + NGRAM] for start in range(len(text) - NGRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
