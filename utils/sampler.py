"""Batches of utterances of similar length."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.data import Sampler

NONE = -1  # position of no utterance


def wrap_seed(seed: int) -> int:
    """`seed` in the 64 bits that torch's generators take."""
    return seed % 2**64


class Item(NamedTuple):
    """What a sampler asks of the dataset: an utterance, and how it is augmented this time."""

    position: int  # in the corpus
    epoch: int = 0
    speed: float = 1.0  # factor of the speed perturbation
    follower: int | None = None  # position of the utterance that is concatenated to it


class BucketSampler(Sampler[list[Item]]):
    """Batches of utterances of similar length, in an order that is a function of seed and epoch alone.

    Each epoch, every utterance gets a speed within `1 ± speed` (speed perturbation); utterances are shuffled, some are
    concatenated in pairs, and all sorted by the length they will then have within pools of `POOL` batches, cut into
    batches, and the batches shuffled. No utterance is dropped. Batches of a pool differ in size by one at most, so none
    is much smaller than the rest. Every rank gets its share of every batch.

    Args:
        lengths: frames of each utterance.
        batch_size: utterances per batch, over all ranks; at least twice `world_size`, else shares would be empty.
        seed: of shuffling and speeds.
        speed: largest deviation of the speed from 1.
        concatenate: share of the utterances that are concatenated in pairs, each pair at the speed of its first. An
            epoch has as many batches as without, of fewer rows, but of one at least for each rank.
        rank: of this process.
        world_size: number of processes.

    Attributes:
        epoch: to be set before iterating, from 1.
        first_batch: position in the epoch to begin at.
    """

    POOL = 100

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        speed: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        concatenate: float = 0.0,
    ):
        self.lengths = torch.tensor(lengths, dtype=torch.float)
        self.batch_size, self.seed, self.speed, self.epoch = batch_size, seed, speed, 0
        self.rank, self.world_size, self.first_batch = rank, world_size, 0
        self.concatenate = concatenate

    def __len__(self) -> int:
        return sum(-(-pool // self.batch_size) for pool in self._pools(len(self.lengths)))

    def _pools(self, N: int) -> list[int]:
        """Sizes of the pools of `N` utterances: whole batches in all, but for the last one."""
        size = self.POOL * self.batch_size
        count = max(1, round(N / size))
        return [size] * (count - 1) + [N - size * (count - 1)]

    def __iter__(self) -> Iterator[list[Item]]:
        N = len(self.lengths)
        generator = torch.Generator().manual_seed(wrap_seed(self.seed * 1_000_003 + self.epoch))
        speeds = 1 + self.speed * (2 * torch.rand(N, generator=generator) - 1)
        lengths = self.lengths / speeds
        pools = torch.randperm(N, generator=generator).split(self._pools(N))
        batches: list[torch.Tensor] = []
        for pool in pools:
            count = -(-len(pool) // self.batch_size)
            most = min(len(pool) // 2, len(pool) - count * self.world_size)  # no rank's share of a batch is empty
            pairs = max(0, min(round(self.concatenate * len(pool) / 2), most))
            first, follower = pool[pairs:], F.pad(pool[:pairs], (0, len(pool) - 2 * pairs), value=NONE)
            total = lengths[first] + torch.where(follower == NONE, 0, self.lengths[follower] / speeds[first])
            rows = torch.stack([first, follower], dim=1)[total.argsort(stable=True)]
            batches += rows.tensor_split(count)
        for position in torch.randperm(len(batches), generator=generator).tolist()[self.first_batch :]:
            share = batches[position][self.rank :: self.world_size].tolist()
            yield [
                Item(first, self.epoch, float(speeds[first]), None if follower == NONE else follower)
                for first, follower in share
            ]
