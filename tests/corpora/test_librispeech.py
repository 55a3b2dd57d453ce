"""A small tree of audio in LibriSpeech's layout to a checked corpus in Kaggle's."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.audio import make_feature_config
from corpora.checks import read_transcript
from corpora.common import make_corpus
from corpora.layout import find_partition
from corpora.librispeech import find_partitions
from corpora.loading import load_corpus
from utils.errors import UserError
from utils.features import FeatureConfig, read_feature_config

HOME = Path(__file__).parents[2]
TEXTS = {"84-121-0000": "IT'S A CAT", "84-121-0001": "A DOG", "84-122-0000": "TWO CATS", "84-122-0001": "GOOD"}


def write_tree(root, texts=TEXTS, seconds=1):
    generator = np.random.default_rng(0)
    kinds = [(16_000, ".flac"), (22_050, ".wav"), (8_000, ".ogg"), (44_100, ".mp3")]
    for number, (name, text) in enumerate(texts.items()):
        rate, suffix = kinds[number % len(kinds)]
        speaker, chapter, _ = name.split("-")
        folder = root / "dev-clean" / speaker / chapter
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}{suffix}", 0.1 * generator.normal(size=(rate * seconds, 1)), rate)
        with (folder / f"{speaker}-{chapter}.trans.txt").open("a") as file:
            file.write(f"{name} {text}\n")
    return root


def make(audio, out, feature_config=None, skip_bad=False):
    make_corpus(find_partitions(audio), out, feature_config or FeatureConfig(), 2, skip_bad)


def contents(folder):
    """Of all files; the record of the sources without the order in which they were made."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: sorted(set(content.split())) if name.endswith(".tsv") else content for name, content in files.items()}


def test_a_checked_corpus_in_kaggles_layout(tmp_path, caplog):
    make(write_tree(tmp_path / "audio"), tmp_path / "out", make_feature_config("mel28", 0, 5500))
    corpus = load_corpus([find_partition(tmp_path / "out", "dev-clean")], "mean")
    assert [path.stem for path in corpus.paths] == sorted(TEXTS)
    assert list(corpus.texts) == [TEXTS[name] for name in sorted(TEXTS)]
    assert corpus.format.dim == 28
    assert all(100 <= length < 120 for length in corpus.lengths)  # a second each, whatever its rate; MP3 pads
    assert "4 utterances; 28 log mel bands, 0 to 5500 Hz" in caplog.text
    assert read_feature_config(tmp_path / "out") == FeatureConfig(f_max=5500.0)


def test_what_is_there_is_not_made_again_and_what_is_missing_is(tmp_path):
    audio, out = write_tree(tmp_path / "audio"), tmp_path / "out"
    make(audio, out)
    before = contents(out)
    files = sorted((out / "dev-clean" / "mfcc").iterdir())
    os.remove(files[1])
    os.remove(out / "dev-clean" / "transcripts" / files[2].name)
    times = [path.stat().st_mtime_ns for path in (files[0], files[2])]
    make(audio, out)
    assert contents(out) == before
    assert [path.stat().st_mtime_ns for path in (files[0], files[2])] == times
    with pytest.raises(UserError, match=r"features\.json: .*n_mels: was 28, is now 40.*another folder"):
        make(audio, out, FeatureConfig(n_mels=40))
    assert contents(out) == before


def test_a_corrected_text_is_taken_over_and_strangers_are_told_of(tmp_path, caplog):
    audio, out = write_tree(tmp_path / "audio"), tmp_path / "out"
    make(audio, out)
    transcripts = audio / "dev-clean" / "84" / "121" / "84-121.trans.txt"
    transcripts.write_text("84-121-0000 It’s a “well-known” cafe, no.\n")
    os.remove(audio / "dev-clean" / "84" / "121" / "84-121-0001.wav")
    caplog.clear()
    make(audio, out)
    said = caplog.messages
    assert read_transcript(out / "dev-clean" / "transcripts" / "84-121-0000.npy") == "IT'S A WELL KNOWN CAFE NO"
    assert "left out of the texts" in said[0]
    assert all(f"{letter!r} 1 times" in said[0] for letter in ",.“”")
    assert "1 utterances there are not from this audio, such as 84-121-0001" in said[1]


