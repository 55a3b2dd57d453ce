"""FLOPs are those that torch counts, and those that a person counts."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import count_flops, lstm
from benchmarks.training_steps import with_input_feeding
from models.las import LAS
from utils.vocabulary import KAGGLE, SOS

V = len(KAGGLE)


@pytest.mark.parametrize(("kind", "heads"), [("location", 1), ("dot", 2)])
def test_flops_are_those_that_torch_counts(small_settings, kind, heads):
    conv = [{"channels": 16, "kernel": 5, "stride": 2}, {"channels": 24, "kernel": 3, "stride": 2}]
    settings = {
        **small_settings,
        "listener": {"conv": conv, "blstm_layers": 0, "pblstm_layers": 0, "hidden": 32, "dropout": 0.0},
        "attention": {"kind": kind, "heads": heads, "dim": 32},
        "speller": {**small_settings["speller"], "layers": 2},
    }
    B, T, U = 3, 41, 6
    tokens = torch.full((B, U), SOS)

    def product(a: torch.Size, b: torch.Size, **_) -> int:  # torch does not count those with a vector
        return 2 * a[0] * a[1]

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mv: product})
    with counter:
        LAS(12, V, **settings)(torch.randn(B, T, 12), torch.full((B,), T), tokens)
    counted = count_flops(np.full(B, T), np.full(B, U + 1), 12, V, **settings)
    assert counted.total.sum() == counter.get_total_flops()


def test_flops_of_lstms_by_hand(small_settings):
    settings = {**small_settings, "listener": {**small_settings["listener"], "blstm_layers": 1, "pblstm_layers": 1}}
    found = count_flops(41, 7, 12, V, **settings)
    steps = 21  # of 41 frames after a stride of 2, and 11 after a pyramid layer
    blstm = 2 * 2 * steps * 4 * 32 * (32 + 32)
    pblstm = 2 * 2 * 11 * 4 * 32 * (2 * 64 + 32)
    assert found.listener == 2 * steps * 3 * 12 * 32 + blstm + pblstm
    assert found.ctc == 2 * 11 * 64 * V
    assert lstm(5, 3, 2) == 2 * 5 * 8 * (3 + 2)
    parallel = count_flops(41, 7, 12, V, **with_input_feeding(settings, False))
    assert parallel.speller == 6 * (lstm(1, 32, 64) + 2 * (64 + 32) * 32 + 2 * 32 * V)
