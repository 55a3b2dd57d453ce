"""Subtitles, JSON and TextGrid of a recording, read back."""

import json
import logging
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from decoding.formats import FORMATS, SHORTEST, SUFFIXES, WIDEST_CUE, cues_of, names_of, write_recordings
from decoding.recordings import Piece, Recording, Word
from test import FORMATS as OFFERED
from utils.errors import UserError


def make_recording(name="talk.wav", count=40) -> Recording:
    """Two pieces; in the second, words at one time, as of a model that is not aligned, and characters of markup."""
    first = [Word(f"WORD{number}", 0.5 * number, 0.5 * number + 0.4, slice(0, 1)) for number in range(count)]
    second = [Word(text, 3661.5, 3661.5, slice(0, 1)) for text in ("A&B", '"C"', "<D>")]
    pieces = [
        Piece(start, end, np.zeros((1, 1)), " ".join(word.text for word in words), np.eye(9), words)
        for start, end, words in ((0.0, 20.0, first), (3661.0, 3662.0, second))
    ]
    return Recording(Path("folder") / name, 3662.5, pieces)


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_the_command_offers_them_all():
    assert list(OFFERED) == list(FORMATS) == list(SUFFIXES)


@pytest.mark.parametrize(("kind", "point"), [("srt", ","), ("vtt", ".")])
def test_subtitles(kind, point):
    recording = make_recording()
    content = FORMATS[kind](recording)
    assert content.startswith("WEBVTT\n\n" if kind == "vtt" else "1\n00:00:00,000 --> ")
    times = re.findall(r"^(\S+) --> (\S+)$", content, re.MULTILINE)
    assert all(re.fullmatch(rf"\d\d:\d\d:\d\d\{point}\d\d\d", clock) for pair in times for clock in pair)
    spans = [(seconds(start), seconds(end)) for start, end in times]
    assert all(start < end for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert max(end - start for start, end in spans) <= 6.0
    assert spans[-1][0] == 3661.5  # a piece of its own begins a subtitle
    blocks = [block.split("\n") for block in content.removeprefix("WEBVTT\n\n").strip().split("\n\n")]
    lines = [line for block in blocks for line in block[2 if kind == "srt" else 1 :]]
    assert max(map(len, lines)) <= WIDEST_CUE
    shown = " ".join(lines)
    assert shown.endswith('A&B "C" <D>' if kind == "srt" else 'A&amp;B "C" &lt;D&gt;')
    assert shown.split()[:40] == recording.text.split()[:40]
    assert len(cues_of(recording)) == len(blocks)


def test_json():
    content = json.loads(FORMATS["json"](make_recording(count=2)))
    assert content["file"] == str(Path("folder") / "talk.wav")
    assert content["text"] == 'WORD0 WORD1 A&B "C" <D>'
    assert content["pieces"][0] == {"start": 0.0, "end": 20.0, "text": "WORD0 WORD1"}
    assert content["words"][1] == {"start": 0.5, "end": 0.9, "text": "WORD1"}
    assert content["monotonicity"] == pytest.approx(1)
    assert all(word["start"] < word["end"] for word in content["words"])


def test_a_textgrid_covers_the_recording_without_gaps():
    content = FORMATS["textgrid"](make_recording())
    assert 'text = """C"""' in content
    assert re.findall(r'name = "(\w+)"', content) == ["pieces", "words"]
    for tier in content.split("item [")[2:]:
        (count,) = re.findall(r"intervals: size = (\d+)", tier)
        spans = re.findall(r"intervals \[\d+\]:\s+xmin = ([\d.]+)\s+xmax = ([\d.]+)", tier)
        assert len(spans) == int(count)
        assert (float(spans[0][0]), float(spans[-1][1])) == (0, 3662.5)
        assert all(float(start) < float(end) for start, end in spans)
        assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_a_textgrid_has_no_empty_interval_after_a_piece_that_ends_with_the_recording():
    recording = make_recording()
    content = FORMATS["textgrid"](Recording(recording.path, 3662.0, recording.pieces))
    (count,) = re.findall(r"intervals: size = (\d+)", content.split("item [")[2])
    assert int(count) == 3  # two pieces, and what lies between them
    content = FORMATS["textgrid"](Recording(recording.path, 3662.0 + SHORTEST / 2, recording.pieces))
    assert content.count(f"xmax = {3662.0 + SHORTEST / 2:.6f}") == 1 + 2 + 2  # of the file, the tiers, and their ends


def test_text_and_a_recording_of_silence():
    assert FORMATS["txt"](make_recording(count=2)) == 'WORD0 WORD1\nA&B "C" <D>\n'
    nothing = Recording(Path("a.wav"), 2.0, [])
    assert FORMATS["txt"](nothing) == FORMATS["srt"](nothing) == ""
    assert FORMATS["vtt"](nothing) == "WEBVTT\n"
    assert json.loads(FORMATS["json"](nothing))["monotonicity"] is None
    assert FORMATS["textgrid"](nothing).count("intervals: size = 1") == 2


def test_files_have_names_of_their_own(tmp_path, caplog):
    recordings = [make_recording(), make_recording("talk.mp3"), make_recording("other.wav")]
    write_recordings(recordings, "textgrid", tmp_path / "new")
    expected = ["1-talk.TextGrid", "2-talk.TextGrid", "other.TextGrid"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == expected
    assert len(caplog.messages) == 3
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out: cannot write"):
        write_recordings(recordings, "srt", tmp_path / "file")


def test_no_name_is_taken_twice():
    assert names_of([make_recording(name) for name in ("talk.wav", "talk.mp3", "1-talk.wav")]) == [
        "1-talk",
        "2-talk",
        "3-1-talk",
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_whose_name_is_no_utf_8(kind, tmp_path, caplog):
    caplog.set_level(logging.ERROR, "las")  # processes of pytest-xdist cannot tell each other such a name
    recording = make_recording(os.fsdecode(b"caf\xe9.wav"))
    write_recordings([recording], kind, tmp_path)
    content = next(tmp_path.iterdir()).read_text(encoding="utf-8")
    assert kind != "json" or json.loads(content)["file"] == str(recording.path)
