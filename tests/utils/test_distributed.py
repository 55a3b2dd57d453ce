"""Several processes train the model that one would, and decode to the same bytes."""

import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import HOME, SMALL, command_line, environment, messages, run
from utils.checkpoint import load_checkpoint
from utils.distributed import check_ranks_agree
from utils.errors import UserError
from utils.sampler import BucketSampler

# Dropout would draw other masks for a share of a batch than for the whole of it.
STILL = [
    *SMALL,
    "model.listener.dropout=0.0",
    "model.speller.dropout=0.0",
    "training.epochs=3",
    "training.precision=float32",
]


def torchrun(
    processes: int, script: str, *arguments: str, cwd=HOME, fault="", options=(), expect: int = 0
) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *options]
    started = ["-m", "tests.faults", fault, str(HOME / script)] if fault else [str(HOME / script)]
    command = [sys.executable, *launcher, *started, *arguments]
    result = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == expect, result.stdout + result.stderr
    return result


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


@pytest.fixture(scope="module")
def runs(toy_root, tmp_path_factory):
    """Runs of one, two and three processes, and of one that computes each batch in parts."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [*STILL, f"data.root={toy_root}", f"run.dir={folder}"]
    shown = {size: torchrun(size, "train.py", *arguments, f"run.name=of-{size}").stdout for size in (2, 3)}
    run("train.py", *arguments, "run.name=of-1")
    run("train.py", *arguments, "run.name=micro-batches", "training.accumulate=3")
    return folder, arguments, shown


@pytest.mark.parametrize("name", ["of-2", "of-3", "micro-batches"])
def test_the_loss_curve_is_that_of_one_process(runs, name):
    folder, _, shown = runs
    alone, together = (pd.read_csv(folder / each / "metrics.csv") for each in ("of-1", name))
    for column in ("train_loss", "train_attention_loss", "train_ctc_loss", "gradient_norm", "dev_loss"):
        np.testing.assert_allclose(together[column], alone[column], rtol=2e-3)
    assert together["learning_rate"].tolist() == alone["learning_rate"].tolist()
    weights, expected = (load_checkpoint(folder / each / "last.pt")["model"] for each in (name, "of-1"))
    for key, value in weights.items():
        torch.testing.assert_close(value, expected[key], atol=5e-3, rtol=0)
    assert shown[2].count("epoch   3: ") == 1  # rank 0 alone logs it
    assert "2 x CPU, " in shown[2]


def test_decoding_to_the_same_bytes(runs, tmp_path):
    folder, arguments, _ = runs
    written = []
    for size in (1, 3):
        cwd = tmp_path / str(size)
        cwd.mkdir()
        for more in ((), ("--split", "dev")):
            line = ["test.py", *arguments, "run.name=of-1", *more]
            run(*line, cwd=cwd) if size == 1 else torchrun(size, *line, cwd=cwd)
        files = (cwd / "submission.csv", folder / "of-1" / "predictions-dev.csv")
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_a_batch_too_small_to_share_is_refused(runs):
    _, arguments, _ = runs
    result = torchrun(2, "train.py", *arguments, "run.name=tiny", "training.batch_size=3", expect=1)
    assert "training.batch_size: found 3, expected at least 4, since 2 processes share it" in result.stderr


class Gathered:
    """A context in which the ranks gave these values."""

    def __init__(self, *values):
        self.values = values

    def all_gather(self, value):
        return list(self.values)


def test_ranks_that_differ_are_told_in_what():
    check_ranks_agree(Gathered({"a": 1}, {"a": 1}), {"a": 1})
    with pytest.raises(UserError, match=r"rank 2 differs from rank 0, .*: b: 3, on rank 0 2; c: None, on rank 0 5$"):
        check_ranks_agree(Gathered({"a": 1, "b": 2, "c": 5}, {"a": 1, "b": 2, "c": 5}, {"a": 1, "b": 3}), {})


def test_ranks_with_other_settings_do_not_start(runs, tmp_path):
    """As with another command on a second machine: here the second process has another learning rate."""
    _, arguments, _ = runs
    script = tmp_path / "differ.py"
    script.write_text(
        "import os, runpy, sys\n"
        f"sys.argv = [{str(HOME / 'train.py')!r}, *sys.argv[1:]]\n"
        "if os.environ['RANK'] == '1':\n    sys.argv.append('training.learning_rate=1e-4')\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    result = torchrun(2, str(script), *arguments, "run.name=differ", expect=1)
    assert (
        "rank 1 differs from rank 0, expected the same command, data and code: training.learning_rate" in result.stderr
    )


KILLED = "kill-rank1@17"  # at its 17th batch of 12 per epoch, the first time it is started


def test_a_killed_process_ends_the_others_with_a_message(toy_root, tmp_path):
    """Without torchrun, which would stop them too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    keys = [*STILL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=k"]
    command = command_line("train.py", *keys, fault=KILLED)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": HOME}
    processes = [
        subprocess.Popen(command, env=environment(**rendezvous, RANK=rank, LOCAL_RANK=rank), **pipes) for rank in "01"
    ]
    (_, complaint), _ = (process.communicate(timeout=120) for process in processes)
    assert [process.returncode for process in processes] == [2, -9]
    assert "error: process 0 of 2 lost another one (" in complaint
    assert complaint in messages(tmp_path / "k")
    assert "Traceback" not in complaint
    assert load_checkpoint(tmp_path / "k" / "last.pt")["epoch"] == 1


def test_torchrun_starts_a_killed_job_again_and_it_goes_on(runs):
    """Within the epoch, from the checkpoint after the batch before; it ends as the job that was not killed."""
    folder, arguments, _ = runs
    more = ["run.name=again", "training.checkpoint_minutes=0.000001"]
    result = torchrun(2, "train.py", *arguments, *more, fault=KILLED, options=["--max-restarts=1"])
    assert "again after epoch 1 and 4 batches" in result.stdout
    resumed, whole = (load_checkpoint(folder / name / "last.pt") for name in ("again", "of-2"))
    assert resumed["epoch"] == 3
    for key, weights in whole["weights"].items():
        assert torch.equal(weights, resumed["weights"][key]), key


@pytest.mark.parametrize(("step", "batches"), [(17, 6), (24, 12)], ids=["training", "evaluation"])
def test_a_signal_to_one_process_stops_all_at_the_same_batch(runs, step, batches):
    """After the last batch of an epoch that is before evaluation."""
    folder, arguments, _ = runs
    name = f"stopped-{step}"
    result = torchrun(2, "train.py", *arguments, f"run.name={name}", fault=f"sigterm-rank1@{step}", expect=1)
    message = f"stopped by SIGTERM after epoch 1 and {batches} batches of 12; the same command goes on from there\n"
    assert result.stderr.count(message) == 2
    assert "lost another one" not in result.stderr
    stopped = load_checkpoint(folder / name / "last.pt")
    assert (stopped["epoch"], stopped["partial"]["batch"]) == (1, batches)
