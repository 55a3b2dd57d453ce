"""Texts to tokens and back."""

import pytest

from utils.vocabulary import CHARACTERS, EOS, PAD, SOS, VOCABULARY, decode, encode, spellable, unspellable


def test_the_competitions_tokens_in_its_order():
    assert ("<pad>", "<sos>", "<eos>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ' ") == VOCABULARY
    assert (PAD, SOS, EOS) == (0, 1, 2)


def test_encode_adds_boundaries_and_decode_takes_them_off():
    assert encode("AB '") == [SOS, 3, 4, 30, 29, EOS]
    assert encode("") == [SOS, EOS]
    assert decode(encode(CHARACTERS)) == CHARACTERS
    with pytest.raises(KeyError):
        encode("é")


def test_decode_cuts_at_the_first_eos():
    assert decode([3, 4, PAD, 30, 29, EOS, 5]) == "AB '"
    assert decode([EOS, 5]) == ""


@pytest.mark.parametrize(
    ("text", "spelled", "left_out"),
    [
        ("It's  a well-known\tcafé.\n", "IT'S A WELL KNOWN CAFE", "."),
        ("“Don’t” – she said…", "DON'T SHE SAID", "“”..."),
        ("a/b_c—d", "A B C D", ""),
        ("straße 42", "STRASSE", "42"),
        ("naïve Ångström", "NAIVE ANGSTROM", ""),
        ("한국어", "", "ᄒ"),
        ("", "", ""),
    ],
)
def test_any_text_in_the_characters_there_are(text, spelled, left_out):
    assert spellable(text) == spelled
    assert set(spellable(text)) <= set(CHARACTERS)
    assert unspellable(text).startswith(left_out)
    assert bool(unspellable(text)) == bool(left_out)
