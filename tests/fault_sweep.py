"""A sweep of injected faults: each open, read, write, fsync, rename, mmap and fork of each command fails once.

    python -m tests.fault_sweep                          # every site of every command; an hour or two
    python -m tests.fault_sweep --commands test report   # of some
    python -m tests.fault_sweep --sample 40 --seed 7     # some faults, drawn at random

A dry run lists the calls that a command makes on its own files, by the line of the project that leads to them. Then the
command runs once for each of these lines and each error that its call may give, and that one call fails. It has to go
on, or to end with exit code 2 and one message; checkpoints of before have to be whole; and the same command, run again,
has to come to the same result as if nothing had happened.

Calls are intercepted in Python: by audit hooks, where Python has them, and by a file class of our own. What libraries
write in C (numpy's arrays, sound files) is not. Python itself repeats calls that end with EINTR (PEP 475), so that no
program sees it.
"""

import argparse
import builtins
import errno
import io
import json
import mmap
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HOME = Path(__file__).parents[1]
ERRORS = {  # what each kind of call fails with
    "open": ("EIO", "ENOSPC", "EMFILE"),
    "read": ("EIO",),
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("ENOSPC", "EIO"),
    "mmap": ("ENOMEM",),
    "fork": ("ENOMEM", "EAGAIN"),
}
AUDITED = {"open": "open", "os.rename": "rename", "mmap.__new__": "mmap", "os.fork": "fork", "subprocess.Popen": "fork"}


class Fault(NamedTuple):
    """One call that fails."""

    kind: str
    site: str  # the line of the project that leads to the call, and the mode of an opened file
    error: str


# ----------------------------------------------------------------------------------------------------------- injection


class Injector:
    """Sees the calls of this process and its forks on files in `folder`; logs their sites, lets one of them fail once.

    Args:
        folder: of the files; calls on others are left alone.
        fault: the call that fails; None: none.
        log: file that gets a line, kind and site, for each call.
    """

    def __init__(self, folder: str, fault: Fault | None, log: str):
        self.folder, self.fault, self.active = os.path.realpath(folder), fault, False
        self.fired = mmap.mmap(-1, 1)  # shared by all forks
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def call(self, kind: str, path: object, mode: str = "") -> None:
        """A call of that kind is about to be made. Raises OSError if it is the one to fail."""
        if not self.active or (path is not None and not self._is_ours(path)):
            return
        site = self._site() + (f" {mode}" if mode else "")
        os.write(self.log, f"{kind}\t{site}\n".encode())
        if self.fault is not None and (kind, site) == self.fault[:2] and self.fired[0] == 0:
            self.fired[0] = 1
            number = getattr(errno, self.fault.error)
            raise OSError(number, os.strerror(number))

    def _is_ours(self, path: object) -> bool:
        try:
            name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)  # type: ignore
            return os.path.abspath(os.fsdecode(name)).startswith(self.folder)
        except (OSError, TypeError, ValueError):
            return False

    @staticmethod
    def _site() -> str:
        """The line of the project that makes the call, and the one of another file that it works for."""
        frame, lines = sys._getframe(2), dict[str, int]()
        while frame is not None and len(lines) < 2:
            name = frame.f_code.co_filename
            if name.startswith(f"{HOME}{os.sep}") and not name.startswith((f"{HOME}/tests", f"{HOME}/.venv")):
                lines.setdefault(os.path.relpath(name, HOME), frame.f_lineno)
            frame = frame.f_back
        return " < ".join(f"{name}:{line}" for name, line in lines.items()) or "elsewhere"

    def audit(self, event: str, arguments: tuple) -> None:
        kind = AUDITED.get(event)
        if kind is None or not self.active:
            return
        path = None if kind == "fork" else arguments[0]
        self.call(kind, path, str(arguments[1] or "") if event == "open" else "")


def _faulty_file(injector: Injector) -> type[io.FileIO]:
    class FaultyFile(io.FileIO):
        """A file whose reads and writes the injector sees."""

        def readinto(self, buffer: Any) -> int | None:
            injector.call("read", self.name)
            return super().readinto(buffer)

        def readall(self) -> bytes:
            injector.call("read", self.name)
            return super().readall()

        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            injector.call("read", self.name)
            return super().read(-1 if size is None else size)  # type: ignore[return-value]

        def write(self, data: Any) -> int | None:  # type: ignore[override]
            injector.call("write", self.name)
            return super().write(data)

    return FaultyFile


