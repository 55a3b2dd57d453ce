"""One process at a time writes the files of a run or of a corpus."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from utils.distributed import SINGLE_PROCESS, DistributedContext
from utils.errors import UserError

logger = logging.getLogger(f"las.{__name__}")


@contextmanager
def sole_writer(folder: Path, task: str, context: DistributedContext = SINGLE_PROCESS) -> Iterator[None]:
    """Context in which no other process does `task` in `folder`, which has to exist.

    The system frees the lock of a process that ends, however it ends. Rank 0 takes it for all ranks. Reading needs no
    lock: files are replaced as a whole, so a run can be decoded while it trains.

    Args:
        folder: of a run or a corpus.
        task: what is done there, a word such as "train": other tasks write other files.
        context: ranks that share the task.

    Raises:
        UserError: another process has the lock; on all ranks.
    """
    lock = FileLock(folder / f".{task}.lock", timeout=0)
    owner = folder / f".{task}.owner"  # beside the lock, which is emptied by whoever tries to take it
    refusal = None
    if context.is_main:
        try:
            lock.acquire()
            owner.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}))
        except Timeout:
            refusal = _refusal(folder, task, owner)
        except (OSError, NotImplementedError) as error:  # read-only, or a network drive without locks
            logger.warning(f"{folder}: cannot be locked ({error}): see that nothing else writes there")
    refusal = context.all_gather(refusal)[0]
    if refusal:
        raise UserError(refusal)
    try:
        yield
    finally:
        if lock.is_locked:
            owner.unlink(missing_ok=True)
            lock.release()


def _refusal(folder: Path, task: str, owner: Path) -> str:
    try:
        found = json.loads(owner.read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["since"]))
        who = f"process {found['pid']} on {found['host']}, since {since}"
    except (OSError, ValueError, TypeError, KeyError):  # it is just being written
        who = "another process"
    return (
        f"{folder}: found at work already: {task} ({who}), expected one at a time. Wait for it, end it, or choose "
        "another run.name or folder"
    )
