"""Where the competition's files lie: the layouts of the semesters.

A partition is a folder of feature files and, except for the test set, a folder of transcripts of the same names.
"""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from utils.errors import UserError
from utils.failures import SHORTAGES
from utils.files import is_leftover, read_csv

DEEPEST, WIDEST = 3, 200  # levels around a wrong data root, and folders of each, that are searched for the right one
NEIGHBOURS = 6  # most folders or partitions that a message lists
ALIKE = 0.6  # likeness of two names from which on one is taken for a slip of the other

DOWNLOAD = """\
To get the competition's data (kaggle.com account with the competition joined, API token in place):
    pip install kaggle
    kaggle competitions download -c attention-based-speech-recognition
    unzip -q attention-based-speech-recognition.zip -d ./data
and set data.root to the folder that holds train-clean-100 (as unzipped: data/11-785-f23-hw4p2).
`make demo` needs no data: it makes its own synthetic speech, with python -m corpora.demo data/demo."""


@dataclass(frozen=True)
class Layout:
    """How a semester names its folders, and the columns of its submission."""

    semester: str
    features: str
    transcripts: str
    columns: tuple[str, str]


LAYOUTS = (
    Layout("F23", "mfcc", "transcripts", ("index", "label")),
    Layout("F22", "mfcc", "transcript/raw", ("id", "label")),
    Layout("S22", "mfcc", "transcript", ("id", "predictions")),
    Layout("F24", "fbank", "text", ("Index", "Labels")),
)
S25 = Layout("S25", "fbank", "text", ("id", "transcription"))  # F24's folders, and one more
S25_FOLDER = "text-for-LM"


class PathList(Sequence[Path]):
    """Paths, kept as names in folders: as `Path` objects those of 960 hours would take half a gigabyte.

    Args:
        folders: that the files are in.
        which: `(N,)`, the folder of each file, as a position in `folders`.
        names: `N` file names.
    """

    def __init__(self, folders: Sequence[Path], which: np.ndarray, names: Sequence[str]):
        self._folders, self._which, self._names = tuple(folders), which, tuple(names)

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> "PathList":
        """Files in a single folder."""
        return cls([folder], np.zeros(len(names), dtype=np.int32), names)

    def take(self, positions: Sequence[int]) -> "PathList":
        return PathList(self._folders, self._which[positions], [self._names[index] for index in positions])

    def __add__(self, other: "PathList") -> "PathList":
        which = np.concatenate([self._which, other._which + len(self._folders)])
        return PathList(self._folders + other._folders, which, self._names + other._names)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "PathList": ...

    def __getitem__(self, index: int | slice) -> "Path | PathList":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self._folders[self._which[index]] / self._names[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathList) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by value


@dataclass(frozen=True)
class Partition:
    """The files of one partition."""

    name: str
    layout: Layout
    features: PathList  # in the competition's order: sorted by file name
    transcripts: PathList | None  # a path for each feature file, which may not exist; None without transcripts
    orphans: PathList  # transcripts without features


def detect_layout(root: Path) -> Layout:
    """The layout of a data root, recognised by its first partition with transcripts.

    Raises:
        UserError: there is no such folder, or no layout in it; says which folder nearby fits, or how to get the data.
    """
    if not root.is_dir():
        raise UserError(f"data.root: found no folder {root}{_neighbours(root)}")
    layout = _recognise(root)
    if layout is not None:
        return layout
    expected = " or ".join(f"PARTITION/{layout.features}" for layout in (LAYOUTS[0], LAYOUTS[-1]))
    found = ", ".join(folder.name for folder in _folders_in(root)[:8]) or "no folder"
    message = f"data.root: {root}: found {found}, expected folders {expected}"
    near = _fitting_folder(root)
    raise UserError(f"{message}; this one fits: data.root={near}" if near else f"{message}.\n{DOWNLOAD}")


def _recognise(root: Path) -> Layout | None:
    partitions = _folders_in(root)
    for wanted in ("transcripts", "features"):
        for layout in LAYOUTS:
            if any((folder / getattr(layout, wanted)).is_dir() for folder in partitions):
                return S25 if layout.semester == "F24" and (root / S25_FOLDER).is_dir() else layout
    return None


def _folders_in(root: Path) -> list[Path]:
    """Sorted by name, without what systems leave behind; none if the folder cannot be read."""
    try:
        return sorted(folder for folder in root.iterdir() if folder.is_dir() and not is_leftover(folder.name))
    except OSError as error:
        if error.errno in SHORTAGES:  # of the machine: nothing is known about the folder
            raise
        return []


