"""A partition packed once into one file that is mapped into memory, instead of tens of thousands of small ones.

The file is read a page at a time as batches need it, and shared by all processes that map it. A pack holds everything
that reading the small files told: features, texts, and what is wrong with them.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from corpora.checks import READERS, PartitionIndex, UtteranceRecord, checksum_of, read_utterance
from corpora.layout import Partition, PathList
from utils.errors import BadFile, UserError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

VERSION = 5  # of the pack's format
END = "."  # the line after the last text: none of it is missing
COMPARED = 32  # files of a pack that are compared with it at every start
AT_A_TIME = 2048  # utterances read ahead of what is written, and files asked for their size in one go

logger = logging.getLogger(f"las.{__name__}")


class Pack(NamedTuple):
    """A partition packed into one file."""

    file: Path  # the features of all utterances one after the other
    dtype: str  # of its elements
    contents: PartitionIndex
    checksums: np.ndarray  # (N,) uint32, of the packed bytes of each utterance


class MappedFeatures:
    """Features `(T, D)`, float32, of the utterances of some packs, by position.

    The files are opened at once and stay open, and no other process removes a pack that is held.
    Only the utterance at hand is mapped, or all that was ever read would count as this process's memory.

    Args:
        packs: of the same dtype.
        keep: positions of the utterances in all the packs' contents, one pack after the other.
        time_first: whether they are stored as `(T, D)`.
    """

    def __init__(self, packs: Sequence[Pack], keep: Sequence[int], time_first: bool):
        self._paths, self._dtype, self._time_first = [pack.file for pack in packs], packs[0].dtype, time_first
        self._pack = np.repeat(np.arange(len(packs)), [len(pack.contents.texts) for pack in packs])[keep]
        sizes = [pack.contents.shapes.prod(axis=1) for pack in packs]
        itemsize = np.dtype(self._dtype).itemsize
        self._offsets = np.concatenate([(size.cumsum() - size) * itemsize for size in sizes])[keep]  # bytes
        self._shapes = np.concatenate([pack.contents.shapes for pack in packs])[keep]
        self._checksums = np.concatenate([pack.checksums for pack in packs])[keep]
        self._open: dict[int, BinaryIO] = {number: _held(path) for number, path in enumerate(self._paths)}

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> np.ndarray:
        """Raises BadFile if the bytes are not those that were packed."""
        pack, shape = int(self._pack[index]), tuple(self._shapes[index].tolist())
        if pack not in self._open:
            self._open[pack] = _held(self._paths[pack])
        stored = np.memmap(self._open[pack], self._dtype, "r", int(self._offsets[index]), shape)
        if checksum_of(stored) != self._checksums[index]:
            folder = self._paths[pack].parent
            raise BadFile(f"other bytes for it in {folder} than were packed", f"a whole pack: remove {folder}")
        return np.array(stored if self._time_first else stored.T, dtype=np.float32)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}}  # a worker process opens the files itself


def open_pack(folder: Path, partition: Partition, half: bool) -> Pack:
    """The pack of a partition in `folder`; made first if there is none, or if files have changed since.

    Args:
        folder: that holds all packs.
        partition: whose files are packed.
        half: whether features are packed as float16.

    Raises:
        UserError: `folder` cannot be written, or the pack is damaged.
    """
    dtype = "float16" if half else "float32"
    place = partition.features[0].parent.parent.resolve()
    root = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    prefix = f"{partition.name}-{root}-{dtype}-"
    packed = folder / (prefix + _fingerprint(partition))
    try:
        if not packed.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _make(packed, partition, dtype)
            _sweep([old for old in (*folder.glob(prefix + "*"), *folder.glob(f".{prefix}*")) if old != packed])
            size = (packed / "features.bin").stat().st_size / 1e9
            logger.info(f"packed {partition.name} into {packed} ({size:.2f} GB)")
        pack = _read(packed, dtype, len(partition.features))
        _compare(pack, partition)
        return pack
    except OSError as error:
        message = f"data.cache: {partition.name} cannot be packed into {folder} ({error}); ram and off need no disk"
        raise UserError(message) from None
    except (ValueError, TypeError, AttributeError, EOFError):
        raise UserError(f"{packed}: found a damaged pack, expected what data.cache=mmap made; remove it") from None


def _held(path: Path, mode: str = "rb") -> BinaryIO:
    """A file of a pack, opened; as long as it is, `_sweep` leaves the pack alone, in this process and others."""
    file = path.open(mode)
    if fcntl is not None:
        with suppress(OSError):  # a network drive without locks
            fcntl.flock(file, fcntl.LOCK_SH)
    return file  # type: ignore[return-value]


def _sweep(packs: Sequence[Path]) -> None:
    """Removes packs, and what killed packing has left, unless another process holds them."""
    for pack in packs:
        try:
            with (pack / "features.bin").open("rb") as file:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(pack, ignore_errors=True)
        except FileNotFoundError:
            continue  # it is just being made, or removed
        except OSError:  # held
            logger.info(f"{pack}: stays, since another process reads it")


def _compare(pack: Pack, partition: Partition) -> None:
    """Raises UserError if files are not the ones that were packed, though of the same size and time; looks at some."""
    N = len(partition.features)
    for index in range(0, N, -(-N // COMPARED)):
        record = read_utterance(partition.features[index], None, False)
        if record.checksum != pack.contents.checksums[index] and not record.findings:
            raise UserError(
                f"{partition.features[index]}: found other features than were packed, though of the same size and "
                f"time; expected the same: remove {pack.file.parent}"
            )


def _fingerprint(partition: Partition) -> str:
    """A digest that changes with the name, the size or the modification time of any file."""

    def stat(files: PathList, begin: int) -> str:
        lines = []
        for index in range(begin, min(begin + AT_A_TIME, len(files))):
            path = files[index]
            try:
                found = path.stat()
                lines.append(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\n")
            except OSError:
                lines.append(f"{path.name}\0missing\n")
        return "".join(lines)

    digest = hashlib.sha256(f"{VERSION}\n".encode())
    with ThreadPoolExecutor(READERS) as pool:
        for files in (partition.features, partition.transcripts or ()):
            for lines in pool.map(lambda begin, files=files: stat(files, begin), range(0, len(files), AT_A_TIME)):
                digest.update(os.fsencode(lines))
    return digest.hexdigest()[:16]


def _make(packed: Path, partition: Partition, dtype: str) -> None:
    """Writes a pack into a temporary folder, renamed at the end; another process may have been first."""
    N = len(partition.features)
    temporary = Path(tempfile.mkdtemp(prefix=f".{packed.name}-", dir=packed.parent))
    try:
        checksums: list[int] = []
        with _held(temporary / "features.bin", "wb") as file, ThreadPoolExecutor(READERS) as pool:

            def write(record: UtteranceRecord) -> UtteranceRecord:
                if record.features is not None:
                    with np.errstate(over="ignore"):  # such values are findings
                        packed = np.ascontiguousarray(record.features, dtype=dtype)
                    file.write(packed.data)
                checksums.append(0 if record.features is None else checksum_of(packed))
                return replace(record, features=None)

            def read(index: int) -> UtteranceRecord:
                transcript = None if partition.transcripts is None else partition.transcripts[index]
                return read_utterance(partition.features[index], transcript, dtype == "float16")

            shares = (range(begin, min(begin + AT_A_TIME, N)) for begin in range(0, N, AT_A_TIME))
            records = (record for share in shares for record in pool.map(read, share))
            bar = tqdm(records, f"packing {partition.name}", N, unit="file", leave=False, disable=None)
            contents = PartitionIndex.of(map(write, bar))
            file.flush()
            os.fsync(file.fileno())
        np.save(temporary / "shapes.npy", contents.shapes)
        np.save(temporary / "checksums.npy", np.stack([contents.checksums, np.array(checksums, dtype=np.uint32)]))
        (temporary / "texts.txt").write_text("\n".join([*contents.texts, END]), encoding="utf-8")
        (temporary / "findings.json").write_text(json.dumps(contents.findings), encoding="utf-8")
        try:
            temporary.rename(packed)
        except OSError:
            if not packed.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(packed: Path, dtype: str, N: int) -> Pack:
    """Raises ValueError where it is damaged."""
    file, shapes = packed / "features.bin", np.load(packed / "shapes.npy", allow_pickle=False)
    with (packed / "texts.txt").open(encoding="utf-8", newline="\n") as lines:
        texts = [line.removesuffix("\n") for line in lines]
    findings = json.loads((packed / "findings.json").read_text(encoding="utf-8"))
    checksums = np.load(packed / "checksums.npy", allow_pickle=False)
    contents = PartitionIndex(shapes, texts, {int(index): lines for index, lines in findings.items()}, checksums[0])
    size = int(shapes.prod(axis=1).sum()) * np.dtype(dtype).itemsize
    if (
        checksums.shape != (2, N)
        or shapes.shape != (N, 2)
        or len(texts) != N + 1
        or texts.pop() != END
        or file.stat().st_size != size
    ):
        raise ValueError("parts that do not belong together")
    return Pack(file, dtype, contents, checksums[1])
