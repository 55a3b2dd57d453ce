import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.blstm import BLSTM, LockedDropout, PyramidBLSTM, reverse_within_lengths
from models.listener import Conv, Listener

LENGTHS = torch.tensor([13, 8, 1])


def test_reverse_within_lengths_and_its_gradient():
    torch.manual_seed(0)
    x = torch.randn(3, 13, 4, dtype=torch.float64, requires_grad=True)
    reversed_ = reverse_within_lengths(x, LENGTHS)
    for row, length in enumerate(LENGTHS):
        assert torch.equal(reversed_[row, :length], x[row, :length].flip(0))
        assert torch.equal(reversed_[row, length:], x[row, length:])
    assert torch.equal(reverse_within_lengths(reversed_, LENGTHS), x)
    assert torch.autograd.gradcheck(lambda x: reverse_within_lengths(x, LENGTHS), x)


def test_blstm_equals_packed_sequence_in_value_and_gradient():
    torch.manual_seed(0)
    layer = BLSTM(5, 6)
    packed = nn.LSTM(5, 6, batch_first=True, bidirectional=True)
    for suffix, lstm in (("", layer.forward_lstm), ("_reverse", layer.backward_lstm)):
        for name, parameter in lstm.named_parameters():
            getattr(packed, name + suffix).data.copy_(parameter)
    x = torch.randn(3, 13, 5)
    weights = torch.randn(3, 13, 12)

    ours, _ = layer(x, LENGTHS)
    (ours * weights).sum().backward()
    sequence, _ = pad_packed_sequence(packed(pack_padded_sequence(x, LENGTHS, batch_first=True))[0], batch_first=True)
    inside = (torch.arange(13) < LENGTHS[:, None]).unsqueeze(2)
    theirs = layer.norm(sequence) * inside
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)

    gradient = layer.backward_lstm.weight_ih_l0.grad.clone()
    layer.zero_grad()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(gradient, packed.weight_ih_l0_reverse.grad, atol=1e-5, rtol=1e-4)


def test_pyramid_pairs_frames():
    """Equation 5 of the paper: step i reads frames 2i and 2i + 1; an odd last frame is paired with zeros."""
    torch.manual_seed(0)
    layer = PyramidBLSTM(4, 6)
    x = torch.randn(1, 13, 4)
    y, lengths = layer(x, torch.tensor([13]))
    assert lengths.tolist() == [7]
    pairs = torch.stack([torch.cat([x[0, 2 * i], x[0, 2 * i + 1] if i < 6 else torch.zeros(4)]) for i in range(7)])
    expected, _ = layer.blstm(pairs.unsqueeze(0), torch.tensor([7]))
    torch.testing.assert_close(y, expected)


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
        assert alone.ctc_memory.size(1) == together.ctc_lengths[row] == ctc_steps
        torch.testing.assert_close(together.memory[row, :steps], alone.memory[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together.ctc_memory[row, :ctc_steps], alone.ctc_memory[0], atol=1e-6, rtol=1e-5)
        assert (together.memory[row, steps:] == 0).all()


def test_ctc_branches_at_4x_and_reduction_is_the_product():
    listener = Listener(12, **LISTENERS["pyramid 8x"], hidden=10, dropout=0.0)
    assert listener.time_reduction == 8
    assert listener.steps(41) == (6, 11)
    assert listener.ctc_layer == 2
    assert Listener(12, **LISTENERS["conv 4x"], hidden=10, dropout=0.0).ctc_layer == 3


def test_locked_dropout_keeps_one_mask_over_time():
    torch.manual_seed(0)
    dropout = LockedDropout(0.4)
    x = torch.ones(200, 7, 10)
    y = dropout(x)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert not torch.equal(y[0], y[1])
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(dropout.eval()(x), x)
