"""The reader of wandb's files, on logs that are written out here by LevelDB's description of the format."""

import json
import math
import struct

from wandb.proto.wandb_internal_pb2 import Record

from training.wandb_history import BLOCK, HEADER, read_records, what_was_logged

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def write_log(contents: list[bytes]) -> bytes:
    """Records in chunks that do not cross the borders of blocks; the checksums are not read and are left out."""
    log = bytearray(b"\0" * HEADER)
    for content in contents:
        begun = False
        while True:
            room = BLOCK - len(log) % BLOCK
            if room < 7:
                log += b"\0" * room
                continue
            chunk, content = content[: room - 7], content[room - 7 :]
            kind = (MIDDLE if content else LAST) if begun else (FIRST if content else FULL)
            log += struct.pack("<IHB", 0, len(chunk), kind) + chunk
            begun = True
            if not content:
                break
    return bytes(log)


def step(number: int, filling: int = 0) -> bytes:
    """A record of the metrics of one step, larger by so many bytes."""
    record = Record()
    record.history.step.num = number
    record.history.item.add(key="text", value_json=json.dumps("x" * filling))
    return record.SerializeToString()


def model(distance: float | None, kind: str = "model") -> bytes:
    record = Record()
    record.artifact.type = kind
    record.artifact.metadata = json.dumps({} if distance is None else {"dev_distance": distance})
    return record.SerializeToString()


def steps_in(path) -> list[int]:
    return [record.history.step.num for record in read_records(path)]


def test_records_across_the_borders_of_blocks(tmp_path):
    """The second ends 0 to 20 bytes before the end of a block, where the next may have no room for a chunk's header."""
    path, filling = tmp_path / "run.wandb", 20_000
    size = len(write_log([step(1), step(2, filling)]))
    for left in range(21):
        records = [step(1), step(2, filling + BLOCK - size - left)]
        assert len(write_log(records)) == BLOCK - left
        path.write_bytes(write_log([*records, step(3), step(4, 3 * BLOCK), step(5)]))
        assert steps_in(path) == [1, 2, 3, 4, 5], left


def test_a_log_that_was_cut_off_has_what_came_before(tmp_path):
    path, records = tmp_path / "run.wandb", [step(1), step(2, 50), step(3)]
    content = write_log(records)
    ends = [len(write_log(records[:count])) for count in range(len(records) + 1)]
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        whole = sum(end <= size for end in ends[1:])
        assert steps_in(path) == [1, 2, 3][:whole], size


def test_a_log_that_is_damaged_has_what_came_before(tmp_path):
    path = tmp_path / "run.wandb"
    path.write_bytes(write_log([step(1), b"\xff" * 9, step(3)]))
    assert steps_in(path) == [1]
    path.write_bytes(write_log([step(1)]) + b"\0" * 100)  # reserved by the file system, and never written
    assert steps_in(path) == [1]


def test_steps_and_the_best_model_of_all_files_of_a_run(tmp_path):
    files = {
        "offline-run-20260101_000000-abc/run-abc.wandb": [step(1), model(3.0), model(0.5, "dataset"), step(2)],
        "run-20260102_000000-abc/run-abc.wandb": [step(2), model(2.0), model(None), step(3)],
        "offline-run-20260101_000000-other/run-other.wandb": [step(9), model(1.0)],
    }
    for name, records in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(write_log(records))
    assert what_was_logged(tmp_path, "abc") == ({1, 2, 3}, 2.0)
    assert what_was_logged(tmp_path, "unknown") == (set(), math.inf)
    assert what_was_logged(tmp_path / "nowhere", "abc") == (set(), math.inf)
