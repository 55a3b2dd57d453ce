"""Where the competition's files lie, and how one of them is read: the layouts of the semesters, as they were found.

A partition is a folder of feature files and, except for the test set, a folder of transcripts of the same names.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.vocabulary import CHARACTERS

READERS = 16  # threads that read files: a network disk answers slowly, but many at a time
DOWNLOAD = """\
To get the competition's data (kaggle.com account with the competition joined, API token in place):
    pip install kaggle
    kaggle competitions download -c attention-based-speech-recognition
    unzip -q attention-based-speech-recognition.zip -d ./data
and set data.root to the folder that holds train-clean-100 (as unzipped: data/11-785-f23-hw4p2).
`make demo` needs no data: it makes its own synthetic speech."""


@dataclass(frozen=True)
class Layout:
    """How a semester names its folders and its submission's columns."""

    semester: str
    features: str
    transcripts: str
    header: str = "index,label"


LAYOUTS = (
    Layout("F23", "mfcc", "transcripts"),
    Layout("F22", "mfcc", "transcript/raw", "id,label"),
    Layout("S22", "mfcc", "transcript", "id,label"),
    Layout("F24", "fbank", "text"),
)


@dataclass(frozen=True)
class FeatureFormat:
    """What a model must know of its features; it travels in the checkpoint."""

    dim: int
    time_first: bool  # stored as (T, D); else as (D, T), the way F24 ships them
    normalize: str  # none, mean, mean_variance


class BadFile(Exception):
    """A file that cannot be used: what was found, what was expected."""

    def __init__(self, found: str, expected: str):
        super().__init__(f"found {found}, expected {expected}")
        self.found, self.expected = found, expected


class Files(Sequence[Path]):
    """Paths, kept as names in folders: as `Path` objects those of 960 hours would take half a gigabyte."""

    def __init__(self, folders: Sequence[Path], which: np.ndarray, names: Sequence[str]):
        """which: the folder of each name, as a position in `folders`."""
        self._folders, self._which, self._names = tuple(folders), which, tuple(names)

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> "Files":
        return cls([folder], np.zeros(len(names), dtype=np.int32), names)

    def take(self, positions: Sequence[int]) -> "Files":
        return Files(self._folders, self._which[positions], [self._names[index] for index in positions])

    def __add__(self, other: "Files") -> "Files":
        which = np.concatenate([self._which, other._which + len(self._folders)])
        return Files(self._folders + other._folders, which, self._names + other._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Path:
        return self._folders[self._which[index]] / self._names[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Files) and list(self) == list(other)

    __hash__ = None


@dataclass(frozen=True)
class Partition:
    """The files of one partition, features in the competition's order: sorted file names.

    transcripts: path for each feature file (it may not exist), or None for a partition without transcripts.
    orphans: transcripts that have no features.
    """

    name: str
    layout: Layout
    features: Files
    transcripts: Files | None
    orphans: Files


@dataclass
class Record:
    """One utterance as read: what could be read of it, and what is wrong with it, a line a finding."""

    features: np.ndarray | None = None  # 2-D, as stored; None where they are not kept
    shape: tuple[int, int] | None = None
    text: str | None = None
    findings: list[str] = field(default_factory=list)

    def complain(self, path: Path, found: str, expected: str) -> None:
        self.findings.append(complaint(path, found, expected))


def complaint(path: Path, found: str, expected: str) -> str:
    """A line of a report."""
    return f"  {str(path)!r}: found {found}; expected {expected}"


@dataclass
class Contents:
    """What was read of many utterances, without their features, in little memory."""

    shapes: np.ndarray  # (N, 2) int64, as stored; 0 where they could not be read
    texts: list[str]  # empty where there is none that could be read
    findings: dict[int, list[str]]  # by utterance

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Contents":
        shapes, texts, findings = [], [], {}
        for index, record in enumerate(records):
            shapes.append(record.shape or (0, 0))
            texts.append(record.text or "")
            if record.findings:
                findings[index] = record.findings
        return cls(np.array(shapes, dtype=np.int64).reshape(-1, 2), texts, findings)

    def __add__(self, other: "Contents") -> "Contents":
        findings = self.findings | {len(self.texts) + index: lines for index, lines in other.findings.items()}
        return Contents(np.concatenate([self.shapes, other.shapes]), self.texts + other.texts, findings)

    @property
    def readable(self) -> np.ndarray:
        """(N,) whether features could be read."""
        return self.shapes.any(axis=1)

    def add(self, index: int, finding: str) -> None:
        self.findings.setdefault(index, []).append(finding)


def detect_layout(root: Path) -> Layout:
    """The layout of a data root, from its first partition with transcripts. Raises UserError where there is none."""
    if not root.is_dir():
        raise UserError(f"data.root: found no folder {root}.\n{DOWNLOAD}")
    partitions = sorted(folder for folder in root.iterdir() if folder.is_dir())
    for wanted in ("transcripts", "features"):
        for layout in LAYOUTS:
            if any((folder / getattr(layout, wanted)).is_dir() for folder in partitions):
                return layout
    expected = " or ".join(f"PARTITION/{layout.features}" for layout in (LAYOUTS[0], LAYOUTS[-1]))
    found = ", ".join(folder.name for folder in partitions[:8]) or "no folder"
    raise UserError(f"data.root: {root}: found {found}, expected folders {expected}.\n{DOWNLOAD}")


def find_partition(root: str | Path, name: str) -> Partition:
    """The files of partition `name` under `root`. Raises UserError that says what is there instead."""
    root = Path(root)
    layout = detect_layout(root)
    features_dir = root / name / layout.features
    if not features_dir.is_dir():
        there = ", ".join(sorted(path.parent.name for path in root.glob(f"*/{layout.features}"))) or "none"
        raise UserError(
            f"{features_dir}: found no such folder; partitions that are there: {there}; data.train, data.dev, "
            "data.test and --split name them"
        )
    names = _arrays_in(features_dir)
    if not names:
        raise UserError(f"{features_dir}: found no .npy file, expected one an utterance")
    transcripts_dir = root / name / layout.transcripts
    if not transcripts_dir.is_dir():
        names = _test_order(root / name, names)
        return Partition(name, layout, Files.of(features_dir, names), None, Files.of(features_dir, ()))
    orphans = sorted(set(_arrays_in(transcripts_dir)) - set(names))
    features, transcripts = Files.of(features_dir, names), Files.of(transcripts_dir, names)
    return Partition(name, layout, features, transcripts, Files.of(transcripts_dir, orphans))


def _arrays_in(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".npy"))


