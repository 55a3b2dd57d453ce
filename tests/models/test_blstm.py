"""Recurrent layers against packed sequences and the paper's equation; dropout."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.blstm import BLSTM, Dropout, PyramidBLSTM, length_mask, reverse_within_lengths

LENGTHS = torch.tensor([13, 8, 1])


def test_length_mask_is_true_inside_each_length():
    assert length_mask(torch.tensor([2, 0, 3]), 3).tolist() == [[True, True, False], [False] * 3, [True] * 3]


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
    assert ours.shape == (3, 13, layer.output_dim) == (3, 13, 12)
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
    assert y.shape == (1, 7, layer.output_dim) == (1, 7, 12)
    pairs = torch.stack([torch.cat([x[0, 2 * i], x[0, 2 * i + 1] if i < 6 else torch.zeros(4)]) for i in range(7)])
    expected, _ = layer.blstm(pairs.unsqueeze(0), torch.tensor([7]))
    torch.testing.assert_close(y, expected)


def test_dropout_draws_a_mask_for_every_element():
    torch.manual_seed(0)
    dropout = Dropout(0.4)
    x = torch.ones(200, 7, 11, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert torch.equal(x.grad, y)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.6, rel=0.01)]
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    dropped = (y == 0).double()
    for dim in range(3):  # no element follows its neighbour
        both = (dropped * dropped.roll(1, dim)).mean().item()
        assert both == pytest.approx(0.16, abs=0.02)
    assert dropout(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(dropout.eval()(x), x)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.999).level == 255
