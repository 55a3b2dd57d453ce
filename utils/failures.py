"""What is no bug although no module foresaw it: a disk, memory or a process that fails. Each is one message.

Nothing heavy is imported here, so that a command can say it before torch is there, or where torch cannot be loaded.
"""

import errno
import re
import signal
import sys

NAMES = (  # a disk that is full, read-only, taken away or worn out, or a machine without anything to spare
    *("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EFBIG", "ENXIO"),
    *("ENODEV", "ENOMEDIUM", "EREMOTEIO", "EHOSTDOWN", "EHOSTUNREACH", "EUCLEAN", "ENOMEM", "EMFILE", "ENFILE"),
    *("EAGAIN", "EINTR"),
)
DISK_ERRORS = frozenset(getattr(errno, name) for name in NAMES if hasattr(errno, name))  # Windows and macOS lack some
SHORTAGES = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})  # of the machine, whatever the file
OUT_OF_MEMORY = (  # in messages of RuntimeError, where torch has no exception of its own
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
)
SHORT_OF_MEMORY = (  # in messages of others, and of libraries, which may mean something else as well
    *OUT_OF_MEMORY,
    "can't start new thread",
    "failed to map segment from shared object",
    "could not create a primitive",
    "Cannot allocate memory",
)
SHORT_OF_FILES = ("Too many open files", "received 0 items of ancdata")
WHOLE = "What was written is whole: the same command continues"


def explain(error: BaseException) -> str | None:
    """The message on an error of the machine; None if `error` is none that is known, and so a bug."""
    text = _last_line(error)
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return dead_worker(str(error).splitlines()[0].strip())
    if isinstance(error, ConnectionResetError):  # from the pipe to a worker, where torch has not noticed yet
        return dead_worker(text)
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding() != "utf-8":
        name = str(error.object)[:100].encode("ascii", "backslashreplace").decode()
        return f"{name}: found a name that this system cannot express in {error.encoding}: set PYTHONUTF8=1"
    number = _errno(error, text)
    if number in (errno.EMFILE, errno.ENFILE) or (isinstance(error, RuntimeError) and _has(text, SHORT_OF_FILES)):
        return f"no more files can be opened ({text}): fewer data.workers need less, ulimit -n allows more. {WHOLE}"
    memory = isinstance(error, RuntimeError | ImportError) and _has(text, SHORT_OF_MEMORY)
    if isinstance(error, MemoryError) or number in (errno.ENOMEM, errno.EAGAIN) or memory:
        return (
            f"the machine has no memory left ({text}): a smaller training.batch_size, fewer data.workers and "
            f"data.cache=mmap need less, ulimit -v and ulimit -u may limit it. {WHOLE}"
        )
    if number in DISK_ERRORS:
        return f"{text}; what was written is whole: make room or mend that, run it again"
    return None


def dead_worker(reason: str) -> str:
    """The message on a worker of the data loader that has ended, for that `reason`."""
    return (
        f"a process that prepares batches ended ({reason}): mostly the machine has no memory left, where "
        f"data.cache=mmap or fewer data.workers help. {WHOLE}"
    )


def describe_exit(code: int) -> str:
    """A process's exit code in words; minus the number of a signal is that signal."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _has(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)


def _last_line(error: BaseException) -> str:
    """What an error says; one that arrives from a worker comes with the worker's traceback before it."""
    lines = str(error).strip().splitlines() or [""]
    text = lines[-1] if lines[0].startswith("Caught ") else " ".join(" ".join(lines).split())
    return text.strip()[:300] or type(error).__name__


def _errno(error: BaseException, text: str) -> int | None:
    """The error number, also of an OSError from a worker and of torch's RuntimeError, which have it in their text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if not isinstance(error, OSError | RuntimeError):
        return None
    found = re.search(r"\[Errno (\d+)\]", text) or re.search(r": [A-Z][a-z ]+ \((\d+)\)$", text)
    return int(found[1]) if found else None
