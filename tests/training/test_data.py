"""Data that contradicts itself is noticed before training."""

import logging
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from corpora.loading import load_labelled
from corpora.packing import MappedFeatures
from tests.conftest import make_toy_corpus
from training import data as module
from training.data import load_training_data, warn_of_overlap, workers_that_fit
from utils.distributed import DistributedContext
from utils.errors import UserError

AUGMENTATION = {
    "from_epoch": 1,
    "vocal_tract": 0.0,
    "frequency_masks": 0,
    "frequency_width": 0,
    "time_masks": 0,
    "time_width": 0,
    "time_fraction": 0.0,
}


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
    first = "x-train-000" if how == "renamed" else "train-000"
    assert line.startswith(f"data.dev: 12 of 12 utterances are trained on as well, such as {first}: ")


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


def load_all(root, folder, **changed):
    settings = {
        "root": str(root),
        "train": ["train"],
        "dev": "dev",
        "normalize": "mean",
        "loading": {},
        "character_limit": lambda frames: frames,
        "batch_size": 4,
        "workers": 0,
        "seed": 0,
        "speed": 0.0,
        "concatenate": 0.0,
        "augmentation": AUGMENTATION,
        "resumed": None,
        "reports": folder,
        "device": torch.device("cpu"),
        "context": DistributedContext(),
    }
    return load_training_data(**(settings | changed))


def test_the_largest_batch_is_of_the_longest_utterance_at_its_slowest(toy_root, tmp_path, monkeypatch):
    asked, shared = [], []
    monkeypatch.setattr(module, "workers_that_fit", lambda *arguments: asked.append(arguments) or 0)
    share = module.share_of_batches
    monkeypatch.setattr(module, "share_of_batches", lambda *arguments: shared.append(arguments) or share(*arguments))
    data = load_all(toy_root, tmp_path, batch_size=5, workers=3, speed=0.2)
    assert asked == [(3, int(5 * max(data.train.lengths) / 0.8 * 12 * 4))]  # float32 of 12 dimensions
    assert [arguments[:2] for arguments in shared] == [(data.dev.lengths, 1)]  # greedy decoding: one hypothesis


@pytest.mark.parametrize(("size", "ranks", "fits"), [(3, 2, False), (4, 2, True), (5, 3, False), (1, 1, True)])
def test_every_rank_has_two_utterances_of_a_batch(size, ranks, fits, toy_root, tmp_path, monkeypatch):
    def reached(*arguments, **settings):
        raise InterruptedError

    monkeypatch.setattr(module, "load_labelled", reached)
    monkeypatch.setattr(DistributedContext, "main_process_first", lambda context: nullcontext())
    words = rf"training\.batch_size: found {size}, expected at least {2 * ranks}, since {ranks} processes share"
    with pytest.raises(InterruptedError if fits else UserError, match=None if fits else words):
        load_all(toy_root, tmp_path, batch_size=size, context=DistributedContext(0, ranks))


@pytest.mark.parametrize(("forks", "workers", "mapped"), [(False, 1, True), (False, 0, False), (True, 1, False)])
def test_spawned_workers_are_no_copies_of_the_corpus(toy_root, tmp_path, monkeypatch, caplog, forks, workers, mapped):
    """They would each hold all features that are kept in memory, so these are mapped, and the log says so."""
    caplog.set_level(logging.INFO, "las")
    for name in ("dataset", "training.data"):
        monkeypatch.setattr(f"{name}.WORKERS_FORK", forks)
    data = load_all(toy_root, tmp_path, loading={"cache": "ram", "cache_folder": tmp_path / "cache"}, workers=workers)
    assert isinstance(data.train.features, MappedFeatures) == mapped
    assert ("data.cache: mmap, since each worker" in caplog.text) == mapped


@pytest.mark.parametrize(("workers", "megabytes", "kept"), [(2, 64, 0), (2, 4096, 2), (0, 1, 0), (1, 64, 1)])
def test_workers_whose_batches_do_not_fit_in_shared_memory_are_left_out(workers, megabytes, kept, monkeypatch, caplog):
    found = SimpleNamespace(f_bavail=megabytes, f_frsize=2**20)
    monkeypatch.setattr("os.statvfs", lambda path: found, raising=False)
    assert workers_that_fit(workers, 16 * 2**20) == kept
    assert ("/dev/shm has 64 MB free and 2 of them may need 80 MB" in caplog.text) == (kept < workers)