def _fitting_folder(root: Path) -> Path | None:
    """A folder up to three levels below `root`, or above it, that is a data root."""
    level = [root]
    for _ in range(DEEPEST):
        level = [folder for above in level[:WIDEST] for folder in _folders_in(above)]
        for folder in level[:WIDEST]:
            if _recognise(folder):
                return folder
    return next((above for above in root.resolve().parents[:DEEPEST] if _recognise(above)), None)


def _neighbours(missing: Path) -> str:
    """The end of a message on a folder that is not there: data roots near it, and how to get one if none is like it."""
    above = next(folder for folder in (*missing.parents, Path()) if folder.is_dir())
    wanted = missing.parts[len(above.parts) :]
    level, roots = [above], list[tuple[Path, Layout]]()
    for _ in range(DEEPEST + 1):
        roots = [(folder, layout) for folder in level[:WIDEST] if (layout := _recognise(folder))]
        if roots:
            break
        level = [folder for up in level[:WIDEST] for folder in _folders_in(up)]

    def likeness(root: Path) -> float:
        return max(difflib.SequenceMatcher(None, part, root.name).ratio() for part in wanted)

    roots.sort(key=lambda found: -likeness(found[0]))
    lines = []
    for root, layout in roots[:NEIGHBOURS]:
        names = _partitions_in(root, layout)
        there = ", ".join(names[:NEIGHBOURS]) + (", ..." if len(names) > NEIGHBOURS else "")
        lines.append(f"  data.root={root}  ({there})")
    if len(roots) > NEIGHBOURS:
        lines.append(f"  and {len(roots) - NEIGHBOURS} more")
    end = "\n".join(["; folders near it that hold partitions:", *lines]) if lines else "."
    return end if lines and likeness(roots[0][0]) >= ALIKE else f"{end}\n{DOWNLOAD}"


def _partitions_in(root: Path, layout: Layout) -> list[str]:
    return [folder.name for folder in _folders_in(root) if (folder / layout.features).is_dir()]


def find_partition(root: str | Path, name: str) -> Partition:
    """The files of partition `name` under `root`.

    A partition whose folder of transcripts holds no .npy file, but perhaps a template of the submission, has none.

    Raises:
        UserError: there is no such partition, or no feature file in it; says what is there instead.
    """
    root = Path(root)
    layout = detect_layout(root)
    features_dir = root / name / layout.features
    if not features_dir.is_dir():
        there = ", ".join(_partitions_in(root, layout)) or "none"
        raise UserError(
            f"{features_dir}: found no such folder; partitions that are there: {there}; data.train, data.dev, "
            "data.test and --split name them"
        )
    names = _arrays_in(features_dir)
    if not names:
        raise UserError(f"{features_dir}: found no .npy file, expected one per utterance")
    features, transcripts_dir = PathList.of(features_dir, names), root / name / layout.transcripts
    texts = _arrays_in(transcripts_dir) if transcripts_dir.is_dir() else []
    if not texts:
        order = _test_order(root / name, names)
        return Partition(name, layout, PathList.of(features_dir, order), None, PathList.of(features_dir, ()))
    orphans = PathList.of(transcripts_dir, sorted(set(texts) - set(names)))
    return Partition(name, layout, features, PathList.of(transcripts_dir, names), orphans)


def _arrays_in(folder: Path) -> list[str]:
    """Names of the .npy files, sorted as the competition sorts them."""
    return sorted(name for name in os.listdir(folder) if name.endswith(".npy") and not is_leftover(name))


def _test_order(folder: Path, names: list[str]) -> list[str]:
    """The submission's row order: column `file` of `test_order.csv`, which S22 ships; elsewhere sorted names."""
    path = folder / "test_order.csv"
    if not path.exists():
        return names
    rows = read_csv(path)
    if not rows or "file" not in rows[0]:
        raise UserError(f"{path}: found no column 'file', expected the test files in the submission's order")
    order = [name if name.endswith(".npy") else f"{name}.npy" for row in rows if (name := row["file"].strip())]
    if sorted(order) != names:
        differ = ", ".join(sorted(set(order) ^ set(names))[:5]) or "a file named twice"
        raise UserError(f"{path}: its files are not those of {folder / 'mfcc'}: {differ}")
    return order
