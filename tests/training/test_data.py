"""Data that contradicts itself is noticed before training."""

import logging
import shutil
from types import SimpleNamespace

import pytest

from corpora.loading import load_labelled
from tests.conftest import make_toy_corpus
from training.data import warn_of_overlap, workers_that_fit


def load(root, train, dev):
    return load_labelled(root, {"train": train, "dev": [dev]}, "mean")


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "trained on as well" in record.getMessage()]


@pytest.mark.parametrize("how", ["name", "link", "copy", "renamed"])
def test_dev_among_train_under_any_name(tmp_path, how, caplog):
    root = make_toy_corpus(tmp_path, {"train": 12, "dev": 4})
    dev = "train"
    if how == "link":
        dev = "alias"
        (root / dev).symlink_to(root / "train")
    elif how in ("copy", "renamed"):
        dev = "copied"
        shutil.copytree(root / "train", root / dev)
        if how == "renamed":
            for path in list((root / dev).rglob("*.npy")):
                path.rename(path.with_name(f"x-{path.name}"))
    caplog.clear()
    warn_of_overlap(*load(root, ["train"], dev))
    (line,) = warnings(caplog)
    assert line.startswith("data.dev: 12 of 12 utterances are trained on as well")


def test_some_of_dev_among_train(tmp_path, caplog):
    root = make_toy_corpus(tmp_path, {"train": 12, "dev": 4})
    for kind in ("mfcc", "transcripts"):
        shutil.copy(root / "train" / kind / "train-003.npy", root / "dev" / kind / "dev-009.npy")
    warn_of_overlap(*load(root, ["train"], "dev"))
    assert "1 of 5 utterances" in warnings(caplog)[0]
    assert "dev-009" in warnings(caplog)[0]


def test_the_same_text_said_twice_is_no_overlap(toy_root, caplog):
    caplog.set_level(logging.INFO, "las")
    warn_of_overlap(*load(toy_root, ["train"], "dev"))
    assert warnings(caplog) == []


@pytest.mark.parametrize(("workers", "megabytes", "kept"), [(2, 64, 0), (2, 4096, 2), (0, 1, 0), (1, 64, 1)])
def test_workers_whose_batches_do_not_fit_in_shared_memory_are_left_out(workers, megabytes, kept, monkeypatch, caplog):
    found = SimpleNamespace(f_bavail=megabytes, f_frsize=2**20)
    monkeypatch.setattr("os.statvfs", lambda path: found, raising=False)
    assert workers_that_fit(workers, 16 * 2**20) == kept
    assert ("/dev/shm has 64 MB free and 2 of them may need 80 MB" in caplog.text) == (kept < workers)
