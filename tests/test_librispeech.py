"""A small tree of audio in LibriSpeech's layout to a checked corpus in Kaggle's."""

import os

import numpy as np
import pytest
import soundfile
from corpora.features import SAMPLE_RATE, log_mel

from corpora.librispeech import make_corpus
from dataset import load_corpus
from utils.corpus import find_partition
from utils.errors import UserError

TEXTS = {"84-121-0000": "IT'S A CAT", "84-121-0001": "A DOG", "84-122-0000": "TWO CATS"}


def write_tree(root, rates=(16_000, 22_050, 8_000), suffixes=(".flac", ".wav", ".ogg")):
    generator = np.random.default_rng(0)
    for (name, text), rate, suffix in zip(TEXTS.items(), rates, suffixes, strict=True):
        speaker, chapter, _ = name.split("-")
        folder = root / "dev-clean" / speaker / chapter
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}{suffix}", 0.1 * generator.normal(size=(rate, 1)), rate)
        with (folder / f"{speaker}-{chapter}.trans.txt").open("a") as file:
            file.write(f"{name} {text}\n")
    return root


def make(audio, out, **options):
    make_corpus(audio, out, **{"bands": 28, "highest": 8000.0, "jobs": 2, "skip_bad": False, **options})


def test_a_checked_corpus_in_kaggles_layout(tmp_path, capsys):
    make(write_tree(tmp_path / "audio"), tmp_path / "out")
    corpus = load_corpus([find_partition(tmp_path / "out", "dev-clean")], "mean", say=lambda line: None)
    assert [path.stem for path in corpus.paths] == sorted(TEXTS)
    assert list(corpus.texts) == [TEXTS[name] for name in sorted(TEXTS)]
    assert corpus.format.dim == 28
    assert set(corpus.lengths) <= {100, 101}  # a second each, whatever its rate
    assert "3 utterances" in capsys.readouterr().out


def test_what_is_there_is_not_made_again_and_what_is_missing_is(tmp_path):
    audio, out = write_tree(tmp_path / "audio"), tmp_path / "out"
    make(audio, out)
    files = sorted((out / "dev-clean" / "mfcc").iterdir())
    before = [path.read_bytes() for path in files]
    os.remove(files[1])
    times = [files[0].stat().st_mtime_ns, files[2].stat().st_mtime_ns]
    make(audio, out)
    assert [path.read_bytes() for path in files] == before
    assert [files[0].stat().st_mtime_ns, files[2].stat().st_mtime_ns] == times
    with pytest.raises(UserError, match=r"features\.json: found .*28.*expected .*40.*another folder"):
        make(audio, out, bands=40)


def test_bad_audio_is_named_and_skipped_on_request(tmp_path, capsys):
    audio = write_tree(tmp_path / "audio")
    chapter = audio / "dev-clean" / "84" / "121"
    (chapter / "84-121-0000.flac").write_bytes(b"no audio")
    soundfile.write(chapter / "84-121-0007.wav", np.zeros(100), 16_000)
    with (chapter / "84-121.trans.txt").open("a") as file:
        file.write("84-121-0009 NOBODY SAID THIS\n84-121-0010\n84-121-0007 SHORT\n")
    soundfile.write(chapter / "84-121-0008.wav", np.zeros(16_000), 16_000)
    with pytest.raises(UserError, match="--skip-bad") as caught:
        make(audio, tmp_path / "out")
    for words in (
        "84-121-0000.flac: cannot be read",
        "found no audio for 84-121-0009",
        "84-121.trans.txt:4: found '84-121-0010'",
        "84-121-0008.wav: found no transcript",
        "84-121-0007.wav: found 100 samples, expected 25 ms",
    ):
        assert words in str(caught.value)
    make(audio, tmp_path / "out", skip_bad=True)
    assert "went on without them" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "dev-clean" / "mfcc").iterdir())) == 2


@pytest.mark.parametrize("there", [False, True])
def test_no_tree(tmp_path, there):
    if there:
        (tmp_path / "audio" / "dev-clean").mkdir(parents=True)
    with pytest.raises(UserError, match=r"expected .*LibriSpeech's layout"):
        make(tmp_path / "audio", tmp_path / "out")


def test_bands_follow_the_pitch_and_stop_at_the_highest():
    """A tone is loudest in the band it falls into; bands reach up to `highest` only."""
    second = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * hertz * second).astype(np.float32) for hertz in (300, 1000, 3000)]
    wide = [int(log_mel(tone, SAMPLE_RATE).mean(0).argmax()) for tone in tones]
    narrow = [int(log_mel(tone, SAMPLE_RATE, highest=5500.0).mean(0).argmax()) for tone in tones]
    assert wide == sorted(set(wide))
    assert all(a < b for a, b in zip(wide[1:], narrow[1:], strict=True))
    assert log_mel(tones[0], SAMPLE_RATE, bands=40).shape == (101, 40)
    half = log_mel(tones[0][::2], SAMPLE_RATE // 2)  # another rate, the same speech
    assert int(half.mean(0).argmax()) == wide[0]
