"""A folder of audio and a table to a partition in the Kaggle layout."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.checks import read_transcript
from corpora.folder import choose_dev, find_partitions, find_utterances, main
from corpora.layout import find_partition
from corpora.loading import load_corpus
from utils.cli import run_command
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
    table = write(tmp_path / "audio", "a.wav\tHello, world!\n\nsub folder/b.flac\ta la carte\r\nc.ogg\tgood-bye\n")
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


def test_names_as_other_systems_write_them(tmp_path):
    """macOS decomposes Hangul and accents in file names; a table from Windows has backslashes."""
    for name in ("\u1112\u1161\u11ab.wav", "é.wav", "하나/é.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    table = tmp_path / "t.tsv"
    table.write_text("한.wav\tone\ne\u0301.wav\ttwo\n하나\\é.wav\tthree\n하나/é.wav\\x\tfour\n", encoding="utf-8")
    train, dev = find_partitions(tmp_path, table, "train", "prefix", 0.1)
    found = sorted(train.utterances + dev.utterances, key=lambda utterance: utterance.source)
    assert [(utterance.id, utterance.text) for utterance in found] == [("한", "one"), ("é", "two"), ("하나-é", "three")]
    assert all(utterance.audio.is_file() for utterance in found)
    assert len(train.findings) == 1


# A line of each kind in ten scripts, and what becomes of it: the text that is written, or None where it is refused.
LINES = [
    *[("Hello, world!", "HELLO WORLD"), ("it’s “fine”", "IT'S FINE"), ("good-bye", "GOOD BYE"), ("ＷＩＤＥ", "WIDE")],
    *[("he paid $5.50", None), ("room 101", None), ("AT&T", None), ("100 %", None), ("half: ½", None), ("", None)],
    *[("Straße", None), ("Äpfel", None), ("naïve café", None), ("cafe\u0301", None), ("ılık İstanbul", None)],
    *[("HELLO 세계", None), ("안녕하세요", None), ("ㅎㅎ ok", None), ("\u1112\u1161\u11ab", None)],
    *[("привет мир", None), ("AВС", None), ("Καλημέρα", None), ("こんにちは", None), ("カタカナ OK", None)],
    *[("你好", None), ("مرحبا", None), ("שלום", None), ("नमस्ते", None), ("สวัสดี", None), ("١٢٣", None)],
]


def make(arguments, monkeypatch, capsys):
    """Runs the maker in this process; returns its exit code and what it said."""
    monkeypatch.setattr(sys, "argv", ["corpora.folder", *map(str, arguments), "--jobs", "1"])
    code = 0
    try:
        run_command(main)
    except SystemExit as ended:
        code = ended.code
    return code, "".join(capsys.readouterr())


def write_lines(root, lines, separator="\t"):
    """A table of texts, each said in a recording of its own."""
    for number in range(len(lines)):
        soundfile.write(root / f"u{number:02d}.wav", 0.1 * np.random.default_rng(0).normal(size=8_000), 16_000)
    table = root / "table.tsv"
    table.write_text("".join(f"u{number:02d}.wav{separator}{text}\n" for number, text in enumerate(lines)))
    return table


def texts_of(folder):
    return {path.stem: read_transcript(path) for path in sorted((folder / "transcripts").glob("*.npy"))}


def test_thirty_lines_in_ten_scripts_none_silently_changed(tmp_path, monkeypatch, capsys):
    """Each is written letter by letter, or named with file and line; --skip-bad names them as well."""
    assert len(LINES) == 30
    table, out = write_lines(tmp_path, [text for text, _ in LINES]), tmp_path / "out"
    arguments = [tmp_path, table, out, "--name", "train"]
    refused = [number for number, (_, written) in enumerate(LINES, 1) if written is None]
    for more, expected in ([], 2), (["--skip-bad"], 0):
        code, said = make([*arguments, *more], monkeypatch, capsys)
        assert code == expected
        assert [int(number) for number in re.findall(rf"{re.escape(str(table))}:(\d+): found", said)] == [
            10,
            *(number for number in refused if number != 10),
        ]
    assert "wav:" not in said
    assert f"{table}:5: found '$', '5', '0' in 'he paid $5.50', expected a text in letters A to Z, numbers and" in said
    kept = {f"u{number:02d}": written for number, (_, written) in enumerate(LINES) if written is not None}
    assert texts_of(out / "train") == kept
    assert "left out of the texts, since the vocabulary has no such character" in said


def test_a_text_that_is_refused_leaves_no_older_one(tmp_path, monkeypatch, capsys):
    table, out = write_lines(tmp_path, ["one", "two"]), tmp_path / "out"
    arguments = [tmp_path, table, out, "--name", "train"]
    assert make(arguments, monkeypatch, capsys)[0] == 0
    table.write_text("u00.wav\tone\nu01.wav\tzwölf\n", encoding="utf-8")
    code, said = make(arguments, monkeypatch, capsys)
    assert (code, len(texts_of(out / "train"))) == (2, 2)  # to be mended: nothing is gone
    assert "they stay" not in said
    code, said = make([*arguments, "--skip-bad"], monkeypatch, capsys)
    assert code == 0
    assert "1 utterances of before taken out: their texts are refused now" in said
    assert texts_of(out / "train") == {"u00": "ONE"}
    assert len(list((out / "train" / "mfcc").iterdir())) == 1


def test_other_tables_end_with_the_same_corpus(tmp_path, monkeypatch, capsys):
    """What is recognised of a table is a line each."""
    table, out = write_lines(tmp_path, ["one", "two, three"], ","), tmp_path / "out"
    code, said = make([tmp_path, table, out, "--name", "train"], monkeypatch, capsys)
    assert code == 0
    assert f"{table}: found ',' between the columns, expected tabs: read as that" in said
    table.write_bytes("text\tpath\none\tu00.wav\ntwo, three\tu01.wav\n".encode("utf-16"))
    code, said = make([tmp_path, table, out, "--name", "again"], monkeypatch, capsys)
    assert code == 0
    assert said.count(f"{table}: ") == 2
    assert texts_of(out / "again") == texts_of(out / "train") == {"u00": "ONE", "u01": "TWO THREE"}


def test_one_table_becomes_train_and_dev(tmp_path, monkeypatch, capsys):
    table = write_lines(tmp_path, [f"{word} {word}" for word in ("one", "two", "three", "four", "five", "six")])
    arguments = [tmp_path, table, tmp_path / "out", "--name", "train", "--dev-share", "0.3"]
    code, said = make(arguments, monkeypatch, capsys)
    assert code == 0
    assert "dev: 2 of 6 utterances, drawn at random, speakers of train among them: --speakers keeps them" in said
    partitions = [texts_of(tmp_path / "out" / name) for name in ("train", "dev")]
    assert [len(partition) for partition in partitions] == [4, 2]
    assert not partitions[0].keys() & partitions[1].keys()
    code, said = make([*arguments[:-1], "0.6"], monkeypatch, capsys)  # what dev has now is no longer in train
    assert code == 0
    assert f"{tmp_path / 'out' / 'train'}: 2 utterances of before taken out: " in said
    assert "they stay" not in said
    there, here = [texts_of(tmp_path / "out" / name).keys() for name in ("train", "dev")]
    assert (len(there), len(here)) == (2, 4)
    assert not there & here
    assert {path.stem for path in (tmp_path / "out" / "train" / "mfcc").iterdir()} == there
    for wrong, message in ((["--dev-share", "1"], "--dev-share: found 1"), (["--name", "dev"], "--name: found dev")):
        code, said = make([*arguments, *wrong], monkeypatch, capsys)
        assert code == 2
        assert message in said


@pytest.mark.parametrize("rule", ["folder", "prefix", "3", "who"])
def test_dev_has_speakers_of_its_own(rule, tmp_path):
    speakers = [f"s{number % 5}" for number in range(20)]
    rows = ["path\ttext\twho"]
    for number, speaker in enumerate(speakers):
        path = tmp_path / speaker / f"{speaker}-{number}.wav"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        rows.append(f"{speaker}/{path.name}\tone\t{speaker}")
    table = tmp_path / "t.tsv"
    table.write_text("\n".join(rows))
    train, dev = find_partitions(tmp_path, table, "train", rule, 0.3)
    there, here = ({utterance.id[:2] for utterance in partition.utterances} for partition in (train, dev))
    assert (train.name, dev.name, len(train.utterances) + len(dev.utterances)) == ("train", "dev", 20)
    assert len(here) == 2
    assert not there & here


def test_a_recording_of_two_speakers_is_in_one_partition_and_a_finding(tmp_path):
    rows = ["path\ttext\twho"]
    for number in range(6):
        (tmp_path / f"r{number}.wav").touch()
        rows += [f"r{number}.wav\tone\ts{number % 3}", f"r{number}.wav\tone\ts{(number + 1) % 3}"]
    table = tmp_path / "t.tsv"
    table.write_text("\n".join(rows))
    train, dev = find_partitions(tmp_path, table, "train", "who", 0.3)
    there, here = ([utterance.id for utterance in partition.utterances] for partition in (train, dev))
    assert sorted(there + here) == sorted([f"r{number}" for number in range(6)] * 2)
    assert here
    assert not set(there) & set(here)
    with pytest.raises(UserError, match=r"t\.tsv:2: found no folder in r0\.wav, expected that of its speaker"):
        find_partitions(tmp_path, table, "train", "folder", 0.3)


def test_dev_is_drawn_the_same_way_as_a_table_grows():
    ids = [f"u{number}" for number in range(300)]
    before, after = choose_dev(ids[:200], None, 0.1), choose_dev(ids, None, 0.1)
    assert (sum(before), sum(after)) == (20, 30)
    both = [id for id, old, new in zip(ids, before, after, strict=False) if old and new]
    assert len(both) >= 15
    assert choose_dev(ids[::-1], None, 0.1) == after[::-1]
    assert sum(choose_dev(["a", "b"], None, 0.99)) == 1  # both partitions have some
    with pytest.raises(UserError, match=r"found 1 speaker \(x\), expected two or more"):
        choose_dev(ids, ["x"] * 300, 0.1)


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
