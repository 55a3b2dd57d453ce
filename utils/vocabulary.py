"""What a model writes: its tokens in their order, and how texts are prepared and split into them.

A `Vocabulary` is a value. It comes from the settings, the training transcripts or a checkpoint, and is handed on.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_lines

PAD, SOS, EOS = 0, 1, 2
CTC_BLANK = PAD  # never a target character, so its index is free to mean "blank" in the CTC branch
SPECIAL = ("<pad>", "<sos>", "<eos>")
SPACE = "<space>"  # how a vocabulary file writes it
LARGEST = 8192  # tokens, as of any layer
SHOWN = 12  # characters in a message
UNPRINTABLE = ("Cc", "Cs", "Cn", "Co", "Zl", "Zp")  # Unicode categories of what is no character of a text

# Hangul. Conjoining jamo: initial consonants, vowels and final consonants, which compose to syllables. Compatibility
# jamo: letters that stand alone, as in ㅋㅋ.
SYLLABLE, CONJOINING, COMPATIBILITY = r"[\uac00-\ud7a3]", r"[\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]", r"[ㄱ-ㆎ]"
HANGUL = re.compile(f"{SYLLABLE}|{COMPATIBILITY}")

SPOKEN = "%&@#"  # punctuation that people read out
DASH, PUNCTUATION, APOSTROPHES = "Pd", "P", "'’"


@dataclass(frozen=True)
class TextForm:
    """How a text is prepared before it is learned or compared; the same for training, scoring and language model.

    Args:
        units: character: as they are; jamo: Hangul syllables as their letters, composed again in what is written.
        case: keep, upper, lower. Where the other case of a letter is several letters (ß), it stays.
        punctuation: keep, remove. Apostrophes inside words, marks between digits and `SPOKEN` stay; dashes are spaces.
    """

    units: str = "character"
    case: str = "keep"
    punctuation: str = "keep"

    def prepare(self, text: str) -> str:
        """`text` in Unicode's composed form (NFC), its case and punctuation folded."""
        if text.isascii() and self.case == self.punctuation == "keep":
            return text
        text = _compose(text)
        if self.case != "keep":
            text = _fold(text, str.upper if self.case == "upper" else str.lower)
        if self.punctuation == "remove":
            text = " ".join(_without_punctuation(text).split())
        return _compose(text)

    def split(self, text: str) -> Iterator[str]:
        """The tokens that spell a prepared text."""
        return iter(text) if self.units == "character" else (unit for letter in text for unit in _jamo_of(letter))


def _compose(text: str) -> str:
    """NFC; jamo that compose to no syllable become letters that stand alone, and so stay visible."""
    return re.sub(CONJOINING, lambda found: _standing_alone(found[0]), unicodedata.normalize("NFC", text))


def _standing_alone(jamo: str) -> str:
    try:  # HANGUL JONGSEONG NIEUN -> HANGUL LETTER NIEUN
        return unicodedata.lookup(f"HANGUL LETTER {unicodedata.name(jamo).rpartition(' ')[2]}")
    except (KeyError, ValueError):  # an old one, which has no such letter
        return jamo


def _jamo_of(letter: str) -> str:
    return unicodedata.normalize("NFD", letter) if re.match(SYLLABLE, letter) else letter


def _fold(text: str, change: Callable[[str], str]) -> str:
    folded = change(text)
    if len(folded) == len(text):
        return folded
    return "".join(new if len(new := change(letter)) == 1 else letter for letter in text)


