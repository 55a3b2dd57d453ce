"""Which characters would be lost: none that is said goes unnoticed."""

import string
import unicodedata

import pytest

from corpora.spelling import cannot_hold
from utils.vocabulary import KAGGLE, spellable


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("Hello, world! (it's “fine” – isn’t it?)", ""),
        ("ＨＥＬＬＯ ﬁne", ""),
        ("he paid $5.50", "$50"),
        ("Straße", "ß"),
        ("cafe\u0301 naïve", "éï"),
        ("HELLO 세계", "세계"),
        ("ılık", "ı"),
        ("AT&T 100%", "&10%"),
        ("x² ½ Ⅷ ª", "²½Ⅷª"),
        ("कि", "कि"),
        ("lost \ufffd here", "\ufffd"),
        ("a\u00adb\u200d", ""),
    ],
)
def test_what_is_lost_is_named_once_in_order(text, lost):
    assert cannot_hold(text) == lost


def test_what_is_held_is_written_letter_by_letter():
    """A character that is not refused is written as itself, in upper case, or it is no letter, digit or symbol."""
    for number in (*range(0x3100), *range(0xAC00, 0xAD00), *range(0xF900, 0x10000)):
        character = chr(number)
        if cannot_hold(character):
            continue
        own = unicodedata.normalize("NFKC", character).upper()
        assert spellable(character) == "".join(one for one in own if one in KAGGLE.characters).strip() or own == "’"
        assert not any(one.isalnum() for one in own if one not in string.ascii_uppercase), character