def _faulty_open(injector: Injector) -> Callable[..., Any]:
    real, faulty = io.open, _faulty_file(injector)

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if isinstance(file, int) or opener is not None or not injector._is_ours(file):
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        binary = "b" in mode
        raw = faulty(file, mode.replace("b", "").replace("t", ""))
        try:
            if buffering == 0:
                return raw
            both = raw.readable() and raw.writable()
            kind = io.BufferedRandom if both else io.BufferedWriter if raw.writable() else io.BufferedReader
            buffered = kind(raw)  # type: ignore[arg-type]
            text = None if binary else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)
        except BaseException:
            raw.close()
            raise
        if text is None:
            return buffered
        text.mode = mode  # type: ignore[misc]
        return text

    return opened


@contextmanager
def injected(description: str) -> Iterator[None]:
    """Context with an injector; its arguments as JSON. Only for a process that ends soon: audit hooks stay."""
    folder, fault, log = json.loads(description)
    injector = Injector(folder, fault and Fault(*fault), log)
    sys.addaudithook(injector.audit)
    opened, fsync = _faulty_open(injector), os.fsync

    def synced(number: int) -> None:
        injector.call("fsync", number)
        fsync(number)

    builtins.open = io.open = opened
    os.fsync = synced
    injector.active = True
    try:
        yield
    finally:
        injector.active = False


# ------------------------------------------------------------------------------------------------------------ commands


class Command(NamedTuple):
    """A command of the sweep."""

    script: str
    arguments: Callable[[Path], list[str]]  # for a folder with everything that it needs
    results: Sequence[str]  # patterns of the files that it makes
    again: Sequence[str] = ()  # arguments of the run after the fault


def _keys(folder: Path) -> list[str]:
    from tests.conftest import SMALL

    return [*SMALL, f"data.root={folder}/data", f"run.dir={folder}", "run.name=run", "decoding.beam_size=2"]


def _training(folder: Path) -> list[str]:
    return [*_keys(folder), "data.cache=mmap", "data.workers=1", "training.epochs=2"]


COMMANDS = {
    "train": Command("train.py", _training, ["run/last.pt", "run/best.pt"]),
    "test": Command(
        "test.py", lambda folder: [*_keys(folder), "--split", "dev"], ["run/predictions-*.csv"], ["--resume"]
    ),
    "submit": Command("test.py", lambda folder: [*_keys(folder), f"test.submission={folder}/s.csv"], ["s.csv"]),
    "tune": Command("tune.py", _keys, ["run/lm.pt", "run/decoding.yaml", "run/tuning.csv"]),
    "report": Command("report/__main__.py", lambda folder: [f"{folder}/run"], ["run/report.html"]),
    "folder": Command(
        "corpora/folder.py",
        lambda folder: [f"{folder}/audio", f"{folder}/table.tsv", f"{folder}/made", "--name", "train", "--jobs", "2"],
        ["made/**/*.npy"],
    ),
    "librispeech": Command(
        "corpora/librispeech.py", lambda folder: [f"{folder}/tree", f"{folder}/made", "--jobs", "2"], ["made/**/*.npy"]
    ),
    "demo": Command(
        "corpora/demo.py", lambda folder: [f"{folder}/demo", "--utterances", "16"], ["demo/*/transcripts/*"]
    ),
}


def prepare(folder: Path) -> None:
    """What all commands start from: a corpus, a run of one epoch, and speech."""
    import numpy as np
    import soundfile

    from tests.conftest import make_toy_corpus, run

    make_toy_corpus(folder / "data", {"train": 16, "dev": 3, "test": 2})
    for place in ("audio", "tree/train/1/2"):
        (folder / place).mkdir(parents=True)
        for number in range(3):
            soundfile.write(folder / place / f"1-2-{number}.wav", np.sin(np.arange(16000) / (9 + number)), 16000)
    (folder / "table.tsv").write_text("".join(f"1-2-{number}.wav\tHI\n" for number in range(3)))
    (folder / "tree/train/1/2/1-2.trans.txt").write_text("".join(f"1-2-{number} HI\n" for number in range(3)))
    run("train.py", *_keys(folder), "training.epochs=1")


# --------------------------------------------------------------------------------------------------------------- sweep