def _without_punctuation(text: str) -> str:
    kept = []
    for before, letter, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        kind = unicodedata.category(letter)
        inside = letter in APOSTROPHES and before.isalnum() and after.isalnum()
        if not kind.startswith(PUNCTUATION) or letter in SPOKEN or (before.isdigit() and after.isdigit()):
            kept.append(letter)
        elif inside:
            kept.append("'")
        elif kind == DASH:
            kept.append(" ")
    return "".join(kept)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in index order, `<pad>`, `<sos>`, `<eos>` first, and the form of the texts that they spell."""

    tokens: tuple[str, ...]
    form: TextForm = TextForm()

    @cached_property
    def _index(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def characters(self) -> tuple[str, ...]:
        """All tokens but the special ones."""
        return self.tokens[len(SPECIAL) :]

    def __len__(self) -> int:
        return len(self.tokens)

    def __str__(self) -> str:
        if self.tokens == KAGGLE.tokens:
            return f"Kaggle's {len(self)} tokens (A-Z, ', space)"
        jamo = ", Hangul in jamo" if self.form.units == "jamo" else ""
        return f"{len(self):,} tokens ({list_characters(self.characters[::-1])}{jamo})"

    def encode(self, text: str) -> list[int]:
        """Token indices of `<sos>`, the characters of a prepared `text`, `<eos>`.

        Raises:
            KeyError: the vocabulary does not hold a character.
        """
        if self.form.units == "character":
            return [SOS, *(self._index[character] for character in text), EOS]
        return [SOS, *(index for character in text for index in self._spell(character)), EOS]

    def _spell(self, character: str) -> list[int]:
        if character in self._index:
            return [self._index[character]]
        if self.form.units == "character" or not HANGUL.match(character):
            raise KeyError(character)
        # NFKD takes letters that stand alone, too, to conjoining jamo: what `decode` wrote can be spelled again.
        return [self._index[unit] for unit in unicodedata.normalize("NFKD", character)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of a token sequence up to the first `<eos>`; other special tokens are left out."""
        written = "".join(self.tokens[token] for token in takewhile(lambda token: token != EOS, tokens) if token > EOS)
        return written if written.isascii() else _compose(written)

    def unknown(self, text: str) -> str:
        """The characters of a prepared text that the vocabulary does not hold, each as often as it occurs."""
        strange = {character for character in set(text) if not self._holds(character)}
        return "".join(character for character in text if character in strange) if strange else ""

    def known(self, text: str) -> str:
        """A prepared text without its unknown characters."""
        strange = set(self.unknown(text))
        return "".join(character for character in text if character not in strange) if strange else text

    def _holds(self, character: str) -> bool:
        try:
            self._spell(character)
        except KeyError:
            return False
        return True

    def count(self, text: str) -> int:
        """How many tokens spell a text; unknown characters have none."""
        return len(self.encode(self.known(text))) - 2

    def labels(self, text: str) -> list[str]:
        """What each token of a text is shown as, `<eos>` last; unknown characters have none."""
        return [_compose(self.tokens[token]) for token in self.encode(self.known(text))[1:]]


KAGGLE = Vocabulary((*SPECIAL, *string.ascii_uppercase, "'", " "))  # the competition's, in its index order


# --------------------------------------------------------------------------------------------------- where it is from


def vocabulary_of_texts(texts: Iterable[str], form: TextForm) -> tuple[Vocabulary, Counter[str]]:
    """The characters of prepared texts in the order of their code points, and how often each occurs.

    Raises:
        UserError: there are too many.
    """
    counts = Counter(unit for text in texts for unit in form.split(text))
    if len(counts) > LARGEST - len(SPECIAL):
        raise UserError(
            f"data.vocabulary: found {len(counts):,} different characters in the training transcripts, expected at "
            f"most {LARGEST - len(SPECIAL):,}; a file of those to write names them: data.vocabulary=FILE"
        )
    return Vocabulary((*SPECIAL, *sorted(counts)), form), counts


def make_vocabulary(setting: str, form: TextForm) -> Vocabulary | TextForm:
    """What `data.vocabulary` says: kaggle, a file, or auto, for which the form alone is known before texts are read.

    Raises:
        UserError: the file cannot be used.
    """
    if setting == "auto":
        return form
    return Vocabulary(KAGGLE.tokens, form) if setting == "kaggle" else read_vocabulary(Path(setting), form)


def read_vocabulary(path: Path, form: TextForm) -> Vocabulary:
    """A vocabulary file: UTF-8, a character a line, in index order from 3 on; the space is written `<space>`.

    Raises:
        UserError: names the file, the line, what was found and what was expected.
    """
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.vocabulary: {path}: cannot be read ({error}); expected kaggle, auto, or a file in UTF-8 with a "
            f"character a line, the space written {SPACE}"
        ) from None
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        character = " " if line == SPACE else unicodedata.normalize("NFC", line)
        if len(character) != 1 or not is_character(character):
            raise UserError(f"{path}:{number}: found {line[:40]!r}, expected one character, the space as {SPACE}")
        for unit in form.split(character):
            if unit in found and unit == character:
                raise UserError(f"{path}:{number}: found {line!r} again, as in line {found[unit]}; expected it once")
            found.setdefault(unit, number)
    if not 0 < len(found) <= LARGEST - len(SPECIAL):
        raise UserError(f"{path}: found {len(found):,} characters, expected 1 to {LARGEST - len(SPECIAL):,}")
    return Vocabulary((*SPECIAL, *found), form)


