"""The competition's 31 tokens, in its index order."""

import string
import unicodedata
from collections.abc import Iterable

PAD, SOS, EOS = 0, 1, 2
CTC_BLANK = PAD  # never a target character, so its index is free to mean "blank" in the CTC branch
CHARACTERS = string.ascii_uppercase + "' "
VOCABULARY = ("<pad>", "<sos>", "<eos>", *CHARACTERS)
_INDEX = {token: index for index, token in enumerate(VOCABULARY)}


def encode(text: str) -> list[int]:
    """Token indices of `<sos>`, the characters of `text`, `<eos>`.

    Raises:
        KeyError: a character is not in the vocabulary.
    """
    return [SOS, *(_INDEX[character] for character in text), EOS]


def decode(tokens: Iterable[int]) -> str:
    """Text of a token sequence up to the first `<eos>`; other special tokens are left out."""
    text = []
    for token in tokens:
        if token == EOS:
            break
        if token > EOS:
            text.append(VOCABULARY[token])
    return "".join(text)


_READ_AS = str.maketrans({"’": "'", **dict.fromkeys("-‐‑–—/_", " ")})  # WELL-KNOWN are two words


def _plain(text: str) -> str:
    """Upper case, without accents, dashes as spaces."""
    letters = unicodedata.normalize("NFKD", text.translate(_READ_AS)).upper()
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def spellable(text: str) -> str:
    """`text` in the vocabulary's characters: upper case, unknown ones left out, single spaces between words."""
    words = "".join(letter if letter in CHARACTERS else " " * letter.isspace() for letter in _plain(text))
    return " ".join(words.split())


def unspellable(text: str) -> str:
    """The characters of `text` that `spellable` leaves out."""
    return "".join(letter for letter in _plain(text) if letter not in CHARACTERS and not letter.isspace())
