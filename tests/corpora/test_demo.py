import random

import numpy as np
import pytest

from corpora.demo import ACCENTS, FEATURES, VOICES, Synthesiser, make_corpus, make_sentences
from corpora.layout import find_partition
from corpora.loading import load_corpus
from utils.features import read_feature_config

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
    for voice in [f"en-us+{voice}" for voices in VOICES.values() for voice in voices] + list(ACCENTS):
        speech = synthesiser.speak("two zebras", voice, 180, 50, 50)
        assert 0.2 < len(speech) / synthesiser.sample_rate < 3
        assert 0.05 < np.abs(speech).max() <= 1


def test_sentences_differ_and_use_every_letter():
    sentences = make_sentences(3000, random.Random(0), set())
    assert len(set(sentences)) == 3000
    assert set("".join(sentences)) == set("abcdefghijklmnopqrstuvwxyz' ")
    assert 200 < len(set(" ".join(sentences).split())) < 400