def test_bad_audio_is_named_and_skipped_on_request(tmp_path, caplog):
    audio = write_tree(tmp_path / "audio")
    chapter = audio / "dev-clean" / "84" / "121"
    (chapter / "84-121-0000.flac").write_bytes(b"no audio")
    soundfile.write(chapter / "84-121-0007.wav", np.zeros(100), 16_000)
    with (chapter / "84-121.trans.txt").open("a") as file:
        file.write("84-121-0009 NOBODY SAID THIS\n84-121-0010\n84-121-0007 SHORT\n84-121-0001 AGAIN\n84-121-0001 42\n")
    soundfile.write(chapter / "84-121-0008.wav", np.zeros(16_000), 16_000)
    (audio / "dev-clean" / "84" / "122" / "more.trans.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="--skip-bad") as caught:
        make(audio, tmp_path / "out")
    for words in (
        "84-121-0000.flac: found what cannot be read",
        "found no audio for 84-121-0009",
        "84-121.trans.txt:4: found '84-121-0010'",
        "84-121-0008.wav: found no transcript",
        "84-121-0007.wav: found 100 samples, expected 25 ms",
        "84-121.trans.txt:6: found 84-121-0001 again",
        "84-121.trans.txt:7: found 84-121-0001 again",
        "more.trans.txt: cannot be read",
    ):
        assert words in str(caught.value)
    make(audio, tmp_path / "out", skip_bad=True)
    assert "went on without them" in caplog.messages[-1]
    assert len(list((tmp_path / "out" / "dev-clean" / "mfcc").iterdir())) == 3


@pytest.mark.parametrize("there", [False, True])
def test_no_tree(tmp_path, there):
    if there:
        (tmp_path / "audio" / "dev-clean").mkdir(parents=True)
    with pytest.raises(UserError, match=r"expected .*LibriSpeech's layout"):
        make(tmp_path / "audio", tmp_path / "out")


def test_a_folder_above_or_below_is_not_taken_for_the_partitions(tmp_path):
    audio = write_tree(tmp_path / "LibriSpeech")
    for wrong in (tmp_path, audio / "dev-clean", audio / "dev-clean" / "84"):
        with pytest.raises(UserError, match=rf"this folder fits: {re.escape(str(audio))}$"):
            find_partitions(wrong)
    other = tmp_path / "other" / "mine" / "deeper"  # folders with names of their own are taken as they are
    other.mkdir(parents=True)
    (audio / "dev-clean" / "84" / "121").rename(other / "books")
    assert [found.name for found in find_partitions(tmp_path / "other")] == ["mine"]


def test_two_recordings_of_one_name_are_a_finding(tmp_path):
    audio = write_tree(tmp_path / "audio")
    chapter = audio / "dev-clean" / "84" / "121"
    soundfile.write(chapter / "84-121-0000.wav", np.zeros(16_000), 16_000)
    (partition,) = find_partitions(audio)
    (finding,) = partition.findings
    assert finding.endswith("84-121-0000.wav: found 84-121-0000.flac beside it, expected one recording of that name")
    assert len(partition.utterances) == 4


def test_killed_and_run_again_it_ends_with_the_same_files(tmp_path):
    audio = write_tree(tmp_path / "audio", {f"84-121-{number:04d}": "A CAT" for number in range(60)}, seconds=5)
    command = [sys.executable, "-m", "corpora.librispeech", str(audio)]
    subprocess.run([*command, str(tmp_path / "whole")], cwd=HOME, check=True, capture_output=True)

    made = tmp_path / "killed" / "dev-clean" / "mfcc"
    process = subprocess.Popen([*command, str(tmp_path / "killed"), "--jobs", "1"], cwd=HOME)
    while process.poll() is None and not (made.is_dir() and list(made.glob("*.npy"))):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(list(made.glob("*.npy"))) < 60
    for path in made.glob("*.npy"):
        assert np.isfinite(np.load(path)).all()
    subprocess.run([*command, str(tmp_path / "killed")], cwd=HOME, check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
