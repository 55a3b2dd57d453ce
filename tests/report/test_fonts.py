"""Letters of any language in pictures: a font that has them, else their names."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager

from report import fonts
from report.attention_maps import save_attention_maps
from report.fonts import BOXES, FAMILIES, lettering
from training.evaluate import AttentionMap

UNKNOWN = "한국ㄱक\u093e中\U000f0000"


@pytest.fixture
def only_latin(monkeypatch):
    """A machine with matplotlib's own fonts."""
    own = [font for font in font_manager.fontManager.ttflist if font.name.startswith(("DejaVu", BOXES))]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    for cached in (fonts._lettering, fonts._tell):
        cached.cache_clear()
    yield
    for cached in (fonts._lettering, fonts._tell):
        cached.cache_clear()


def test_letters_without_a_font_have_names_and_one_line_says_so(only_latin, caplog):
    found = lettering([UNKNOWN, "Aß é"])
    assert found.families == FAMILIES
    labels = [found.label(letter) for letter in "한국ㄱक\u093e中"]
    assert labels == ["han", "gug", "kiyeok", "ka", "aa", "U+4E2D"]
    assert [found.label(letter) for letter in ("A", "ß", " ", "<eos>", "\u0301")] == ["A", "ß", "␣", "<eos>", "◌\u0301"]
    assert found.text("한국 A") == "hangug A"
    lettering(["한국"])
    assert len([line for line in caplog.messages if "no font of this machine has Hangul" in line]) == 1


def test_pictures_have_no_boxes(only_latin, tmp_path):
    letters = [*"한국 कа", "<eos>"]
    maps = [AttentionMap("말-1", letters, np.eye(len(letters)), 1.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of glyphs that it lacks
        save_attention_maps(tmp_path / "a.png", maps, "epoch 1")


def test_fonts_that_have_the_letters_are_taken(only_latin, monkeypatch):
    """Pretended: the machine has one font for some, another for more, and a damaged one."""
    has = {"small": set("한"), "large": set("한국ㄱ"), "hindi": set("क\u093e"), "none": set()}
    listed = [font_manager.FontEntry(fname=name, name=name, style="normal") for name in has]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", font_manager.fontManager.ttflist + listed)
    in_font = fonts._in_font
    monkeypatch.setattr(
        fonts, "_in_font", lambda path, wanted: has[path] & set(wanted) if path in has else in_font(path, wanted)
    )
    found = lettering([UNKNOWN])
    assert found.families == (*FAMILIES, "large", "hindi")
    assert set(found.names) == {"中"}
    assert in_font("no such font", "A") == set()


def test_a_font_that_matplotlib_has_not_listed_yet_is_found(only_latin, monkeypatch):
    added = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: ["new.ttf"])
    monkeypatch.setattr(font_manager.fontManager, "addfont", added.append)
    lettering(["Latin"])
    assert added == []
    lettering(["한"])
    assert added == ["new.ttf"]
