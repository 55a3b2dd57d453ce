"""Synthetic data to measure on: noise, in lengths drawn from the statistics of real corpora."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from dataset import Batch, Utterance, collate
from utils.errors import UserError
from utils.sampler import BucketSampler
from utils.vocabulary import EOS, KAGGLE, SOS

FIXED_UTTERANCES = 64  # utterances of a shape without variance, whose batches are all alike: a few will do
DRAWS_PER_QUANTILE = 32


class LengthStatistics(NamedTuple):
    """How long the utterances of a corpus are. Frames are 10 ms each; tokens include `<sos>` and `<eos>`."""

    utterances: int
    frames: tuple[int, float, int]  # minimum, mean, maximum
    concentration: float  # of the beta distribution of frames, alpha + beta: higher is narrower
    tokens: tuple[float, int]  # mean, maximum
    rate_spread: float  # speaking rates, in characters per frame, lie within 1 ± this of their mean


class Shape(NamedTuple):
    """What a benchmark is measured on."""

    name: str
    train: LengthStatistics  # of the utterances to train on
    decode: LengthStatistics  # of the utterances to decode
    feature_dim: int
    batch_size: int
    config: str  # configuration file of the model, relative to the repository


class Lengths(NamedTuple):
    """Lengths of `N` utterances."""

    frames: np.ndarray  # (N,)
    tokens: np.ndarray  # (N,), <sos> and <eos> included


# The competition's data of Fall 2023: means and maxima of train-clean-100 and test-clean are counted; the speaking rate
# of test-clean, which has no texts, is assumed to be dev-clean's. Minima and concentrations are chosen: with 13, random
# batches of 32 waste a third of their frames on padding. AN4 is counted: deciles 10, 50, 90 % at 109, 249, 429 frames
# (drawn: 115, 252, 448), correlation of frames and tokens 0.56 (drawn: 0.58).
_TRAIN_CLEAN = LengthStatistics(28_539, (140, 1264.63, 2448), 13.0, (186.65, 400), 0.2)
_TEST_CLEAN = LengthStatistics(2_620, (125, 738.22, 3491), 6.0, (110.56, 600), 0.2)
_AN4 = LengthStatistics(853, (69, 268.0, 639), 3.8, (20.6, 59), 1.0)
SHAPES = {
    "kaggle": Shape("kaggle", _TRAIN_CLEAN, _TEST_CLEAN, 28, 32, "configs/seed.yaml"),
    "an4": Shape("an4", _AN4, _AN4, 13, 16, "configs/an4.yaml"),
}


def parse_shape(text: str) -> Shape:
    """The shape that `--shape` names.

    Args:
        text: a key of SHAPES, or `B,T,D,U`: batches of `B` utterances of `T` frames, `D` features and `U` tokens each.

    Raises:
        UserError: it is neither.
    """
    if text in SHAPES:
        return SHAPES[text]
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdigit() and int(number) for number in numbers):
        raise UserError(f"--shape: found {text!r}, expected {', '.join(SHAPES)} or B,T,D,U such as 32,1265,28,187")
    B, T, D, U = map(int, numbers)
    if U < 3:
        raise UserError(f"--shape: found {U} tokens, expected 3 or more: <sos>, a character, <eos>")
    same = LengthStatistics(max(FIXED_UTTERANCES, 4 * B), (T, T, T), 1.0, (U, U), 0.0)
    return Shape(text, same, same, D, B, SHAPES["kaggle"].config)


def draw_lengths(statistics: LengthStatistics, utterances: int | None = None, seed: int = 0) -> Lengths:
    """Draws lengths: frames from a scaled beta distribution, tokens in proportion to them at a random speaking rate.

    Both are taken at evenly spaced quantiles and shuffled, so that a small draw has the same means as a large one.

    Args:
        statistics: of the corpus.
        utterances: `N`; default: as many as the corpus has.
        seed: of the draw.
    """
    N = utterances or statistics.utterances
    (least, mean, most), (mean_tokens, most_tokens) = statistics.frames, statistics.tokens
    if least == most:
        return Lengths(np.full(N, least), np.full(N, most_tokens))
    generator = np.random.default_rng(seed)
    relative_mean, concentration = (mean - least) / (most - least), statistics.concentration
    alpha, beta = relative_mean * concentration, (1 - relative_mean) * concentration
    draws = np.sort(generator.beta(alpha, beta, DRAWS_PER_QUANTILE * N))
    quantiles = generator.permutation(draws[DRAWS_PER_QUANTILE // 2 :: DRAWS_PER_QUANTILE])
    frames = np.rint(least + quantiles * (most - least)).astype(int)
    rate = 1 + statistics.rate_spread * (2 * (generator.permutation(N) + 0.5) / N - 1)
    tokens = 2 + np.rint((mean_tokens - 2) * frames / mean * rate).astype(int)
    return Lengths(frames, tokens.clip(3, most_tokens))


def padded_share(lengths: Lengths, batches: Sequence[Sequence[int]]) -> float:
    """The share of all frames in these batches that is padding; a batch holds positions in `lengths`."""
    total = sum(len(batch) * int(lengths.frames[batch].max()) for batch in batches)
    return 1 - sum(int(lengths.frames[batch].sum()) for batch in batches) / total


def random_batch(lengths: Lengths, positions: Sequence[int], feature_dim: int, device: torch.device) -> Batch:
    """Noise and random characters of the lengths at `positions`, padded as the loader pads."""
    generator = torch.Generator().manual_seed(positions[0])
    utterances = []
    for position in positions:
        features = torch.randn(int(lengths.frames[position]), feature_dim, generator=generator)
        tokens = torch.randint(EOS + 1, len(KAGGLE), (int(lengths.tokens[position]),), generator=generator)
        tokens[0], tokens[-1] = SOS, EOS
        utterances.append(Utterance(position, features, tokens))
    return collate(utterances).to(device)


class Epoch:
    """An epoch of synthetic utterances, cut into batches.

    Args:
        shape: gives feature dimension and batch size.
        lengths: of the utterances.
        batching: `bucketed`, as train.py does it, or `random`.
        device: of the batches.

    Attributes:
        padded_share: of the epoch's frames, see the function of that name.
    """

    def __init__(self, shape: Shape, lengths: Lengths, batching: str, device: torch.device):
        self.lengths, self.feature_dim, self.device = lengths, shape.feature_dim, device
        if batching == "bucketed":
            sampler = BucketSampler(lengths.frames.tolist(), shape.batch_size, seed=0)
            batches = [[item.position for item in batch] for batch in sampler]
        else:
            order = torch.randperm(len(lengths.frames), generator=torch.Generator().manual_seed(0))
            batches = [batch.tolist() for batch in order.split(shape.batch_size)]
        self.batching, self.padded_share = batching, padded_share(lengths, batches)
        largest = max(map(len, batches))  # batches of the sampler differ by one utterance at most
        self._full_batches = [batch for batch in batches if len(batch) == largest]
        self._cached_batch = lru_cache(maxsize=1)(self._make_batch)  # all contestants of a round share a batch

    def batch(self, number: int) -> Batch:
        """The batch of round `number`, the same for every contestant; -1 is the longest one, to warm up with."""
        return self._cached_batch(number)

    def _make_batch(self, number: int) -> Batch:
        return random_batch(self.lengths, self._positions(number), self.feature_dim, self.device)

    def _positions(self, number: int) -> list[int]:
        if number < 0:
            return max(self._full_batches, key=lambda batch: self.lengths.frames[batch].max())
        return self._full_batches[number % len(self._full_batches)]

    def ms_per_utterance(self, seconds: Sequence[float]) -> list[float]:
        """Milliseconds per utterance of mean length: time per frame, padding not counted, times the mean of frames.

        Args:
            seconds: that each round took for its batch.
        """
        frames = self.lengths.frames
        return [
            1000 * value / int(frames[self._positions(number)].sum()) * float(frames.mean())
            for number, value in enumerate(seconds)
        ]
