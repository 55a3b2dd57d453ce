"""A Korean corpus through all commands, in syllables and in jamo, and what is refused."""

import csv
import os

import numpy as np
import pytest
import soundfile

from corpora.checks import read_transcript
from corpora.common import make_corpus
from corpora.folder import find_utterances
from tests.conftest import SMALL, make_toy_corpus, run
from utils.checkpoint import load_models
from utils.features import FeatureConfig

LETTERS = "가나값 ßé"


@pytest.fixture(scope="module")
def korean(tmp_path_factory):
    """Toy speech in Hangul, and the arguments of a training on it; one dev text has a syllable that train has not."""
    root = make_toy_corpus(tmp_path_factory.mktemp("korean"), {"train": 24, "dev": 6}, LETTERS)
    path = root / "dev" / "transcripts" / "dev-001.npy"
    np.save(path, np.array([*["<sos>", "뷁가", "<eos>"][:1], *"뷁가", "<eos>"]))
    arguments = [*SMALL, f"data.root={root}", f"run.dir={root / 'runs'}", "training.epochs=2", "decoding.beam_size=2"]
    return root, [*arguments, "data.vocabulary=auto"]


@pytest.mark.parametrize("units", ["character", "jamo"])
def test_train_tune_and_test_in_korean(korean, units):
    root, arguments = korean
    trained = run("train.py", *arguments, f"data.units={units}", f"run.name={units}").stdout
    assert "vocabulary: 9 tokens" in trained if units == "character" else "Hangul in jamo" in trained
    assert "dev: 1 of" in trained
    assert "not in the model's vocabulary ('뷁')" in trained
    folder = root / "runs" / units
    model = load_models([folder / "best.pt"])
    assert model.vocabulary.form.units == units
    assert (folder / "vocabulary.txt").read_text(encoding="utf-8").startswith("<space>\nß\né\n")

    if units == "jamo":
        tune(root, folder)
    weight = 0.1 * (units == "jamo")
    tested = run("test.py", str(folder), "--split", "dev", f"decoding.lm_weight={weight}").stdout
    assert "word spacing: " in tested
    assert "dev: 6 utterances, distance " in tested.splitlines()[-1]
    with (folder / "predictions-dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["reference"] == "뷁가"
    assert int(rows[1]["distance"]) > 0
    written = {letter for row in rows for letter in row["hypothesis"]}
    assert all(letter in LETTERS + "ㄱㄴㅏㅄ" or "가" <= letter <= "힣" for letter in written)
    assert "\\uac00" in (folder / "report.html").read_text(encoding="utf-8")


def tune(root, folder):
    (root / "more.txt").write_text("가나 가나!\n값 7\n", encoding="utf-8")
    tuned = run("tune.py", str(folder), "--text", str(root / "more.txt")).stdout
    assert "more.txt: 2 characters that the model does not write are left out: '!', '7'" in tuned
    assert "language model: 26 texts" in tuned


def test_what_is_of_another_vocabulary_is_refused_by_name(korean, toy_root, tmp_path):
    root, arguments = korean
    kaggle = [key for key in arguments if not key.startswith("data.vocabulary")]
    refused = run("train.py", *kaggle, "run.name=kaggle", expect=2).stderr
    assert "found texts of other characters (" in refused
    assert "expected those of Kaggle's 31 tokens (A-Z, ', space); data.vocabulary=auto trains" in refused
    refused = run("train.py", *kaggle, "run.name=kaggle", "data.units=jamo", expect=2).stderr
    assert "data: expected data.vocabulary=auto, or a file, where data.units is jamo" in refused
    if not (root / "runs" / "character" / "best.pt").exists():
        run("train.py", *arguments, "run.name=character")
    other = ["--checkpoint", str(root / "runs" / "character" / "best.pt"), f"data.root={toy_root}", "--split", "dev"]
    refused = run("test.py", *other, f"run.dir={tmp_path}", "run.name=other", expect=2).stderr
    assert "dev/transcripts: found texts of other characters ('" in refused
    assert "expected those of 9 tokens ('나', '값', '가', 'é', 'ß', ' ')" in refused
    refused = run("train.py", *kaggle, "run.name=character", "data.vocabulary=kaggle", expect=2).stderr
    assert "data.vocabulary: was 'auto', is now 'kaggle'" in refused


@pytest.mark.parametrize("text", ["HELLO 세계", "he paid $5.50", "Straße, 42!", "ज\u093c\u093e"])
def test_a_maker_with_its_own_vocabulary_drops_nothing(tmp_path, text):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).normal(size=16_000), 16_000)
    (tmp_path / "t.tsv").write_text(f"a.wav\t {text}\n", encoding="utf-8")
    found = find_utterances(tmp_path, tmp_path / "t.tsv", "train")
    make_corpus([found], tmp_path / "out", FeatureConfig(), 1, False, "auto")
    assert read_transcript(tmp_path / "out" / "train" / "transcripts" / "a.npy") == text
    assert os.listdir(tmp_path / "out" / "train" / "mfcc") == ["a.npy"]
