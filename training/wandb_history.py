"""Reads back what a wandb run has logged, from its `.wandb` files: logs of protobuf records in LevelDB's format.

wandb keeps records in memory for a while, and a killed process loses them: only the file tells what was logged.
"""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER = 7  # bytes before the first record: :W&B, a magic number and a version
BLOCK = 32 * 1024
FULL, LAST = 1, 4  # kinds of chunk that end a record


def read_records(path: Path) -> Iterator[Any]:
    """The records (`wandb_internal_pb2.Record`) of a `.wandb` file, up to its end or to where it was cut off."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    data, position, content = path.read_bytes(), HEADER, b""
    while position + 7 <= len(data):
        room = BLOCK - position % BLOCK
        if room < 7:  # no chunk begins so near to the end of a block
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += 7
        content += data[position : position + length]
        if not kind or position + length > len(data):
            return
        position += length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made at run time
            try:
                record.ParseFromString(content)
            except DecodeError:
                return
            content = b""
            yield record


def what_was_logged(folder: Path, run_id: str) -> tuple[set[int], float]:
    """Steps and best model that the files of a wandb run hold.

    Args:
        folder: that holds the run's files.
        run_id: of the wandb run.

    Returns:
        The steps logged, and the least dev distance of a logged checkpoint (infinity if there is none).
    """
    steps, distance = set(), math.inf
    for path in folder.glob(f"*run-*-{run_id}/*.wandb"):
        for record in read_records(path):
            if record.HasField("history"):
                steps.add(record.history.step.num)
            elif record.HasField("artifact") and record.artifact.type == "model":
                distance = min(distance, json.loads(record.artifact.metadata).get("dev_distance", math.inf))
    return steps, distance
