"""Convolutions and the whole Listener: lengths, padding, where the CTC branch reads."""

import pytest
import torch

from models.listener import Conv, Listener


@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 3), (1, 2)])
def test_conv_lengths_are_those_of_an_unpadded_utterance(length, kernel, stride):
    conv = Conv(4, 8, kernel, stride)
    y, lengths = conv(torch.randn(1, length, 4), torch.tensor([length]))
    assert y.size(1) == lengths.item() == -(-length // stride)


LISTENERS = {
    "conv 4x": {"conv": [{"channels": 16, "kernel": 3, "stride": 2}] * 2, "blstm_layers": 2, "pblstm_layers": 0},
    "pyramid 8x": {"conv": [{"channels": 16, "kernel": 5, "stride": 2}], "blstm_layers": 1, "pblstm_layers": 2},
    "no conv": {"conv": [], "blstm_layers": 0, "pblstm_layers": 1},
}


@pytest.mark.parametrize("name", LISTENERS)
def test_output_is_the_same_whatever_shares_the_batch(name, speech):
    torch.manual_seed(0)
    listener = Listener(12, **LISTENERS[name], hidden=10, dropout=0.5).eval()
    features, lengths = speech
    together = listener(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = listener(features[row : row + 1, :length], lengths[row : row + 1])
        steps, ctc_steps = listener.steps(length)
        assert alone.memory.size(1) == alone.memory_lengths.item() == together.memory_lengths[row] == steps
        assert alone.ctc_memory.size(1) == listener.steps(lengths)[1][row] == ctc_steps
        torch.testing.assert_close(together.memory[row, :steps], alone.memory[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together.ctc_memory[row, :ctc_steps], alone.ctc_memory[0], atol=1e-6, rtol=1e-5)
        assert (together.memory[row, steps:] == 0).all()


def test_ctc_branches_at_4x_and_reduction_is_the_product():
    listener = Listener(12, **LISTENERS["pyramid 8x"], hidden=10, dropout=0.0)
    assert listener.time_reduction == 8
    assert listener.steps(41) == (6, 11)
    assert listener.ctc_layer == 2
    assert Listener(12, **LISTENERS["conv 4x"], hidden=10, dropout=0.0).ctc_layer == 3
