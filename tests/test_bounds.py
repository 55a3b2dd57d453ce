"""Every numeric key has bounds that the code can honour."""

import math
import re
from typing import get_args

import pytest
import torch

from config import known_keys, load_config
from models.las import LAS
from utils.augment import Augmentation
from utils.errors import UserError
from utils.sampler import BucketSampler

VALUES = ["0", "-1", str(2**63), str(10**30), "1e400", "-1e400", ".nan", ".inf", "true", "[]", '""', "1e-300", "0.5"]
CONV = "model.listener.conv=[{{channels: {}, kernel: {}, stride: {}}}]"


def is_number(annotation) -> bool:
    return any(part in (int, float) for part in (annotation, *get_args(annotation))) or any(
        is_number(part) for part in get_args(annotation) if part is not annotation and not isinstance(part, str)
    )


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


NUMERIC = sorted(key for key, annotation in known_keys().items() if is_number(annotation))


def accept(override: str, words: str):
    """The configuration, checked to be one that can be built, or None where it is refused by name."""
    try:
        config = load_config(overrides=[override])
    except UserError:
        with pytest.raises(UserError, match=re.escape(words)):
            load_config(overrides=[override])
        return None
    for number in numbers(config.model_dump()):
        assert math.isfinite(number)
        assert abs(number) < 2**63
    with torch.device("meta"):
        LAS(28, 31, **config.model_kwargs)
    return config


def test_there_are_numeric_keys():
    assert {"training.seed", "decoding.length_reward", "augment.speed", "model.attention.heads"} <= set(NUMERIC)
    assert len(NUMERIC) > 35


@pytest.mark.parametrize("key", NUMERIC)
def test_extreme_values_of_every_numeric_key(key):
    refused = [accept(f"{key}={value}", key.split(".")[-1]) is None for value in VALUES]
    assert all(refused[2:11])


@pytest.mark.parametrize("value", VALUES)
def test_extreme_values_inside_lists(value):
    for place in range(3):
        parts = ["8", "3", "2"]
        parts[place] = value
        accept(CONV.format(*parts), "conv")
    for stage in (f"from_epoch: {value}, factor: 1, floor: 1", f"from_epoch: 1, factor: {value}, floor: 1"):
        accept(f"training.teacher_forcing.stages=[{{{stage}}}]", "stages")


@pytest.mark.parametrize("seed", [0, 184_467, 20_261_125, 2**63 - 1])
def test_every_seed_that_is_accepted_is_one_that_everything_can_draw_with(seed):
    assert load_config(overrides=[f"training.seed={seed}"]).training.seed == seed
    sampler = BucketSampler([5, 6, 7, 8], 2, seed, 0.1)
    sampler.epoch = 10**6
    assert len(list(sampler)) == 2
    augmentation = Augmentation(seed, False, 0.1, 1, 1, 2, 1, 2, 0.5)
    features = augmentation.perturb(torch.ones(9, 4), 10**6, 10**6, 1.1)
    assert augmentation.mask(features, 10**6, 10**6).isfinite().all()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.train=[a, b, a]", "data.train to name each partition once; found a again"),
        ("test.columns=[id]", "auto, or the names of two columns"),
        ("test.columns=id", "auto, or the names of two columns"),
        ("test.columns=[id, '']", "auto, or the names of two columns"),
    ],
)
def test_settings_that_contradict_themselves(override, words):
    with pytest.raises(UserError, match=words):
        load_config(overrides=[override])
