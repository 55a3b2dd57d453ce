"""Transcribed recordings as subtitles (SRT, WebVTT), JSON, a TextGrid for Praat, or plain text."""

import html
import json
import logging
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from decoding.recordings import Recording, Word
from utils.errors import UserError
from utils.files import atomic_write

LONGEST_CUE = 6.0  # seconds that a subtitle stays
WIDEST_CUE = 42  # characters of a line; a subtitle has two
SHORTEST = 0.001  # seconds of a word: formats refuse what begins and ends at once

logger = logging.getLogger(f"las.{__name__}")


def to_text(recording: Recording) -> str:
    """A line for each piece of the recording."""
    return "".join(f"{piece.text}\n" for piece in recording.pieces if piece.text)


def to_srt(recording: Recording) -> str:
    cues = [
        f"{number}\n{_clock(cue[0].start, ',')} --> {_clock(cue[-1].end, ',')}\n{_lines(cue)}\n"
        for number, cue in enumerate(cues_of(recording), 1)
    ]
    return "\n".join(cues)


def to_vtt(recording: Recording) -> str:
    cues = [
        f"{_clock(cue[0].start, '.')} --> {_clock(cue[-1].end, '.')}\n{html.escape(_lines(cue), quote=False)}\n"
        for cue in cues_of(recording)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def to_json(recording: Recording) -> str:
    """Text, pieces and words, times in seconds; `monotonicity` says how far attention reads along, from 0 to 1."""
    content = {
        "file": str(recording.path),
        "seconds": round(recording.seconds, 3),
        "text": recording.text,
        "monotonicity": None if recording.monotonicity is None else round(recording.monotonicity, 3),
        "pieces": [
            {"start": round(piece.start, 3), "end": round(piece.end, 3), "text": piece.text}
            for piece in recording.pieces
        ],
        "words": [
            {"start": round(word.start, 3), "end": round(word.end, 3), "text": word.text}
            for word in _apart(recording.words)
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def to_textgrid(recording: Recording) -> str:
    """Two interval tiers, pieces and words, that cover the whole recording, in Praat's long text format."""
    words = _apart(recording.words)
    end = max([recording.seconds, *(word.end for word in words)])
    tiers = {
        "pieces": [(piece.start, piece.end, piece.text) for piece in recording.pieces],
        "words": [(word.start, word.end, word.text) for word in words],
    }
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.6f}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, spans) in enumerate(tiers.items(), 1):
        intervals = _covering(spans, end)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end:.6f}", f"        intervals: size = {len(intervals)}"]
        for index, (start, stop, text) in enumerate(intervals, 1):
            quoted = text.replace('"', '""')
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {start:.6f}",
                f"            xmax = {stop:.6f}",
            ]
            lines += [f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Recording], str]] = {
    "txt": to_text,
    "srt": to_srt,
    "vtt": to_vtt,
    "json": to_json,
    "textgrid": to_textgrid,
}
SUFFIXES = {**{name: f".{name}" for name in FORMATS}, "textgrid": ".TextGrid"}


def write_recordings(recordings: Sequence[Recording], kind: str, folder: Path) -> None:
    """Writes a file for each recording, under its name.

    Args:
        recordings: that were transcribed.
        kind: a key of FORMATS.
        folder: for the files.

    Raises:
        UserError: a file cannot be written.
    """
    for recording, name in zip(recordings, names_of(recordings), strict=True):
        path = folder / f"{name}{SUFFIXES[kind]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                # In JSON the name of a file may have bytes that are no UTF-8: \udce9 is how JSON writes them, too.
                temporary.write_text(FORMATS[kind](recording), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UserError(f"--out: cannot write {path} ({error})") from None
        logger.info(f"{path}: {recording.path}")


def names_of(recordings: Sequence[Recording]) -> list[str]:
    """Names of files made of the recordings: those that several have, and if need be all, are numbered."""
    stems = [recording.path.stem for recording in recordings]
    names = [stem if stems.count(stem) == 1 else f"{number}-{stem}" for number, stem in enumerate(stems, 1)]
    if len(set(names)) == len(names):
        return names
    return [f"{number}-{stem}" for number, stem in enumerate(stems, 1)]


def cues_of(recording: Recording) -> list[list[Word]]:
    """The words in groups that fit a subtitle; none reaches over a long pause."""
    cues: list[list[Word]] = []
    for piece in recording.pieces:
        first = True
        for word in _apart(piece.words):
            long = first or word.end - cues[-1][0].start > LONGEST_CUE
            if long or len(textwrap.wrap(" ".join(one.text for one in [*cues[-1], word]), WIDEST_CUE)) > 2:
                cues.append([])
            cues[-1].append(word)
            first = False
    return cues


def _lines(cue: Sequence[Word]) -> str:
    return "\n".join(textwrap.wrap(" ".join(word.text for word in cue), WIDEST_CUE))


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds."""
    thousandths = round(1000 * seconds)
    minutes, thousandths = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{thousandths // 1000:02d}{point}{thousandths % 1000:03d}"


def _apart(words: Sequence[Word]) -> list[Word]:
    """The words, each of some length and none before the end of another."""
    apart: list[Word] = []
    for word in words:
        start = max(word.start, apart[-1].end) if apart else word.start
        apart.append(word._replace(start=start, end=max(word.end, start + SHORTEST)))
    return apart


def _covering(spans: Sequence[tuple[float, float, str]], end: float) -> list[tuple[float, float, str]]:
    """The spans with empty ones between them, from 0 to `end`."""
    covering, at = [], 0.0
    for start, stop, text in spans:
        start = max(start, at)
        if start - at >= SHORTEST:
            covering.append((at, start, ""))
        else:
            start = at
        covering.append((start, stop, text))
        at = stop
    if end - at >= SHORTEST or not covering:
        return [*covering, (at, end, "")]
    start, _, text = covering[-1]
    return [*covering[:-1], (start, end, text)]