def _test_order(folder: Path, names: list[str]) -> list[str]:
    """S22 ships the submission's row order in `test_order.csv`, column `file`; elsewhere it is sorted order."""
    path = folder / "test_order.csv"
    if not path.exists():
        return names
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "file" not in rows[0]:
        raise UserError(f"{path}: found no column 'file', expected the test files in the submission's order")
    order = [row["file"] if row["file"].endswith(".npy") else f"{row['file']}.npy" for row in rows]
    if sorted(order) != names:
        differ = ", ".join(sorted(set(order) ^ set(names))[:5]) or "a file named twice"
        raise UserError(f"{path}: its files are not those of {folder / 'mfcc'}: {differ}")
    return order


def _load(path: Path) -> np.ndarray:
    """One .npy array. Nothing is unpickled, and no more memory is taken than the file has bytes."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadFile("no file", "one of the same name as its pair") from None
    except EOFError:
        raise BadFile("an empty file", "a .npy array") from None
    except Exception as error:  # a damaged header can fail in any way; none of them runs code
        reason = " ".join(str(error).split())
        if "Python objects" in reason or "object arrays" in reason:
            raise BadFile("an object array (pickled)", "a plain array; pickles can run code and are not read") from None
        if "pickled" in reason or "magic" in reason:
            raise BadFile("something that is not a .npy file", "a .npy array") from None
        if "mmap length" in reason or "memory map" in reason:
            raise BadFile("a truncated file", "as many bytes as its header promises") from None
        raise BadFile(f"an unreadable file ({reason[:100]})", "a .npy array") from None
    if not isinstance(array, np.ndarray):
        raise BadFile("a .npz archive", "a .npy array")
    return array


def read_features(path: Path) -> np.ndarray:
    """A feature file as it is stored: 2-D, float32. Raises BadFile."""
    array = _load(path)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise BadFile(f"a {array.ndim}-D array of {array.dtype}", "a 2-D array of numbers, frames by dimensions")
    if array.size == 0:
        raise BadFile(f"an empty array {array.shape}", "at least one frame")
    return np.array(array, dtype=np.float32)


def read_transcript(path: Path) -> str:
    """A transcript file as text, `<sos>` and `<eos>` taken off where they are. Raises BadFile."""
    array = _load(path)
    if array.ndim != 1 or array.dtype.kind != "U":
        raise BadFile(f"a {array.ndim}-D array of {array.dtype}", "a 1-D array of text, one token an element")
    try:
        tokens = array.tolist()
    except (SystemError, ValueError):  # numpy does not check what it reads as letters
        raise BadFile("letters that no alphabet has", "<sos>, A-Z, ', space, <eos>, in upper case") from None
    if tokens and tokens[0] == "<sos>":
        tokens = tokens[1:]
    if tokens and tokens[-1] == "<eos>":
        tokens = tokens[:-1]
    unknown = sorted({token for token in tokens if len(token) != 1 or token not in CHARACTERS})
    if unknown:
        shown = ", ".join(repr(token) for token in unknown[:8])
        raise BadFile(f"outside the vocabulary: {shown}", "<sos>, A-Z, ', space, <eos>, in upper case")
    if not tokens:
        raise BadFile("an empty transcript", "at least one character")
    return "".join(tokens)


def read_utterance(features: Path, transcript: Path | None) -> Record:
    """A pair of files, or features alone, each checked by itself."""
    record = Record()
    try:
        array = read_features(features)
        record.features, record.shape = array, array.shape
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            row, column = bad[0]
            found = f"{array[row, column]} at [{row}, {column}] ({len(bad)} values not finite)"
            record.complain(features, found, "finite numbers")
    except BadFile as bad:
        record.complain(features, bad.found, bad.expected)
    if transcript is not None:
        try:
            record.text = read_transcript(transcript)
        except BadFile as bad:
            record.complain(transcript, bad.found, bad.expected)
    return record


def has_boundaries(path: Path) -> bool:
    """Whether a (readable) transcript is stored with `<sos>` and `<eos>`."""
    array = _load(path)
    return array.size > 0 and str(array.reshape(-1)[0]) == "<sos>"
