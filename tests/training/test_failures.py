"""Something that a run stands on breaks while it trains: one message, and what was computed is kept."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import SMALL, make_toy_corpus, messages, run
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.vocabulary import KAGGLE

IN_EPOCH_2 = 17  # the fifth of its 12 steps


@pytest.fixture
def train(toy_root, tmp_path):
    """Trains three epochs with a fault; the folder of the run, and the function."""
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=run", "training.epochs=3"]

    def train(fault: str, *more: str, **options):
        return run("train.py", *arguments, *more, fault=fault, **options)

    return tmp_path / "run", train


def test_a_worker_of_the_loader_is_killed(train):
    folder, train = train
    result = train(f"kill_worker@{IN_EPOCH_2}", "data.workers=1", expect=2)
    assert result.stderr.count("error: ") == 1
    assert "error: a process that prepares batches ended (DataLoader worker (pid" in result.stderr
    assert result.stderr in messages(folder)
    assert load_checkpoint(folder / "last.pt")["epoch"] == 1
    assert "resuming" in train("", "data.workers=1").stdout
    assert load_checkpoint(folder / "last.pt")["epoch"] == 3


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("worker_hangs", 143, "stopped by SIGTERM after epoch 1"),
        ("worker_killed", 2, "error: a process that prepares batches ended ("),
        ("worker_crashes", 2, "error: a process that prepares batches ended ("),
        ("worker_exits", 2, "error: a process that prepares batches ended ("),
        ("worker_short_of_memory", 2, "error: the machine has no memory left (MemoryError)"),
        ("worker_cannot_read", 2, "error: OSError: [Errno 5] Input/output error: 'of-a-worker.npy'; what was"),
        ("worker_bug", 1, "error: this is a bug, its traceback follows: ZeroDivisionError: "),
    ],
)
def test_whatever_befalls_a_worker_the_command_ends(fault, code, said, train, monkeypatch):
    """With one message, and within seconds: a worker that never comes back is not waited for."""
    monkeypatch.setattr("tests.conftest.TIMEOUT", 60)  # the worker that hangs does so for longer
    folder, train = train
    result = train(f"{fault}@item:60", "data.workers=2", expect=code)  # of each worker: in the second epoch
    assert result.stderr.startswith(said)
    if code != 1:
        assert result.stderr.count("\n") == 1
    assert result.stderr.splitlines()[0] in messages(folder)
    assert load_checkpoint(folder / "last.pt")["epoch"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    ("fault", "workers", "said"),
    [
        ("no_files@checking:1", 0, "no more files can be opened ("),  # as corpora are read: no file is called bad
        ("no_files@checked:1", 2, "no more files can be opened ("),  # as workers are started
        ("little_memory@saved:1", 0, "the machine has no memory left ("),
    ],
)
def test_a_machine_with_little_to_spare_is_one_message(fault, workers, said, train):
    folder, train = train
    result = train(fault, f"data.workers={workers}", expect=2)
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1
    assert result.stderr in messages(folder)


def test_wandb_dies_and_training_goes_on(train):
    folder, train = train
    result = train(f"kill_wandb@{IN_EPOCH_2}", "wandb.mode=offline", fresh=True)
    (line,) = [line for line in result.stdout.splitlines() if "wandb: failed (" in line]
    assert line.startswith("warning: wandb: failed (")
    assert "training goes on without it" in line
    assert result.stderr == ""
    assert f"{line}\nTraceback (most recent call last):\n" in messages(folder)  # swallowed, but not lost
    assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [1, 2, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("workers", [0, 1])
def test_the_disk_is_full(workers, train):
    """As the second epoch, which is trained, is saved. Workers of the loader do not keep the command from ending."""
    folder, train = train
    result = train("fill_disk@save:3", f"data.workers={workers}", expect=2, fresh=True)
    assert "No space left on device: " in result.stderr
    assert "last.pt'; what was written is whole" in result.stderr
    assert result.stderr in messages(folder)
    assert load_checkpoint(folder / "last.pt")["epoch"] == 1
    assert "after epoch 1\n" in train("").stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_epoch_whose_checkpoint_cannot_be_written_is_not_announced(train):
    folder, train = train
    result = train("fill_disk@save:4", expect=2)
    assert "epoch   1: " in result.stdout
    assert "epoch   2: " not in messages(folder)
    assert load_checkpoint(folder / "last.pt")["partial"]["batch"] == 12


@pytest.mark.parametrize("workers", [0, 1])
def test_a_feature_file_is_damaged_after_the_check(workers, tmp_path):
    """With and without workers, whose exceptions come with their traceback."""
    root = make_toy_corpus(tmp_path / "data", {"train": 16, "dev": 2})
    keys = [*SMALL, f"data.root={root}", f"run.dir={tmp_path}", "data.cache=off", f"data.workers={workers}"]
    result = run("train.py", *keys, fault="damage_features@checked:1", expect=2)
    expected = "train-003.npy: found an empty file, expected a .npy array, as when it was checked"
    assert result.stderr == f"error: {root / 'train' / 'mfcc'}/{expected}\n"
    assert not (tmp_path / "las").exists()  # nothing was trained: a failed start leaves no folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_in_the_log_with_its_traceback(workers, train):
    folder, train = train
    train(f"fail@{IN_EPOCH_2}", f"data.workers={workers}", expect=1, fresh=True)  # it goes on to Python, which shows it
    log = messages(folder)
    assert "error: this is a bug, its traceback follows: ZeroDivisionError: a bug of the test's\nTraceback (" in log
    assert "in train_epoch" in log
    assert log.endswith("ZeroDivisionError: a bug of the test's\n")
    assert load_checkpoint(folder / "last.pt")["epoch"] == 1


@pytest.mark.parametrize(
    ("blocked", "message"),
    [
        ("report.html", "report.html: cannot be written (IsADirectoryError"),
        ("attention/epoch-001.json", "report.html: cannot keep epoch 1 for it (IsADirectoryError"),
    ],
)
def test_training_goes_on_where_the_report_cannot_be_written(blocked, message, train):
    """A folder stands where a file should be: a line on the console every time, and its traceback in the log."""
    folder, train = train
    (folder / blocked).mkdir(parents=True)
    result = train("", "training.epochs=2")
    lines = [line for line in result.stdout.splitlines() if "report.html: cannot" in line]
    assert len(lines) == 3  # after each epoch, and at the end
    assert message in lines[0]
    log = messages(folder)
    for line in lines:
        assert line.startswith("warning: ")
        assert f"{line}\nTraceback (most recent call last):\n" in log
    assert log.count("Traceback (") == 3
    assert "Traceback" not in result.stdout
    assert len(pd.read_csv(folder / "metrics.csv")) == 2


@pytest.mark.parametrize(
    ("command", "keys"), [("train.py", ["run.dir={}/a"]), ("test.py", ["test.submission={}/a/s.csv"])]
)
def test_a_folder_that_cannot_be_written(command, keys, toy_root, tmp_path, make_las, small_settings):
    """A file stands where the folder should be: this fails for every user, as a read-only folder does for most."""
    (tmp_path / "file").write_text("")
    (tmp_path / "runs" / "las").mkdir(parents=True)
    features = {"dim": 12, "time_first": True, "normalize": "mean"}
    checkpoint = {"model": make_las().state_dict(), "model_settings": small_settings, "features": features}
    save_checkpoint(
        tmp_path / "runs" / "las" / "best.pt", {**checkpoint, "vocabulary": list(KAGGLE.tokens), "epoch": 1}
    )
    keys = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path / 'runs'}", *keys]
    result = run(command, *(key.replace("{}", str(tmp_path / "file")) for key in keys), expect=2)
    assert "cannot" in result.stderr
    assert str(tmp_path / "file") in result.stderr
