"""Batches of utterances of similar length."""

import numpy as np
import pytest

from utils.sampler import BucketSampler, Item, wrap_seed


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
    assert len(first) == len(BucketSampler(lengths, 7, seed=0)) == 144


def test_some_utterances_are_concatenated_in_pairs():
    """Each utterance once, whichever place it has; as many batches as without, of rows of similar length."""
    lengths = kaggle_lengths(1003).tolist()
    sampler = BucketSampler(lengths, 8, seed=0, speed=0.1, concatenate=0.3)
    batches = list(sampler)
    assert len(batches) == len(sampler) == -(-1003 // 8)
    items = [item for batch in batches for item in batch]
    followers = [item.follower for item in items if item.follower is not None]
    assert len(followers) == pytest.approx(0.3 * 1003 / 2, abs=1)
    assert sorted([item.position for item in items] + followers) == list(range(1003))
    real = padded = 0
    for batch in batches:
        frames = [
            (lengths[item.position] + (lengths[item.follower] if item.follower else 0)) / item.speed for item in batch
        ]
        real, padded = real + sum(frames), padded + len(frames) * max(frames)
    assert 1 - real / padded < 0.05


@pytest.mark.parametrize("N", [2, 3, 7, 9, 43])
@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (2, 1), (8, 1), (4, 2), (8, 4)])
def test_however_many_are_concatenated_none_is_lost_and_no_share_is_empty(N, batch_size, world_size):
    """Odd numbers of utterances, and batches of so few that pairs would leave some without any."""
    items = []
    for rank in range(min(N, world_size)):
        sampler = BucketSampler(list(range(9, 9 + N)), batch_size, 0, 0.1, rank, min(N, world_size), concatenate=1.0)
        shares = list(sampler)
        assert len(shares) == len(sampler) == -(-N // batch_size)
        assert all(shares)
        items += [item for share in shares for item in share]
    positions = [position for item in items for position in (item.position, item.follower) if position is not None]
    assert sorted(positions) == list(range(N))


def test_a_resumed_epoch_goes_on_at_the_batch_it_had_come_to():
    lengths = kaggle_lengths(200).tolist()
    whole, rest = (BucketSampler(lengths, 8, seed=0, speed=0.1) for _ in range(2))
    whole.epoch = rest.epoch = 3
    rest.first_batch = 10
    assert list(rest) == list(whole)[10:]
    rest.first_batch = len(whole)
    assert list(rest) == []


@pytest.mark.parametrize("N", [1, 33, 101, 790])
def test_batches_differ_in_size_by_one_at_most(N):
    """No batch of a few utterances: its update would count as much as any other's."""
    sizes = [len(batch) for batch in BucketSampler(kaggle_lengths()[:N].tolist(), 8, seed=0)]
    assert len(sizes) == -(-N // 8)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_every_batch_in_training(world_size):
    lengths = kaggle_lengths(101).tolist()
    whole, *shares = (
        BucketSampler(lengths, 8, 3, 0.1, rank, size)
        for rank, size in [(0, 1), *((rank, world_size) for rank in range(world_size))]
    )
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(parts)
        assert sorted(item for part in parts for item in part) == sorted(batch)


def test_seeds_beyond_64_bits_are_wrapped():
    assert [wrap_seed(seed) for seed in (5, 2**64 + 5, -1)] == [5, 5, 2**64 - 1]
    assert len(list(BucketSampler([5, 6, 7, 8], 2, seed=2**63 - 1))) == 2


def test_pools_are_of_a_hundred_batches_and_the_last_one_has_the_rest():
    """A rest of less than half a pool joins the one before, so that no pool is small."""
    pools = {N: BucketSampler([9] * N, 10, seed=0)._pools(N) for N in (7, 1000, 1499, 1501, 2499)}
    assert pools == {7: [7], 1000: [1000], 1499: [1499], 1501: [1000, 501], 2499: [1000, 1499]}


def test_speeds_are_drawn_evenly_from_both_sides_of_one():
    sampler = BucketSampler([100] * 2000, 8, seed=0, speed=0.2)
    speeds = np.array([item.speed for batch in sampler for item in batch])
    assert [speeds.min(), speeds.mean(), speeds.max()] == pytest.approx([0.8, 1.0, 1.2], abs=0.01)


def test_what_is_not_said_is_not_augmented():
    assert Item(3) == (3, 0, 1.0, None)
    assert {item.speed for batch in BucketSampler([5, 6, 7], 2, seed=1) for item in batch} == {1.0}
