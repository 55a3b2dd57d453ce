"""A folder of audio and a table to a partition in the Kaggle layout."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.folder import find_utterances
from corpora.layout import find_partition
from corpora.loading import load_corpus
from utils.errors import UserError
from utils.features import read_feature_config

HOME = Path(__file__).parents[2]


def write(root, table):
    for name in ("a.wav", "sub folder/b.flac", "c.ogg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, 0.1 * np.random.default_rng(0).normal(size=16_000), 16_000)
    path = root / "table.tsv"
    path.write_text(table, encoding="utf-8")
    return path


def test_a_table_becomes_a_partition(tmp_path):
    table = write(tmp_path / "audio", "a.wav\tHello, world!\n\nsub folder/b.flac\tÀ la carte\r\nc.ogg\tgood-bye\n")
    command = [sys.executable, "-m", "corpora.folder", str(table.parent), str(table), str(tmp_path / "out")]
    result = subprocess.run(
        [*command, "--name", "mine", "--features", "mfcc13"], cwd=HOME, check=True, capture_output=True, text=True
    )
    assert (
        "left out of the texts, since the vocabulary has no such character: ',' 1 times, '!' 1 times" in result.stdout
    )
    assert "3 utterances; 13 cepstra of 40 mel bands" in result.stdout
    corpus = load_corpus([find_partition(tmp_path / "out", "mine")], "mean")
    assert dict(zip([path.stem for path in corpus.paths], corpus.texts, strict=True)) == {
        "a": "HELLO WORLD",
        "c": "GOOD BYE",
        "sub_folder-b": "A LA CARTE",
    }
    assert corpus.format.dim == read_feature_config(tmp_path / "out").dim == 13
    refused = subprocess.run([*command, "--name", "mine"], cwd=HOME, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "n_mels: was 40, is now 28; n_mfcc: was 13, is now 0" in refused.stderr


def test_lines_that_cannot_be_used_are_named(tmp_path):
    table = write(tmp_path, "a.wav\tone\nb.flac\ttwo\nc.ogg three\nc.ogg\tthree\tfour\na.wav\n\tfive\n")
    found = find_utterances(tmp_path, table, "mine")
    assert [(utterance.id, utterance.text) for utterance in found.utterances] == [("a", "one")]
    for words, line in zip(
        ("tsv:2: found no file", "tsv:3:", "tsv:4:", "tsv:5:", "tsv:6:"), found.findings, strict=True
    ):
        assert words in line


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"nothing here\n"])
def test_tables_without_an_utterance(content, tmp_path):
    path = tmp_path / "table.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"table\.tsv: .*expected .*a path, a tab"):
        find_utterances(tmp_path, path, "mine")
    with pytest.raises(UserError, match="found no such folder"):
        find_utterances(tmp_path / "nowhere", path, "mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "../up"], "--name: found '../up'"),
        (["--name", "a", "--features", "x"], "--features"),
        (["--name", "a", "--jobs", "0"], "--jobs: found 0"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message, tmp_path):
    table = write(tmp_path, "a.wav\tone\n")
    command = [sys.executable, "-m", "corpora.folder", str(tmp_path), str(table), str(tmp_path / "out"), *arguments]
    result = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
