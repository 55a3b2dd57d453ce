"""Sizes to measure at: lengths drawn from the statistics of real corpora, so that a benchmark needs no data."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from dataset import Batch, Utterance, collate
from utils.errors import UserError
from utils.sampler import BucketSampler
from utils.vocabulary import EOS, SOS, VOCABULARY

FIXED_UTTERANCES = 64  # batches of a fixed shape are all alike: a few will do
FINENESS = 32  # draws for each quantile


class Statistics(NamedTuple):
    """What is known of a corpus. Frames of 10 ms; tokens count `<sos>` and `<eos>`."""

    utterances: int
    frames: tuple[int, float, int]  # least, mean, most
    concentration: float  # of the beta distribution: higher is narrower
    tokens: tuple[float, int]  # mean, most
    rate_spread: float  # characters a frame lie within 1 ± this of their mean


class Shape(NamedTuple):
    """Sizes of a benchmark. `train`, `decode`: whose lengths are trained and decoded on; `config`: which model."""

    name: str
    train: Statistics
    decode: Statistics
    feature_dim: int
    batch_size: int
    config: str


class Lengths(NamedTuple):
    """Frames and tokens of each utterance, `(N,)` each."""

    frames: np.ndarray
    tokens: np.ndarray


# The competition's data of Fall 2023: means and mosts of train-clean-100 and test-clean are counted; the texts of
# test-clean are taken to be as fast as dev-clean's. The least and the width are chosen: with concentration 13 random
# batches of 32 waste a third of their frames on padding. AN4 is counted: deciles 10, 50, 90 % at 109, 249, 429 frames
# (drawn: 115, 252, 448), correlation of frames and tokens 0.56 (drawn: 0.58).
_TRAIN_CLEAN = Statistics(28_539, (140, 1264.63, 2448), 13.0, (186.65, 400), 0.2)
_TEST_CLEAN = Statistics(2_620, (125, 738.22, 3491), 6.0, (110.56, 600), 0.2)
_AN4 = Statistics(853, (69, 268.0, 639), 3.8, (20.6, 59), 1.0)
SHAPES = {
    "kaggle": Shape("kaggle", _TRAIN_CLEAN, _TEST_CLEAN, 28, 32, "configs/seed.yaml"),
    "an4": Shape("an4", _AN4, _AN4, 13, 16, "configs/an4.yaml"),
}


def parse_shape(text: str) -> Shape:
    """`kaggle`, `an4`, or `B,T,D,U`: every utterance of `T` frames and `U` tokens."""
    if text in SHAPES:
        return SHAPES[text]
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdigit() and int(number) for number in numbers):
        raise UserError(f"--shape: found {text!r}, expected {', '.join(SHAPES)} or B,T,D,U such as 32,1265,28,187")
    B, T, D, U = map(int, numbers)
    if U < 3:
        raise UserError(f"--shape: found {U} tokens, expected 3 or more: <sos>, a character, <eos>")
    same = Statistics(max(FIXED_UTTERANCES, 4 * B), (T, T, T), 1.0, (U, U), 0.0)
    return Shape(text, same, same, D, B, SHAPES["kaggle"].config)


def draw_lengths(statistics: Statistics, utterances: int | None = None, seed: int = 0) -> Lengths:
    """Frames from a beta distribution scaled to least and most; tokens in proportion, at a rate of their own.

    Both are taken at evenly spaced quantiles, in random order: a small draw has the means of a large one.
    """
    N = utterances or statistics.utterances
    (least, mean, most), (mean_tokens, most_tokens) = statistics.frames, statistics.tokens
    if least == most:
        return Lengths(np.full(N, least), np.full(N, most_tokens))
    generator = np.random.default_rng(seed)
    middle, narrow = (mean - least) / (most - least), statistics.concentration
    draws = np.sort(generator.beta(middle * narrow, (1 - middle) * narrow, FINENESS * N))
    frames = np.rint(least + generator.permutation(draws[FINENESS // 2 :: FINENESS]) * (most - least)).astype(int)
    rate = 1 + statistics.rate_spread * (2 * (generator.permutation(N) + 0.5) / N - 1)
    tokens = 2 + np.rint((mean_tokens - 2) * frames / mean * rate).astype(int)
    return Lengths(frames, tokens.clip(3, most_tokens))


def padded_share(lengths: Lengths, batches: Sequence[Sequence[int]]) -> float:
    """Which share of all frames in these batches is padding."""
    padded = sum(len(batch) * int(lengths.frames[batch].max()) for batch in batches)
    return 1 - sum(int(lengths.frames[batch].sum()) for batch in batches) / padded


def make_batch(lengths: Lengths, indices: Sequence[int], feature_dim: int, device: torch.device) -> Batch:
    """Noise and random characters in these utterances' lengths, padded as the loader pads."""
    generator = torch.Generator().manual_seed(indices[0])
    utterances = []
    for index in indices:
        features = torch.randn(int(lengths.frames[index]), feature_dim, generator=generator)
        tokens = torch.randint(EOS + 1, len(VOCABULARY), (int(lengths.tokens[index]),), generator=generator)
        tokens[0], tokens[-1] = SOS, EOS
        utterances.append(Utterance(index, features, tokens))
    return collate(utterances).to(device)


class Epoch:
    """An epoch of drawn utterances: `bucketed` as train.py batches them, or `random`."""

    def __init__(self, shape: Shape, lengths: Lengths, kind: str, device: torch.device):
        self.lengths, self.feature_dim, self.device = lengths, shape.feature_dim, device
        if kind == "bucketed":
            sampler = BucketSampler(lengths.frames.tolist(), shape.batch_size, seed=0)
            batches = [[item.position for item in batch] for batch in sampler]
        else:
            order = torch.randperm(len(lengths.frames), generator=torch.Generator().manual_seed(0))
            batches = [batch.tolist() for batch in order.split(shape.batch_size)]
        self.kind, self.padded_share = kind, padded_share(lengths, batches)
        largest = max(map(len, batches))  # the sampler's are of equal size, give or take one
        self.full = [batch for batch in batches if len(batch) == largest]
        self.batch = lru_cache(maxsize=1)(self._batch)

    def _batch(self, number: int) -> Batch:
        """The batch of a round, the same one for all who ask; -1 is the largest of all, to warm up with."""
        return make_batch(self.lengths, self._indices(number), self.feature_dim, self.device)

    def _indices(self, number: int) -> list[int]:
        if number < 0:
            return max(self.full, key=lambda batch: self.lengths.frames[batch].max())
        return self.full[number % len(self.full)]

    def milliseconds(self, seconds: Sequence[float]) -> list[float]:
        """What rounds of these seconds cost an utterance of mean length: time a true frame, times the mean."""
        frames = self.lengths.frames
        return [
            1000 * value / int(frames[self._indices(number)].sum()) * float(frames.mean())
            for number, value in enumerate(seconds)
        ]
