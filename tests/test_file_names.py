"""Data that people link together and name as they like: train.py and test.py work, or say what is wrong."""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corpora.layout import find_partition
from corpora.loading import load_corpus
from report.attention_maps import save_attention_maps
from tests.conftest import PROJECT, SMALL, draw_text, make_toy_corpus, messages, run, speak, write_utterance
from training.evaluate import AttentionMap
from utils.logging import add_log_file, setup_logging

NAMES = ["with space", "ünïcödé 语音", "new\nline", "-rf", "a,b", 'quote"s', "per%cent", "dots.in.it", "$x_{ $"]
NAMES += ["trailing ", "=1+1"]
NOT_UTF8 = os.fsdecode(b"latin-\xe9")


def write_partitions(root: Path, names: list[str]) -> None:
    generator = np.random.default_rng(0)
    for partition in ("train", "dev", "test"):
        for name in names:
            text = draw_text(generator, "ABCDE '", 2, 8)
            write_utterance(root / partition, name, text, speak(text, generator))
    for path in (root / "test" / "transcripts").iterdir():
        path.unlink()
    (root / "test" / "transcripts").rmdir()


def test_names_of_all_kinds_are_trained_on_and_decoded(tmp_path):
    """A folder with a line break in it, links out of it, one file that is a link, and names that are no UTF-8."""
    root = tmp_path / "data\nof mine ü"
    names = [*NAMES, NOT_UTF8]
    write_partitions(tmp_path / "elsewhere", names)
    root.mkdir()
    for partition in ("train", "dev", "test"):
        (root / partition).symlink_to(tmp_path / "elsewhere" / partition)
    linked = tmp_path / "elsewhere" / "dev" / "mfcc" / "a,b.npy"
    linked.rename(tmp_path / "far away.npy")
    linked.symlink_to(tmp_path / "far away.npy")
    keys = [*SMALL, f"data.root={root}", f"run.dir={tmp_path}", "run.name=names", "training.epochs=1"]
    for cache in ("mmap", "off"):
        run("train.py", *keys, f"data.cache={cache}", f"run.name={cache}", "training.learning_rate=1e-3", cwd=tmp_path)
    keys += ["run.name=mmap"]
    run("test.py", *keys, "--split", "dev", cwd=tmp_path)
    table = pd.read_csv(
        tmp_path / "mmap" / "predictions-dev.csv", keep_default_na=False, encoding_errors="surrogateescape"
    )
    assert sorted(table["id"]) == sorted(names)
    run("test.py", *keys, cwd=tmp_path)
    assert len(pd.read_csv(tmp_path / "submission.csv")) == len(names)


@pytest.mark.parametrize("name", [*NAMES, NOT_UTF8])
def test_a_name_on_a_picture_and_on_screen(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(PROJECT, "propagate", False)  # pytest-xdist cannot send such a name with its captured log
    save_attention_maps(tmp_path / "map.png", [AttentionMap(name, ["A", "<eos>"], np.eye(2), 0.5)], name)
    assert (tmp_path / "map.png").stat().st_size
    setup_logging()
    add_log_file(tmp_path / "train.log")
    logging.getLogger("las.tests").info(f"skipped {name}")
    assert "skipped " in capsys.readouterr().out
    assert messages(tmp_path).startswith("skipped ")


@pytest.mark.parametrize("cache", ["ram", "mmap"])
def test_a_link_to_nothing_is_a_finding(cache, tmp_path, caplog):
    root = make_toy_corpus(tmp_path / "data", {"train": 5})
    (root / "train" / "mfcc" / "train-002.npy").unlink()
    (root / "train" / "mfcc" / "train-002.npy").symlink_to(tmp_path / "gone.npy")
    (root / "train" / "mfcc" / "train-003.npy").unlink()
    (root / "train" / "mfcc" / "train-003.npy").mkdir()
    reading = {"cache": cache, "cache_folder": tmp_path / "packed", "skip_bad": True}
    corpus = load_corpus([find_partition(root, "train")], "mean", **reading)
    assert len(corpus) == 3
    (report,) = (line for line in caplog.messages if "going on without them" in line)
    assert "train-002.npy': found no file" in report
    assert "train-003.npy': found " in report


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda root: (root / "dev" / "mfcc").rename(root / "dev" / "other"), "dev/mfcc: found no such folder"),
        (lambda root: [path.unlink() for path in (root / "dev" / "mfcc").iterdir()], "dev/mfcc: found no .npy file"),
        (lambda root: (root / "dev").rename(root / "DEV"), "found no such folder; partitions that are there: "),
        (lambda root: root.rename(root.with_name("moved")), "data.root: found no folder"),
        (lambda root: (root.rename(root.with_name("x")), root.write_text("")), "data.root: found no folder"),
    ],
    ids=["features", "files", "partition", "root", "a file"],
)
def test_missing_folders_are_one_message(broken, words, tmp_path):
    root = make_toy_corpus(tmp_path / "data", {"train": 4, "dev": 4})
    broken(root)
    result = run("train.py", *SMALL, f"data.root={root}", f"run.dir={tmp_path}", cwd=tmp_path, expect=2)
    assert words in result.stderr
    assert result.stderr.count("error: ") == 1
