"""Every contestant is as large as the model that it is compared with, and trains."""

import numpy as np
import pytest
import torch

from benchmarks.reference.speechbrain_las import count_parameters, why_missing
from benchmarks.shapes import Epoch, draw_lengths, parse_shape
from benchmarks.training_steps import (
    BATCHING,
    STEP_SETTINGS,
    listener_step,
    lstms_step,
    make_model,
    training_step,
    with_input_feeding,
)
from config import load_config
from dataset import Batch
from models.las import LAS
from tests.benchmarks.conftest import TINY
from tests.conftest import SMALL
from utils.vocabulary import VOCABULARY

CPU = torch.device("cpu")


def tiny_batch() -> Batch:
    shape = parse_shape(TINY)
    return Epoch(shape, draw_lengths(shape.train), "random", CPU).batch(0)


@pytest.mark.parametrize("name", BATCHING)
def test_every_model_is_as_large_and_makes_a_step(small_settings, name):
    if name == "speechbrain" and why_missing():
        pytest.skip(why_missing())
    model = make_model(name, 12, small_settings)
    own = with_input_feeding(small_settings, False) if name == "other" else small_settings
    tolerance = 0.05 if name == "speechbrain" else 0.0
    assert count_parameters(model) == pytest.approx(LAS(12, len(VOCABULARY), **own).parameter_count, rel=tolerance)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    settings = load_config(overrides=SMALL).training.model_dump(include=STEP_SETTINGS)
    training_step(model, CPU, "float32", **settings)(tiny_batch())
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert np.mean(moved) > 0.9  # all but what nothing has reached yet
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("make_step", [listener_step, lstms_step])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_steps_of_the_listener_run_in_both_precisions(small_settings, make_step, precision):
    make_step(12, small_settings["listener"], CPU, precision)(tiny_batch())
