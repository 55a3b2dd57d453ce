"""Every contestant is as large as the model that it is compared with, and trains."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

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
from utils.device import PRECISIONS
from utils.vocabulary import KAGGLE

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
    assert count_parameters(model) == pytest.approx(LAS(12, len(KAGGLE), **own).parameter_count, rel=tolerance)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    settings = load_config(overrides=SMALL).training.model_dump(include=STEP_SETTINGS)
    training_step(model, CPU, "float32", **settings)(tiny_batch())
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert np.mean(moved) > 0.9  # all but what nothing has reached yet
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def output_dtypes(layer: type[nn.Module], input_dim: int, run: Callable[[], None]) -> set[torch.dtype]:
    """The dtypes that layers of this type and input size return while `run` runs."""
    found = set()

    def note(module: nn.Module, _: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        sizes = [getattr(module, name, None) for name in ("in_channels", "input_size")]
        if isinstance(module, layer) and input_dim in sizes:
            found.add((output[0] if isinstance(output, tuple) else output).dtype)

    hook = register_module_forward_hook(note)
    try:
        run()
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize("name", BATCHING)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_models_compute_in_the_precision_that_the_table_shows(small_settings, name, precision):
    if name == "speechbrain" and why_missing():
        pytest.skip(why_missing())
    settings = load_config(overrides=SMALL).training.model_dump(include=STEP_SETTINGS)
    model, batch = make_model(name, 12, small_settings), tiny_batch()
    step = training_step(model, CPU, precision, **settings)
    assert output_dtypes(nn.Conv1d, 12, lambda: step(batch)) == {PRECISIONS[precision]}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make_step", "layer", "input_dim"), [(listener_step, nn.Conv1d, 12), (lstms_step, nn.LSTM, 32)]
)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_listener_computes_in_the_precision_that_the_table_shows(
    small_settings, make_step, layer, input_dim, precision
):
    step, batch = make_step(12, small_settings["listener"], CPU, precision), tiny_batch()
    assert output_dtypes(layer, input_dim, lambda: step(batch)) == {PRECISIONS[precision]}
