"""The plain LSTMs have the shapes of the Listener's."""

import pytest
import torch

from benchmarks.reference.padded_lstms import PaddedLSTMs
from models.listener import Listener

CONV = [{"channels": 16, "kernel": 5, "stride": 2}, {"channels": 24, "kernel": 3, "stride": 2}]


@pytest.mark.parametrize("conv", [CONV, []])
@pytest.mark.parametrize("frames", [41, 44])
def test_padded_lstms_have_the_shapes_of_the_listener(conv, frames):
    settings = {"conv": conv, "blstm_layers": 1, "pblstm_layers": 2, "hidden": 8, "dropout": 0.0}
    listener, lstms = Listener(12, **settings), PaddedLSTMs(12, **settings)

    def weight_shapes(module: torch.nn.Module) -> list[tuple[int, ...]]:
        weights = module.named_parameters()
        return sorted(tuple(weight.shape) for name, weight in weights if "weight_ih" in name or "weight_hh" in name)

    assert weight_shapes(lstms) == weight_shapes(listener)
    features = torch.randn(3, frames, 12)
    output = lstms(lstms.make_input(features))
    assert output.shape == listener(features, torch.full((3,), frames)).memory.shape
