"""Batches of utterances of similar length."""

import numpy as np
import pytest

from utils.sampler import BucketSampler


def kaggle_lengths(N: int = 28_539) -> np.ndarray:
    """Lengths with the mean (1,265) and maximum (2,448) of train-clean-100: most between 12 and 16 seconds."""
    generator = np.random.default_rng(0)
    long = np.clip(generator.normal(1450, 110, N), 200, 2448)
    lengths = np.where(generator.random(N) < 0.75, long, generator.uniform(140, 1300, N)).round()
    assert abs(lengths.mean() - 1265) < 20
    return lengths


@pytest.mark.parametrize("speed", [0.0, 0.1])
def test_padding_is_below_5_percent(speed):
    lengths = kaggle_lengths()
    sampler = BucketSampler(lengths.tolist(), 32, seed=0, speed=speed)
    sampler.epoch = 3
    real = padded = 0
    for batch in sampler:
        frames = [lengths[item.position] / item.speed for item in batch]
        real, padded = real + sum(frames), padded + len(frames) * max(frames)
    assert 1 - real / padded < 0.05


def test_sampler_drops_nothing_and_depends_on_seed_and_epoch_alone():
    lengths = kaggle_lengths(1003).tolist()

    def batches(seed, epoch):
        sampler = BucketSampler(lengths, 7, seed, speed=0.1)
        sampler.POOL = 20
        sampler.epoch = epoch
        result = list(sampler)
        assert len(result) == len(sampler)
        return result

    first = batches(0, 1)
    assert sorted(item.position for batch in first for item in batch) == list(range(1003))
    assert all(0.9 <= item.speed <= 1.1 for batch in first for item in batch)
    assert first == batches(0, 1)
    assert first != batches(0, 2)
    assert first != batches(1, 1)
    assert len(list(BucketSampler(lengths, 7))) == len(BucketSampler(lengths, 7)) == 144
