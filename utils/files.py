"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its name at the end: `path` is never half of something.

    It is on the disk before the old one goes. Where writing fails, the old one stays and what was begun is removed.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)
        beside.unlink(missing_ok=True)
        raise
