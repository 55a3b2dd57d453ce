"""A partition packed once into one file that is mapped into memory, instead of tens of thousands of small ones.

The file is read a page at a time as batches need it, and shared by all processes that map it. A pack holds everything
that reading the small files told: features, texts, and what is wrong with them.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from utils.corpus import READERS, Partition, Record, read_utterance
from utils.errors import UserError

VERSION = 1  # of the pack's format
AT_A_TIME = 2048  # utterances read ahead of what is written


class Pack(NamedTuple):
    """file: all features one after the other. Each record's begin at its offset, in elements of `dtype`."""

    file: Path
    dtype: str
    offsets: np.ndarray  # (N,) int64
    records: list[Record]  # without their features


class MappedFeatures(Sequence):
    """Features `(T, D)` float32 of the utterances of some packs; opens each file where it is first used."""

    def __init__(self, packs: Sequence[Pack], keep: Sequence[int], time_first: bool):
        """keep: positions in all the packs' records, one pack after the other."""
        self._files = [(pack.file, pack.dtype) for pack in packs]
        self._pack = np.repeat(np.arange(len(packs)), [len(pack.records) for pack in packs])[keep]
        self._offsets = np.concatenate([pack.offsets for pack in packs])[keep]
        records = [record for pack in packs for record in pack.records]
        self._shapes = np.array([records[index].shape for index in keep], dtype=np.int64).reshape(-1, 2)
        self._time_first = time_first
        self._maps: dict[int, np.memmap] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> np.ndarray:
        pack, offset, (rows, columns) = int(self._pack[index]), int(self._offsets[index]), self._shapes[index]
        if pack not in self._maps:
            path, dtype = self._files[pack]
            self._maps[pack] = np.memmap(path, dtype=dtype, mode="r")
        stored = self._maps[pack][offset : offset + rows * columns].reshape(rows, columns)
        return np.array(stored if self._time_first else stored.T, dtype=np.float32)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_maps": {}}  # a worker process maps the files itself


def open_pack(folder: Path, partition: Partition, half: bool, say: Callable[[str], None]) -> Pack:
    """The pack of a partition in `folder`, made where there is none or where files have changed since.

    half: 16-bit floats. Raises UserError where `folder` cannot be written.
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
            for old in folder.glob(prefix + "*"):
                if old != packed:
                    shutil.rmtree(old, ignore_errors=True)
            size = (packed / "features.bin").stat().st_size / 1e9
            say(f"packed {partition.name} into {packed} ({size:.2f} GB)")
        return _read(packed, dtype)
    except OSError as error:
        message = f"data.cache: {partition.name} cannot be packed into {folder} ({error}); ram and off need no disk"
        raise UserError(message) from None
    except (ValueError, TypeError):
        raise UserError(f"{packed}: found a damaged pack, expected what data.cache=mmap made; remove it") from None


def _fingerprint(partition: Partition) -> str:
    """Changes with the name, the size or the time of any file."""

    def stat(path: Path) -> str:
        try:
            found = path.stat()
            return f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\n"
        except OSError:
            return f"{path.name}\0missing\n"

    files = [*partition.features, *(partition.transcripts or ())]
    with ThreadPoolExecutor(READERS) as pool:
        found = "".join(pool.map(stat, files, chunksize=256))
    return hashlib.sha256(f"{VERSION}\n{found}".encode()).hexdigest()[:16]


def _make(packed: Path, partition: Partition, dtype: str) -> None:
    """Written into a folder beside, which takes the name at the end; another process may have been first."""
    pairs = list(zip(partition.features, partition.transcripts or [None] * len(partition.features), strict=True))
    beside = Path(tempfile.mkdtemp(prefix=f".{packed.name}-", dir=packed.parent))
    try:
        index, offset = [], 0
        bar = tqdm(total=len(pairs), desc=f"packing {partition.name}", unit="file", leave=False, disable=None)
        with bar, ThreadPoolExecutor(READERS) as pool, (beside / "features.bin").open("wb") as file:
            for begin in range(0, len(pairs), AT_A_TIME):
                for record in pool.map(lambda pair: read_utterance(*pair), pairs[begin : begin + AT_A_TIME]):
                    index.append([offset, record.shape, record.text, record.findings])
                    if record.features is not None:
                        file.write(np.ascontiguousarray(record.features, dtype=dtype).data)
                        offset += record.features.size
                    bar.update()
            os.fsync(file.fileno())
        (beside / "index.json").write_text(json.dumps(index), encoding="utf-8")
        try:
            beside.rename(packed)
        except OSError:
            if not packed.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read(packed: Path, dtype: str) -> Pack:
    offsets, records = [], []
    for offset, shape, text, findings in json.loads((packed / "index.json").read_text(encoding="utf-8")):
        offsets.append(offset)
        records.append(Record(None, tuple(shape) if shape else None, text, findings))
    return Pack(packed / "features.bin", dtype, np.array(offsets, dtype=np.int64), records)
