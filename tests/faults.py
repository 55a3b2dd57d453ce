"""Fault injection: a command in which something breaks, or to which a signal is sent, at an exact step.

    python -m tests.faults FAULT@COUNT train.py ARGS...         # at the COUNTth training step
    python -m tests.faults FAULT@PLACE:COUNT train.py ARGS...   # at the COUNTth call of another function, see PLACES
    python -m tests.faults FAULT-rank1@COUNT train.py ARGS...   # on that rank alone, and not again after a restart

FAULTS has them all. Within a process: `with injected("interrupt@save:3"): ...`.
"""

import errno
import importlib
import itertools
import multiprocessing
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info


class Place(NamedTuple):
    """A function at whose calls faults are injected: before it runs, or after."""

    module: str
    name: str  # of a function of the module, or Class.method
    after: bool = False


PLACES = {
    "step": Place("training.step", "TrainStep.__call__"),
    "evaluation": Place("training.evaluate", "ctc_greedy"),  # once per batch, if there is a CTC branch
    "record": Place("training.recorder", "Recorder.record"),
    "save": Place("training.resume", "Checkpointer.save"),
    "saved": Place("training.resume", "Checkpointer.save", after=True),
    "checking": Place("training.data", "load_labelled"),
    "checked": Place("training.data", "load_labelled", after=True),
    "item": Place("dataset", "FeatureDataset.__getitem__"),  # in each worker by itself
    "decoded": Place("decoding.resume", "PartialResults.add", after=True),
}


class Call(NamedTuple):
    """A call of the function of a place."""

    arguments: tuple[Any, ...]
    result: Any  # None before it has run


# -------------------------------------------------------------------------------------------------------------- faults


def kill_worker(call: Call) -> None:
    """The system kills a worker of the loader, as it does where memory is short."""
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(60)  # torch notices within it and raises


def _in_a_worker(act: Callable[[], object]) -> Callable[[Call], None]:
    return lambda call: act() if get_worker_info() is not None else None


def hang() -> None:
    """As on a disk that does not answer; somebody then ends the command, with one signal."""
    if get_worker_info().id == 0:
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(1000)


def no_files(call: Call) -> None:
    """ulimit -n: what is open is all that may be."""
    there = max(int(name) for name in os.listdir("/dev/fd"))
    while os.open(os.devnull, os.O_RDONLY) <= there:
        pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (there + 2,) * 2)


def little_memory(call: Call) -> None:
    """ulimit -v: what the process has is all that it may have."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)


def out_of_memory() -> None:
    raise MemoryError


def disk_fails() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), "of-a-worker.npy")


def kill_wandb(call: Call) -> None:
    """wandb's service dies."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True).stdout
    processes = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    (service,) = (int(pid) for pid, parent, name in processes if int(parent) == os.getpid() and "wandb" in name)
    os.kill(service, signal.SIGKILL)


def fill_disk(call: Call) -> None:
    """Nothing can be written to last.pt any more; at `save`."""
    from utils.files import temporary_name

    temporary_name(call.arguments[0].folder / "last.pt").symlink_to("/dev/full")


def damage_features(call: Call) -> None:
    """A feature file of the training corpus becomes empty; at `checked`."""
    train, _ = call.result
    train.paths[3].write_bytes(b"")


def fail(call: Call) -> None:
    """A bug."""
    raise ZeroDivisionError("a bug of the test's")


def interrupt(call: Call) -> None:
    raise KeyboardInterrupt


def _signal_group(number: signal.Signals) -> Callable[[Call], None]:
    """The signal reaches the whole process group, as from a terminal or from `timeout`."""
    return lambda call: os.killpg(os.getpgrp(), number)


FAULTS = {
    "kill": lambda call: os.kill(os.getpid(), signal.SIGKILL),
    "killgroup": _signal_group(signal.SIGKILL),
    "sigterm": _signal_group(signal.SIGTERM),
    "sigint": _signal_group(signal.SIGINT),
    "interrupt": interrupt,
    "fail": fail,
    "kill_worker": kill_worker,
    "worker_hangs": _in_a_worker(hang),
    "worker_killed": _in_a_worker(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "worker_crashes": _in_a_worker(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    "worker_exits": _in_a_worker(lambda: os._exit(3)),
    "worker_short_of_memory": _in_a_worker(out_of_memory),
    "worker_cannot_read": _in_a_worker(disk_fails),
    "worker_bug": _in_a_worker(lambda: 1 / 0),
    "no_files": no_files,
    "little_memory": little_memory,
    "kill_wandb": kill_wandb,
    "fill_disk": fill_disk,
    "damage_features": damage_features,
}


# ----------------------------------------------------------------------------------------------------------- injection


@contextmanager
def injected(description: str) -> Iterator[None]:
    """Context with a fault, such as kill@17, sigterm@evaluation:2 or kill-rank1@17; an empty description is none."""
    if not description:
        yield
        return
    if description.startswith("calls:"):
        from tests import fault_sweep  # which imports this module

        with fault_sweep.injected(description.removeprefix("calls:")):
            yield
        return
    match = re.fullmatch(r"(\w+)(?:-rank(\d+))?@(?:(\w+):)?(\d+)", description)
    if match is None:
        raise ValueError(f"{description}: expected FAULT@COUNT or FAULT@PLACE:COUNT")
    fault, rank, place, count = match.groups()
    act, (module, name, after) = FAULTS[fault], PLACES[place or "step"]
    here = rank is None or (os.environ.get("RANK"), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == (rank, "0")
    owner = importlib.import_module(module)
    *classes, name = name.split(".")
    for outer in classes:
        owner = getattr(owner, outer)
    function, calls = getattr(owner, name), itertools.count(1)

    def counted(*arguments, **more):
        now = next(calls) == int(count) and here
        if now and not after:
            act(Call(arguments, None))
        result = function(*arguments, **more)
        if now and after:
            act(Call(arguments, result))
        return result

    setattr(owner, name, counted)
    try:
        yield
    finally:
        setattr(owner, name, function)


def run_script(script: str, *arguments: str, fault: str = "") -> None:
    """Runs a script as Python would, with a fault if there is one."""
    sys.argv = [script, *arguments]
    with injected(fault):
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    if os.getpgrp() != os.getpid():
        os.setsid()  # a signal to the group is not for whoever started this
    sys.path.insert(0, str(Path(__file__).parents[1]))
    run_script(*sys.argv[2:], fault=sys.argv[1])
