import sys
import unicodedata

import numpy as np
import pytest

from corpora import demo
from corpora.demo import FEATURES, VOICES, Synthesiser, make_corpus
from corpora.grammar import ENGLISH, GRAMMARS
from corpora.layout import find_partition
from corpora.loading import load_corpus
from utils.errors import UserError
from utils.features import read_feature_config
from utils.vocabulary import TextForm

SIZES = {"train": 12, "dev": 4, "test": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    make_corpus(root, SIZES)
    return root


def test_a_checked_corpus_in_the_competitions_format(root, caplog):
    texts = {}
    for name, size in SIZES.items():
        corpus = load_corpus([find_partition(root, name)], "mean_variance")
        assert len(corpus) == size
        assert corpus.format.dim == FEATURES.dim == read_feature_config(root).dim
        assert 2 < corpus.frames_per_character < 12
        assert {array.dtype for array in corpus.features} == {np.dtype(np.float32)}
        texts[name] = set(corpus.texts)
    assert "found: F23 layout, 28-dim mfcc, transcripts with sos/eos" in caplog.text
    assert not (texts["train"] & texts["dev"])
    assert not (texts["train"] & texts["test"])
    assert not (texts["dev"] & texts["test"])


def test_made_once(root, caplog):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.npy")}
    make_corpus(root, SIZES)
    assert "there already" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*.npy")}


def test_voices_of_dev_and_test_are_not_in_train():
    everyone = [voice for voices in VOICES.values() for voice in voices]
    assert len(everyone) == len(set(everyone))
    assert len(VOICES["train"]) > 40


def test_every_voice_and_accent_speaks():
    synthesiser = Synthesiser()
    for voice in [f"en-us+{voice}" for voices in VOICES.values() for voice in voices] + list(ENGLISH.voices):
        speech = synthesiser.speak("two zebras", voice, 180, 50, 50)
        assert 0.2 < len(speech) / synthesiser.sample_rate < 3
        assert 0.05 < np.abs(speech).max() <= 1


@pytest.mark.parametrize(("language", "letters"), [("ko", "가 "), ("de", "ÄÖÜäöüß"), ("hi", "\u093e\u094d\u093c")])
def test_other_languages_are_a_corpus_that_trains_with_its_own_vocabulary(tmp_path, caplog, language, letters):
    make_corpus(tmp_path / "a b", {"train": 24}, language=language)
    assert f"--config configs/demo.yaml data.root='{tmp_path / 'a b'}' data.vocabulary=auto" in caplog.text
    partition = find_partition(tmp_path / "a b", "train")
    corpus = load_corpus([partition], "mean_variance", vocabulary=TextForm())
    assert all(unicodedata.is_normalized("NFC", text) for text in corpus.texts)
    assert len(set(corpus.vocabulary.characters) & set(letters)) > 0.5 * len(letters)
    assert 2 < corpus.frames_per_character < 30
    make_corpus(tmp_path / "a b", {"train": 24}, language=language)
    assert "there already" in caplog.text
    with pytest.raises(UserError, match=r"found texts of other characters \(.*Kaggle's 31.*data\.vocabulary=auto"):
        load_corpus([partition], "mean_variance")


@pytest.mark.parametrize("language", GRAMMARS)
def test_the_command_takes_every_language(tmp_path, monkeypatch, language):
    made = []
    monkeypatch.setattr(demo, "make_corpus", lambda root, sizes, language: made.append((sizes["train"], language)))
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path), "--utterances", "32", "--language", language])
    demo.main()
    assert made == [(32, language)]
