"""A small learnable corpus, settings small enough to train on it in seconds, and how tests run the commands."""

import logging
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from config import load_config
from decoding import transcribe
from models.las import LAS
from tests.faults import run_script
from utils.vocabulary import KAGGLE

HOME = Path(__file__).parents[1]
TIMEOUT = 300  # seconds for a command
PROJECT = logging.getLogger("las")
transcribe.MAX_FRAMES = 500  # the corpora of tests are decoded in several batches, as real ones are
SMALL = [
    "data.train=[train]",
    "data.dev=dev",
    "data.test=test",
    "data.workers=0",
    "model.listener={conv: [{channels: 32, kernel: 3, stride: 2}], blstm_layers: 1, pblstm_layers: 1, hidden: 32, "
    "dropout: 0.1}",
    "model.attention={kind: location, heads: 1, dim: 32}",
    "model.speller={embedding: 32, hidden: 64, layers: 1, input_feeding: true, dropout: 0.1}",
    "augment.from_epoch=2",
    "augment.frequency_width=2",
    "training.batch_size=8",
    "training.guided_attention=0.0",
    "training.learning_rate=5e-3",
    "training.warmup_epochs=0.5",
    "wandb.mode=disabled",
]


@pytest.fixture(autouse=True)
def project_logging(caplog) -> Iterator[None]:
    """caplog has the project's messages from INFO on; the handlers of a command run in this process are removed."""
    caplog.set_level(logging.INFO, logger=PROJECT.name)
    before = PROJECT.handlers[:]
    yield
    for handler in PROJECT.handlers[:]:
        if handler not in before:
            PROJECT.removeHandler(handler)
            handler.close()


# ------------------------------------------------------------------------------------------------------------ commands


def run(
    script: str, *arguments: str, cwd: Path = HOME, fault: str = "", expect: int = 0, fresh: bool = False
) -> subprocess.CompletedProcess:
    """A command in a process and a session of its own; fails unless it ends with the exit code `expect`.

    Args:
        script: train.py, test.py or tune.py.
        arguments: of the script.
        cwd: working directory.
        fault: that happens to it, see tests/faults.py.
        expect: exit code, 1 for a bug that Python shows, or minus the number of the signal that ends it.
        fresh: whether to start a new interpreter; False forks one that has imported torch, which saves two seconds.
    """
    result = (_run_fresh if fresh else _run_forked)(str(HOME / script), arguments, cwd, fault)
    assert result.returncode == expect, result.stdout + result.stderr
    assert ("Traceback" in result.stderr) == (expect == 1)
    assert "Logging error" not in result.stderr
    return result


def environment(**more: str) -> dict[str, str]:
    """Environment of a command; sums depend on how threads split them, so each has one."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME), **more}


def command_line(script: str, *arguments: str, fault: str = "") -> list[str]:
    """Starts a script in an interpreter of its own."""
    return [sys.executable, *(["-m", "tests.faults", fault] if fault else []), script, *arguments]


def _run_fresh(script: str, arguments: Sequence[str], cwd: Path, fault: str) -> subprocess.CompletedProcess:
    line = command_line(script, *arguments, fault=fault)
    streams = {"capture_output": True, "text": True}
    return subprocess.run(line, cwd=cwd, env=environment(), timeout=TIMEOUT, start_new_session=True, **streams)


def _run_forked(script: str, arguments: Sequence[str], cwd: Path, fault: str) -> subprocess.CompletedProcess:
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdout", "stderr")]
        for stream in streams:
            stream.touch()
        process = fork_context().Process(
            target=_in_a_fork, args=(script, arguments, cwd, fault, environment(), streams)
        )
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
            pytest.fail(f"{script} {fault}: still running after {TIMEOUT} s")
        written = [stream.read_text(encoding="utf-8", errors="backslashreplace") for stream in streams]
    return subprocess.CompletedProcess([script, *arguments], process.exitcode, *written)


def fork_context() -> multiprocessing.context.BaseContext:
    """Starts processes as forks of one that has imported everything and has computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.conftest", "train", "test", "tune"])
    return context


