"""A sample of the sweep of injected faults, and that the sweep notices what it is for."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import HOME
from tests.fault_sweep import ERRORS, Fault, Sweep, sample

COMMANDS = ("train", "test", "folder")  # python -m tests.fault_sweep has all
FAULTS = 4

CALLS = """
import json, mmap, os, sys
from tests.fault_sweep import injected
folder, kind, mode = sys.argv[1:]
path, failed = folder + "/file", []
def attempt(name, call):
    try:
        return call()
    except OSError as error:
        failed.append((name, error.errno))
def write():
    with open(path, "w") as file:
        file.write("text")
def read():
    with open(path) as file:
        file.read()
def sync():
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
def map_():
    with open(path, "rb") as file:
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).close()
def fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()
write()
with injected(json.dumps([folder, [kind, "elsewhere" + mode, "EIO"], folder + "-log"])):
    for _ in range(2):
        for call in (write, read, sync, map_, fork, lambda: os.replace(path, path)):
            attempt(call.__name__, call)
print(json.dumps(failed))
"""


@pytest.mark.parametrize(
    ("kind", "mode", "fails"),
    [
        ("open", " w", "write"),
        ("open", " r", "read"),
        ("write", "", "write"),
        ("read", "", "read"),
        ("fsync", "", "sync"),
        ("mmap", "", "map_"),
        ("fork", "", "fork"),
        ("rename", "", "<lambda>"),
    ],
)
def test_one_call_fails_once(kind, mode, fails, tmp_path):
    assert kind in ERRORS
    line = [sys.executable, "-c", CALLS, str(tmp_path / "own"), kind, mode]
    (tmp_path / "own").mkdir()
    result = subprocess.run(line, cwd=HOME, capture_output=True, text=True)
    assert json.loads(result.stdout) == [[fails, 5]], result.stderr


@pytest.mark.parametrize(
    ("code", "stderr", "problem"),
    [
        (2, "error: no\n  Input/output error: of a\n", None),
        (0, "", None),
        (2, "", "0 messages"),
        (2, "error: a\nerror: b\n", "2 messages"),
        (0, "error: a\n", "1 messages"),
        (1, "", "exit code 1"),
        (2, "error: a\nTraceback (most recent call last):\n", "a traceback, exit code 2"),
    ],
)
def test_what_counts_as_expected(code, stderr, problem):
    assert Sweep._problem(SimpleNamespace(returncode=code, stderr=stderr)) == problem


def test_a_sample_has_every_kind():
    faults = [(name, Fault(kind, f"{number}", "EIO")) for name in "ab" for kind in ERRORS for number in range(9)]
    chosen = sample(faults, 14, 0)
    assert len({(name, fault.kind) for name, fault in chosen}) == 14
    assert chosen == sample(faults, 14, 0) != sample(faults, 14, 1)
    assert len(set(sample(faults, 1000, 0))) == len(faults)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return Sweep(tmp_path_factory.mktemp("sweep"))


def test_a_sample_of_faults_in_commands(sweep):
    """Each is one message or none, and a command that is run again comes to the result of an unbroken one."""
    faults = [(name, fault) for name in COMMANDS for fault in sweep.faults(name)]
    assert {fault.kind for _, fault in faults} == set(ERRORS)
    problems = {(name, fault): sweep.trial(name, fault) for name, fault in sample(faults, FAULTS, seed=0)}
    assert not {about: problem for about, problem in problems.items() if problem}