class Sweep:
    """Runs commands with faults in copies of one prepared folder, always at the same place, as runs know their paths.

    Args:
        folder: to work in, empty.
    """

    def __init__(self, folder: Path):
        self.folder, self.base, self.clean = folder / "work", folder / "base", folder / "clean"
        self.log = folder / "log.txt"
        self.results: dict[str, dict[str, Any]] = {}
        self.folder.mkdir(parents=True)
        prepare(self.folder)
        shutil.copytree(self.folder, self.base)

    def _run(self, command: Command, fault: Fault | None, more: Sequence[str] = (), log: Path | None = None) -> Any:
        from tests.conftest import _run_forked

        os.environ["NO_COLOR"] = "1"
        described = json.dumps([str(self.folder), fault, str(log or self.log)])
        script, arguments = str(HOME / command.script), [*command.arguments(self.folder), *more]
        return _run_forked(script, arguments, HOME, f"calls:{described}")

    def _reset(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.base, self.folder)

    def _results(self, command: Command) -> dict[str, Any]:
        found = {}
        for pattern in command.results:
            for path in sorted(self.folder.glob(pattern)):
                found[str(path.relative_to(self.folder))] = _content(path)
        return found

    def faults(self, name: str) -> list[Fault]:
        """All faults that a command can meet, from a dry run."""
        self._reset()
        self.log.unlink(missing_ok=True)
        done = self._run(COMMANDS[name], None)
        assert done.returncode == 0, done.stderr
        self.results[name] = self._results(COMMANDS[name])
        assert self.results[name], f"{name}: found no results"
        calls = dict.fromkeys(tuple(line.split("\t")) for line in self.log.read_text().splitlines())
        return [Fault(kind, site, error) for kind, site in calls for error in ERRORS[kind]]

    def trial(self, name: str, fault: Fault) -> str | None:
        """Runs a command with a fault, and again without; what is wrong with that, or None."""
        command = COMMANDS[name]
        self._reset()
        done = self._run(command, fault)
        problem = self._problem(done)
        if problem:
            return f"{problem}\n{done.stderr[-3000:]}"
        for path in ("run/last.pt", "run/best.pt"):
            if isinstance(_content(self.folder / path), str):
                return f"{path} is lost: {_content(self.folder / path)}"
        if done.returncode != 0:
            done = self._run(command, None, command.again)
            if done.returncode != 0:
                return f"run again, it ends with {done.returncode}\n{done.stderr[-3000:]}"
        if not _equal(self._results(command), self.results[name]):
            return f"it comes to other results\n{done.stdout[-2000:]}"
        return None

    @staticmethod
    def _problem(done: Any) -> str | None:
        if "Traceback" in done.stderr or "Exception ignored" in done.stderr:
            return f"a traceback, exit code {done.returncode}"
        if done.returncode not in (0, 2):
            return f"exit code {done.returncode}"
        messages = sum(line.startswith("error: ") for line in done.stderr.splitlines())
        return f"{messages} messages" if messages != (done.returncode == 2) else None


def _content(path: Path) -> Any:
    """What a result holds, without times; a text where it cannot be read."""
    if path.suffix == ".pt":
        import torch

        try:
            found = torch.load(path, weights_only=True)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return {key: found[key] for key in ("model", "weights", "epoch", "log_probs", "contexts") if key in found}
    if path.suffix == ".html":
        return path.exists()
    return path.read_bytes()


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
        )
    if hasattr(one, "shape"):
        return bool(one.shape == other.shape and (one == other).all())
    return bool(one == other)


def sample(faults: Sequence[tuple[str, Fault]], size: int, seed: int) -> list[tuple[str, Fault]]:
    """So many faults, of as many kinds and commands as there are."""
    drawn = random.Random(seed)
    groups: dict[tuple[str, str], list[tuple[str, Fault]]] = {}
    for name, fault in faults:
        groups.setdefault((name, fault.kind), []).append((name, fault))
    chosen: list[tuple[str, Fault]] = []
    while len(chosen) < size and any(groups.values()):
        for group in drawn.sample(list(groups), len(groups)):
            if groups[group] and len(chosen) < size:
                chosen.append(groups[group].pop(drawn.randrange(len(groups[group]))))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--kinds", nargs="+", choices=ERRORS, default=list(ERRORS))
    parser.add_argument("--sample", type=int, help="so many faults instead of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="no new fault after that")
    arguments = parser.parse_args()
    end, injected_, expected = time.monotonic() + 60 * arguments.minutes, Counter[tuple[str, str]](), Counter[Any]()
    with tempfile.TemporaryDirectory(prefix="fault-sweep-") as folder:
        sweep = Sweep(Path(folder))
        faults = [(name, fault) for name in arguments.commands for fault in sweep.faults(name)]
        faults = [(name, fault) for name, fault in faults if fault.kind in arguments.kinds]
        print(f"{len(faults)} faults", flush=True)
        for name, fault in sample(faults, arguments.sample or len(faults), arguments.seed):
            if time.monotonic() > end:
                break
            try:
                problem = sweep.trial(name, fault)
            except Exception:
                problem = traceback.format_exc()
            injected_[name, fault.kind] += 1
            expected[name, fault.kind] += problem is None
            if problem:
                print(f"{name}: {fault.error} at {fault.kind} {fault.site}: {problem}", flush=True)
    print("| command | " + " | ".join(arguments.kinds) + " |")
    print("|---" * (1 + len(arguments.kinds)) + "|")
    for name in arguments.commands:
        cells = (f"{expected[name, kind]} of {injected_[name, kind]}" for kind in arguments.kinds)
        print(f"| {name} | " + " | ".join(cells) + " |")
    sys.exit(int(expected.total() < injected_.total()))


if __name__ == "__main__":
    main()