def _in_a_fork(
    script: str, arguments: Sequence[str], cwd: Path, fault: str, variables: dict[str, str], streams: Sequence[Path]
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # workers of the loader are started as everywhere else
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY), number)
    code: object = 0
    try:
        run_script(script, *arguments, fault=fault)
    except SystemExit as ended:
        code = ended.code
    sys.exit(code)  # only here, where the frames of the script and the workers of its loader are gone


def messages(folder: Path) -> str:
    """A run's train.log without its dates."""
    return re.sub(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", (folder / "train.log").read_text(encoding="utf-8"))


class Trained(NamedTuple):
    """A run that has learned toy speech."""

    folder: Path
    arguments: list[str]  # that made it
    stdout: str


@pytest.fixture(scope="session")
def trained(toy_root, tmp_path_factory) -> Trained:
    """Of 24 epochs, in an interpreter of its own, as a person starts it."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={folder}", "run.name=toy", "training.epochs=24"]
    return Trained(folder / "toy", arguments, run("train.py", *arguments, fresh=True).stdout)


# -------------------------------------------------------------------------------------------------------------- corpus


def write_utterance(folder: Path, name: str, text: str, features: np.ndarray) -> None:
    """A pair of files in the layout of F23."""
    for kind in ("mfcc", "transcripts"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    np.save(folder / "mfcc" / f"{name}.npy", features)
    np.save(folder / "transcripts" / f"{name}.npy", np.array(["<sos>", *text, "<eos>"]))


def speak(text: str, generator: np.random.Generator, dim: int = 12) -> np.ndarray:
    """Toy speech: each character is a fixed pattern that lasts 8 to 11 frames, in noise."""
    patterns = np.random.default_rng(0).normal(size=(128, dim))
    frames = [patterns[ord(character) % len(patterns)] for character in text for _ in range(generator.integers(8, 12))]
    return (np.array(frames) + 0.1 * generator.normal(size=(len(frames), dim))).astype(np.float32)


def draw_text(generator: np.random.Generator, letters: str, shortest: int, longest: int) -> str:
    """No letter is doubled: at 8 to 11 frames a letter, a fast pair and a slow single one would sound alike."""
    drawn = generator.choice(list(letters), size=generator.integers(shortest, longest + 1))
    return "".join(letter for letter, _ in groupby(drawn))


def make_toy_corpus(root: Path, sizes: dict[str, int], letters: str = "ABCDE '") -> Path:
    generator = np.random.default_rng(1)
    for partition, size in sizes.items():
        for number in range(size):
            text = draw_text(generator, letters, 2, 8)
            write_utterance(root / partition, f"{partition}-{number:03d}", text, speak(text, generator))
    return root


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory) -> Path:
    """Partitions train, dev and test (without transcripts) of toy speech."""
    root = make_toy_corpus(tmp_path_factory.mktemp("toy"), {"train": 96, "dev": 12, "test": 9})
    for path in (root / "test" / "transcripts").iterdir():
        path.unlink()
    (root / "test" / "transcripts").rmdir()
    return root


@pytest.fixture
def small_settings() -> dict:
    """Keyword arguments of a small LAS with a CTC branch."""
    return {**load_config(overrides=SMALL).model.model_dump(), "ctc": True}


@pytest.fixture
def make_las(small_settings):
    """Builds a small LAS in evaluation mode; `scale` above 1 makes its choices clearer than chance weights do."""

    def make(seed: int = 0, scale: float = 1.0, feature_dim: int = 12, **sections) -> LAS:
        torch.manual_seed(seed)
        settings = {
            name: {**value, **sections.get(name, {})} if isinstance(value, dict) else sections.get(name, value)
            for name, value in small_settings.items()
        }
        model = LAS(feature_dim, len(KAGGLE), **settings).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        return model

    return make


@pytest.fixture
def speech():
    """Three utterances of 41, 30 and 9 frames, padded with what must never be read."""
    torch.manual_seed(5)
    features, lengths = torch.randn(3, 41, 12), torch.tensor([41, 30, 9])
    for row, length in enumerate(lengths):
        features[row, length:] = 1e3
    return features, lengths
