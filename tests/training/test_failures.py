"""Something that a run stands on breaks while it trains: one message, and what was computed is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import SMALL, make_toy_corpus
from utils.checkpoint import load_checkpoint

HOME = Path(__file__).parents[2]
# train.py, with something done by its process before the 17th batch, the fifth of the second epoch.
BREAKING = """
import multiprocessing, os, runpy, signal, subprocess, sys
from training.step import Learner
step, calls, folder = Learner.step, [], os.environ["FOLDER"]
def counted(*arguments):
    calls.append(1)
    if len(calls) == 17:
        {what}
    return step(*arguments)
Learner.step = counted
sys.argv = sys.argv[1:]
runpy.run_path("train.py", run_name="__main__")
"""
KILL_A_WORKER = "os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)"
KILL_WANDB = """children = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True).stdout
        rows = [line.split() for line in children.splitlines()]
        (core,) = [int(row[0]) for row in rows if row[1] == str(os.getpid()) and row[2].startswith("wandb")]
        os.kill(core, signal.SIGKILL)"""
FILL_THE_DISK = 'os.symlink("/dev/full", os.path.join(folder, "last.pt.tmp"))'


@pytest.fixture
def go(toy_root, tmp_path):
    folder = tmp_path / "run"
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=run", "training.epochs=3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME), "FOLDER": str(folder)}

    def run(what: str, *more: str, expect: int):
        command = [sys.executable, "-c", BREAKING.replace("{what}", what), "train.py", *arguments, *more]
        result = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == expect, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        assert "Logging error" not in result.stderr
        return result

    return folder, run


def test_a_worker_of_the_loader_is_killed(go):
    folder, run = go
    result = run(KILL_A_WORKER, "data.workers=1", expect=2)
    assert result.stderr.count("error: ") == 1
    assert "error: a process that prepares batches ended (DataLoader worker (pid" in result.stderr
    assert load_checkpoint(folder / "last.pt")["epoch"] == 1
    resumed = run("pass", "data.workers=1", expect=0).stdout
    assert "resuming" in resumed
    assert load_checkpoint(folder / "last.pt")["epoch"] == 3


def test_wandb_dies_and_training_goes_on(go):
    folder, run = go
    result = run(KILL_WANDB, "wandb.mode=offline", expect=0)
    assert result.stdout.count("wandb: failed (") == 1
    assert "training goes on without it" in result.stdout
    assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [1, 2, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_the_disk_is_full(go):
    folder, run = go
    result = run(FILL_THE_DISK, expect=2)
    assert "No space left on device: " in result.stderr
    assert "last.pt'; what was written is whole" in result.stderr
    assert load_checkpoint(folder / "last.pt")["epoch"] == 1
    assert "after epoch 1" in run("pass", expect=0).stdout


def test_a_feature_file_is_damaged_after_the_check(toy_root, tmp_path):
    """With and without workers, whose exceptions come with their traceback."""
    root = make_toy_corpus(tmp_path / "data", {"train": 16, "dev": 2})
    code = (
        "import sys, runpy; from pathlib import Path; import dataset; check = dataset.load_labelled\n"
        "def checked(root, *arguments, **more):\n"
        "    corpora = check(root, *arguments, **more)\n"
        "    Path(root, 'train/mfcc/train-003.npy').write_bytes(b'')\n"
        "    return corpora\n"
        "dataset.load_labelled = checked; sys.argv = sys.argv[1:]\n"
        "runpy.run_path('train.py', run_name='__main__')"
    )
    content = (root / "train/mfcc/train-003.npy").read_bytes()
    for workers in (0, 1):
        (root / "train/mfcc/train-003.npy").write_bytes(content)
        keys = [*SMALL, f"data.root={root}", f"run.dir={tmp_path}", "data.cache=off", f"data.workers={workers}"]
        command = [sys.executable, "-c", code, "train.py", *keys]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)}
        result = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 2
        expected = "train-003.npy: found an empty file, expected a .npy array, as when it was checked"
        assert result.stderr == f"error: {root / 'train' / 'mfcc'}/{expected}\n"


@pytest.mark.parametrize(
    ("command", "keys"), [("train.py", ["run.dir={}/a"]), ("test.py", ["test.submission={}/a/s.csv"])]
)
def test_a_folder_that_cannot_be_written(command, keys, toy_root, tmp_path, make_las, small_settings):
    """A file stands where the folder should be: this fails for every user, as a read-only folder does for most."""
    from utils.checkpoint import save_checkpoint
    from utils.vocabulary import VOCABULARY

    (tmp_path / "file").write_text("")
    (tmp_path / "runs" / "las").mkdir(parents=True)
    features = {"dim": 12, "time_first": True, "normalize": "mean"}
    checkpoint = {"model": make_las().state_dict(), "model_settings": small_settings, "features": features}
    save_checkpoint(tmp_path / "runs" / "las" / "best.pt", {**checkpoint, "vocabulary": list(VOCABULARY), "epoch": 1})
    keys = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path / 'runs'}", *keys]
    line = [sys.executable, command, *(key.replace("{}", str(tmp_path / "file")) for key in keys)]
    result = subprocess.run(line, cwd=HOME, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "cannot" in result.stderr
    assert str(tmp_path / "file") in result.stderr
