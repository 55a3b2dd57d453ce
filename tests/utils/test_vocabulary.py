"""Texts to tokens and back."""

from utils.vocabulary import EOS, PAD, decode


def test_decode_cuts_at_the_first_eos():
    assert decode([3, 4, PAD, 30, 29, EOS, 5]) == "AB '"
    assert decode([EOS, 5]) == ""
