"""Which characters of a text are said and would be lost in the competition's vocabulary."""

import string
import unicodedata

SAID = "&%@#§‰"  # punctuation to Unicode, and words to whoever reads it aloud


def cannot_hold(text: str) -> str:
    """The characters of `text` that the vocabulary cannot hold, each once, in order: a text with any is not written.

    Letters in upper case and in full width are the same letters; é, ß and ı are not E, SS and I, and no digit, symbol
    or sign of another script has a place. Punctuation is not said: it may be left out.
    """
    lost = (character for character in unicodedata.normalize("NFC", text) if _is_lost(character))
    return "".join(dict.fromkeys(lost))


def _is_lost(character: str) -> bool:
    kind, plain = unicodedata.category(character), unicodedata.normalize("NFKD", character)
    if kind[0] == "L":  # such as the ligature of f and i, but no small a above the line
        raised = unicodedata.decomposition(character).startswith(("<super>", "<sub>"))
        return raised or not all(letter in string.ascii_letters for letter in plain)
    return plain in SAID or kind[0] in "MN" or kind in ("Sc", "Sm", "So", "Co", "Cn", "Cs")
