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


def test_conv_written_out():
    """Layer norm over channels at every step, then GELU, of torch's convolution."""
    torch.manual_seed(0)
    conv, x = Conv(4, 8, kernel=5, stride=2), torch.randn(1, 9, 4)
    frames = torch.nn.functional.pad(x[0], (0, 0, 2, 2)).unfold(0, 5, 2)  # (5 steps, 4, 5 frames)
    sums = torch.einsum("sck,ock->so", frames, conv.conv.weight) + conv.conv.bias
    normed = (sums - sums.mean(1, keepdim=True)) / (sums.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    y, _ = conv(x, torch.tensor([9]))
    assert y.shape == (1, 5, conv.output_dim) == (1, 5, 8)
    torch.testing.assert_close(y[0], 0.5 * normed * (1 + torch.erf(normed / 2**0.5)), atol=1e-6, rtol=1e-5)


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


def test_where_the_first_layer_reduces_too_much_ctc_reads_the_features():
    conv = [{"channels": 16, "kernel": 5, "stride": 5}]
    listener = Listener(12, conv=conv, blstm_layers=1, pblstm_layers=0, hidden=10, dropout=0.0)
    assert (listener.ctc_layer, listener.ctc_dim, listener.output_dim) == (-1, 12, 20)
    assert listener.steps(41) == (9, 41)
    features = torch.randn(1, 41, 12)
    assert torch.equal(listener(features, torch.tensor([41])).ctc_memory, features)


def test_dropout_follows_every_layer_in_training():
    torch.manual_seed(0)
    listener = Listener(12, **LISTENERS["pyramid 8x"], hidden=10, dropout=0.5)
    listened = listener(torch.randn(4, 41, 12), torch.full((4,), 41))
    for found in (listened.memory, listened.ctc_memory):
        assert (found == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
