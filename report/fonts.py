"""Fonts for texts of any language: matplotlib's own has Latin, Greek and Cyrillic letters, and boxes for the rest."""

import logging
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

FAMILIES = ("DejaVu Sans Mono", "DejaVu Sans")  # matplotlib brings them along
BOXES = "Last Resort"  # a font that has a box for everything
NAMED = "on Debian, Ubuntu and Colab fonts-nanum for Korean, fonts-noto-cjk, fonts-noto-core for others"

logger = logging.getLogger(f"las.{__name__}")


class Lettering(NamedTuple):
    """Font families that have the characters of some texts together, and names for those that none of them has."""

    families: tuple[str, ...]
    names: dict[str, str]

    def label(self, character: str) -> str:
        """What stands for a single character: a space is seen, a mark has something to stand on."""
        if character in self.names:
            return self.names[character]
        if character == " ":
            return "␣"
        return f"◌{character}" if unicodedata.category(character[0]).startswith("M") else character

    def text(self, text: str) -> str:
        """A text in which every character can be read."""
        return "".join(self.names.get(character, character) for character in text)


def lettering(texts: Iterable[str]) -> Lettering:
    """Fonts of this machine for the characters of some texts; logs once of each writing that it has none for it."""
    return _lettering(frozenset(character for text in texts for character in text if character.isprintable()))


@cache
def _lettering(characters: frozenset[str]) -> Lettering:
    families, missing = list(FAMILIES), set(characters)
    for family in FAMILIES:
        missing -= _in_font(font_manager.findfont(FontProperties(family=family)), missing)
    if missing:
        missing -= _add_fonts(families, missing)
    for character in sorted(missing):
        _tell(unicodedata.name(character, "UNKNOWN").split()[0].capitalize())
    return Lettering(tuple(families), {character: _name(character) for character in missing})


@cache
def _tell(writing: str) -> None:
    logger.info(
        f"pictures: no font of this machine has {writing}; names of the letters stand there instead. An installed font "
        f"is found: {NAMED}"
    )


def _add_fonts(families: list[str], wanted: set[str]) -> set[str]:
    """Appends to `families` installed fonts that have `wanted` characters, those with the most first; returns these."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:  # installed after matplotlib made its list
        try:
            font_manager.fontManager.addfont(path)
        except Exception:  # a damaged font can fail in any way
            continue
    found: set[str] = set()
    fonts = {font.name: font.fname for font in font_manager.fontManager.ttflist if font.style == "normal"}
    covered = {name: _in_font(path, wanted) for name, path in sorted(fonts.items()) if not name.startswith(BOXES)}
    while wanted - found:
        best = max(covered, key=lambda name: len(covered[name] - found))
        if not covered[best] - found:
            break
        families.append(best)
        found |= covered[best]
    return found


def _in_font(path: str, wanted: Iterable[str]) -> set[str]:
    try:
        font = FT2Font(path)
        return {character for character in wanted if font.get_char_index(ord(character))}
    except Exception:  # a damaged font can fail in any way
        return set()


def _name(character: str) -> str:
    """`han` for 한, `ka` for क: the end of the name that Unicode gives it; else its code point."""
    name = unicodedata.name(character, "CJK")
    return f"U+{ord(character):04X}" if name.startswith("CJK") else name.rpartition(" ")[2].lower()
