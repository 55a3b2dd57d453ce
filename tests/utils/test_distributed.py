"""Several processes train the model that one would, and decode to the same bytes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import SMALL
from utils.checkpoint import load_checkpoint
from utils.sampler import BucketSampler

HOME = Path(__file__).parents[2]
# Dropout would draw other masks for a share of a batch than for the whole of it.
STILL = [
    *SMALL,
    "model.listener.dropout=0.0",
    "model.speller.dropout=0.0",
    "training.epochs=3",
    "training.precision=float32",
]


def run(processes: int, *arguments: str, cwd=HOME, expect: int = 0) -> str:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, str(HOME / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == expect or (expect and result.returncode), result.stdout + result.stderr
    return result.stdout if expect == 0 else result.stderr


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_make_up_the_batches(size):
    lengths = np.random.default_rng(0).integers(10, 200, size=101).tolist()
    whole = BucketSampler(lengths, 8, seed=3, speed=0.1)
    shares = [BucketSampler(lengths, 8, 3, 0.1, rank, size) for rank in range(size)]
    for sampler in (whole, *shares):
        sampler.epoch = 2
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(parts)
        assert sorted(batch) == sorted(item for part in parts for item in part)
    assert {len(sampler) for sampler in (whole, *shares)} == {13}
    evaluated = [batch for rank in range(size) for batch in BucketSampler(lengths, 8, None, 0.0, rank, size)]
    assert sorted(item.position for batch in evaluated for item in batch) == list(range(101))


@pytest.fixture(scope="module")
def runs(toy_root, tmp_path_factory):
    """Runs of one, two and three processes, and of one that computes each batch in parts."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [*STILL, f"data.root={toy_root}", f"run.dir={folder}"]
    said = {size: run(size, "train.py", *arguments, f"run.name=of-{size}") for size in (1, 2, 3)}
    run(1, "train.py", *arguments, "run.name=parts", "training.accumulate=3")
    return folder, arguments, said


@pytest.mark.parametrize("name", ["of-2", "of-3", "parts"])
def test_the_loss_curve_is_that_of_one_process(runs, name):
    folder, _, said = runs
    alone, together = (pd.read_csv(folder / run / "metrics.csv") for run in ("of-1", name))
    for column in ("train_loss", "train_attention_loss", "train_ctc_loss", "gradient_norm", "dev_loss"):
        np.testing.assert_allclose(together[column], alone[column], rtol=2e-3)
    assert together["learning_rate"].tolist() == alone["learning_rate"].tolist()
    weights, expected = (load_checkpoint(folder / run / "last.pt")["model"] for run in (name, "of-1"))
    for key, value in weights.items():
        torch.testing.assert_close(value, expected[key], atol=5e-3, rtol=0)
    assert said[2].count("epoch   3: ") == 1  # the leader alone speaks
    assert "2 x CPU, " in said[2]


def test_decoding_to_the_same_bytes(runs, tmp_path):
    folder, arguments, _ = runs
    written = []
    for size in (1, 3):
        cwd = tmp_path / str(size)
        cwd.mkdir()
        run(size, "test.py", *arguments, "run.name=of-1", cwd=cwd)
        run(size, "test.py", *arguments, "run.name=of-1", "--split", "dev", cwd=cwd)
        files = (cwd / "submission.csv", folder / "of-1" / "predictions-dev.csv")
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_a_batch_too_small_to_share_is_refused(runs):
    _, arguments, _ = runs
    message = run(2, "train.py", *arguments, "run.name=tiny", "training.batch_size=3", expect=2)
    assert "training.batch_size: found 3, expected at least 4, since 2 processes share it" in message


# The process of rank 1 kills itself at its 17th batch, the first time it is started.
KILLED = """
import os, runpy, signal, sys
from training.step import Learner
step, calls = Learner.step, []
def counted(*arguments):
    calls.append(1)
    if os.environ["RANK"] == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" and len(calls) == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)
Learner.step = counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    return str(script), {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME)}


def test_a_process_that_is_killed_ends_the_others_with_a_message(toy_root, tmp_path, killed):
    """Without torchrun, which would stop them too."""
    script, environment = killed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, script, "train.py", *STILL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=k"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": HOME}
    processes = [
        subprocess.Popen(command, env={**environment, **meeting, "RANK": rank, "LOCAL_RANK": rank}, **pipes)
        for rank in "01"
    ]
    (_, complaint), _ = (process.communicate(timeout=120) for process in processes)
    assert [process.returncode for process in processes] == [2, -9]
    assert "error: process 0 of 2 lost another one (" in complaint
    assert "Traceback" not in complaint
    assert load_checkpoint(tmp_path / "k" / "last.pt")["epoch"] == 1


def test_torchrun_starts_a_killed_job_again_and_it_goes_on(runs, killed):
    """Within the epoch, from the checkpoint after the batch before; it ends as the job that was not killed."""
    folder, arguments, _ = runs
    script, environment = killed
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    more = ["run.name=again", "training.checkpoint_minutes=0.000001"]
    command = [*launch, script, "train.py", *arguments, *more]
    result = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "again after epoch 1 and 4 batches" in result.stdout
    resumed, whole = (load_checkpoint(folder / name / "last.pt") for name in ("again", "of-2"))
    assert resumed["epoch"] == 3
    for key, weights in whole["weights"].items():
        assert torch.equal(weights, resumed["weights"][key]), key
