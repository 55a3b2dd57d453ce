"""What is no bug, in words."""

import errno
import subprocess
import sys

import pytest

from tests.conftest import HOME
from utils.failures import describe_exit, explain

OF_A_WORKER = "Caught OSError in DataLoader worker process 0.\nOriginal Traceback:\n  ...\nOSError: [Errno 5] no: 'a'"
MMAP = "unable to mmap 4096 bytes from file </torch_1>: Cannot allocate memory (12)"
SHM = "unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"
MEMORY, FILES, WORKER = (
    "the machine has no memory left",
    "no more files can be opened",
    "a process that prepares batches",
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(OF_A_WORKER), "OSError: [Errno 5] no: 'a'; what was written is whole"),
        (OSError(errno.ENOSPC, "full", "a"), "[Errno 28] full: 'a'; what was written is whole"),
        (MemoryError(), f"{MEMORY} (MemoryError)"),
        (OSError(errno.ENOMEM, "none"), MEMORY),
        (BlockingIOError(errno.EAGAIN, "no fork"), MEMORY),
        (RuntimeError(MMAP), MEMORY),
        (RuntimeError("can't start new thread"), MEMORY),
        (RuntimeError("could not create a primitive"), MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), MEMORY),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), MEMORY),
        (OSError(errno.EMFILE, "Too many", "a"), FILES),
        (RuntimeError("received 0 items of ancdata"), FILES),
        (RuntimeError(SHM), FILES),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore"), f"{WORKER} ended (DataLoader"),
        (ConnectionResetError(), f"{WORKER} ended (ConnectionResetError)"),
        (RuntimeError("a bug"), None),
        (ImportError("no module named torch"), None),
        (ValueError("[Errno 5]"), None),
        (OSError("a bug"), None),
        (OSError(errno.EPIPE, "a bug"), None),
    ],
)
def test_errors_of_the_machine_are_told_from_bugs(error, said):
    found = explain(error)
    assert found is None if said is None else found.startswith(said)
    assert found is None or "\n" not in found


def test_exits_in_words():
    assert (describe_exit(3), describe_exit(-9)) == ("exit code 3", "killed by SIGKILL")


LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_AS, (900_000_000,) * 2)
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_no_memory_to_load_torch_is_one_message():
    result = subprocess.run([sys.executable, "-c", LIMITED], cwd=HOME, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"error: {MEMORY}"), result.stderr
    assert result.stderr.count("\n") == 1
