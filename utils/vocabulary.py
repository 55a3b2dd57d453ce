"""The competition's 31 tokens, in its index order."""

import string
from collections.abc import Iterable

PAD, SOS, EOS = 0, 1, 2
CTC_BLANK = PAD  # never a target character, so its index is free to mean "blank" in the CTC branch
CHARACTERS = string.ascii_uppercase + "' "
VOCABULARY = ("<pad>", "<sos>", "<eos>", *CHARACTERS)
_INDEX = {token: index for index, token in enumerate(VOCABULARY)}


def encode(text: str) -> list[int]:
    """`<sos>`, the characters of `text`, `<eos>`, as token indices. Raises KeyError outside the vocabulary."""
    return [SOS, *(_INDEX[character] for character in text), EOS]


def decode(tokens: Iterable[int]) -> str:
    """Text of a token sequence: cut at the first `<eos>`, other special tokens left out."""
    text = []
    for token in tokens:
        if token == EOS:
            break
        if token > EOS:
            text.append(VOCABULARY[token])
    return "".join(text)


def spellable(text: str) -> str:
    """Any text in the vocabulary's characters: upper case, what is unknown left out, words a space apart."""
    return " ".join("".join(character for character in text.upper() if character in CHARACTERS).split())