def format_vocabulary(vocabulary: Vocabulary) -> str:
    """The content of a vocabulary file."""
    return "".join(f"{SPACE if token == ' ' else token}\n" for token in vocabulary.characters)


def describe_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
    """What a checkpoint holds of it."""
    return {"vocabulary": list(vocabulary.tokens), "text_form": asdict(vocabulary.form)}


def parse_vocabulary(tokens: Sequence[str], form: object, source: str) -> Vocabulary:
    """A vocabulary from what a checkpoint holds; older ones tell no form.

    Raises:
        UserError: it is none.
    """
    characters = tokens[len(SPECIAL) :]
    if tuple(tokens[: len(SPECIAL)]) != SPECIAL or not 0 < len(characters) <= LARGEST:
        raise UserError(
            f"{source}: found a model of {len(tokens)} tokens ({', '.join(map(repr, tokens[:4]))}), expected "
            f"{', '.join(SPECIAL)} and then characters"
        )
    if len(set(characters)) < len(characters) or not all(len(one) == 1 and is_character(one) for one in characters):
        raise UserError(
            f"{source}: found a vocabulary with tokens twice, or of several characters; expected single ones"
        )
    allowed = {"units": ("character", "jamo"), "case": ("keep", "upper", "lower"), "punctuation": ("keep", "remove")}
    entries = {} if form is None else form
    if not isinstance(entries, dict) or any(value not in allowed.get(name, ()) for name, value in entries.items()):
        raise UserError(f"{source}: text_form: found {str(form)[:80]}, expected {', '.join(allowed)}")
    return Vocabulary(tuple(tokens), TextForm(**entries))


# ------------------------------------------------------------------------------------------------------------- any text


def is_character(character: str) -> bool:
    """Whether it can stand in a text: the space, and all that has a shape or joins what has."""
    return character == " " or not (character.isspace() or unicodedata.category(character) in UNPRINTABLE)


def name_character(character: str) -> str:
    """A character in a message: quoted, with its code point where it cannot stand alone."""
    alone = character.isprintable() and not unicodedata.category(character).startswith("M")
    return f"{_compose(character)!r}" if alone else f"U+{ord(character):04X}"


def list_characters(characters: Iterable[str]) -> str:
    """The first few of different characters in a message."""
    different = list(dict.fromkeys(characters))
    more = f" and {len(different) - SHOWN:,} more" if len(different) > SHOWN else ""
    return ", ".join(map(name_character, different[:SHOWN])) + more


_READ_AS = str.maketrans({"’": "'", **dict.fromkeys("-‐‑–—/_", " ")})  # WELL-KNOWN are two words


def _plain(text: str) -> str:
    """Upper case, without accents, dashes as spaces."""
    letters = unicodedata.normalize("NFKD", text.translate(_READ_AS)).upper()
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def spellable(text: str, vocabulary: Vocabulary = KAGGLE) -> str:
    """Any text in the vocabulary's characters: unknown ones left out, single spaces between words.

    For Kaggle's tokens it becomes upper case and loses its accents first; for others it is prepared as transcripts are.
    """
    words = "".join(letter if letter.strip() else " " for letter in _made_plain(text, vocabulary))
    return " ".join(vocabulary.known(words).split())


def unspellable(text: str, vocabulary: Vocabulary = KAGGLE) -> str:
    """The characters of `text` that `spellable` leaves out."""
    return "".join(letter for letter in vocabulary.unknown(_made_plain(text, vocabulary)) if not letter.isspace())


def _made_plain(text: str, vocabulary: Vocabulary) -> str:
    return _plain(text) if vocabulary.tokens == KAGGLE.tokens else vocabulary.form.prepare(text)


def as_it_is(text: str) -> str:
    """Any text in Unicode's composed form, with single spaces between words; nothing is left out."""
    return " ".join(_compose(text).split())
