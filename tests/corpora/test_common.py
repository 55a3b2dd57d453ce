"""What all makers of corpora share: features belong to the recording and the text beside them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.checks import read_features, read_transcript
from corpora.common import Found, Source, Sources, Utterance, make_corpus
from corpora.folder import find_utterances
from corpora.librispeech import find_partitions
from utils.errors import UserError
from utils.features import FeatureConfig


def write_sound(path, seed, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).normal(size=round(16_000 * seconds))
    soundfile.write(path, samples, 16_000)


def make(tmp_path, table, **options):
    (tmp_path / "t.tsv").write_bytes(table.encode())
    found = find_utterances(tmp_path / "audio", tmp_path / "t.tsv", "train")
    make_corpus([found], tmp_path / "out", FeatureConfig(), 2, options.get("skip_bad", False))
    return tmp_path / "out" / "train"


def test_another_recording_under_an_old_name_gets_new_features(tmp_path):
    """Also one of the same size and time."""
    for name, seed in (("a", 1), ("b", 2)):
        write_sound(tmp_path / "audio" / f"{name}.wav", seed)
    table = "a.wav\tONE\nb.wav\tTWO\n"
    out = make(tmp_path, table)
    first, second = out / "mfcc" / "a.npy", out / "mfcc" / "b.npy"
    before, made = read_features(first), second.stat().st_mtime_ns
    write_sound(tmp_path / "audio" / "a.wav", 3)
    make(tmp_path, table.replace("ONE", "THREE"))
    assert not np.array_equal(read_features(first), before)
    assert read_transcript(out / "transcripts" / "a.npy") == "THREE"
    assert second.stat().st_mtime_ns == made


@pytest.mark.parametrize("damage", ["missing", "cut", "not text"])
def test_without_its_record_a_corpus_is_made_again(tmp_path, damage):
    write_sound(tmp_path / "audio" / "a.wav", 1)
    out = make(tmp_path, "a.wav\tONE\n")
    record = out / "sources.tsv"
    content = record.read_bytes()
    if damage == "missing":
        record.unlink()
    else:
        record.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xff\xfe\t")
    first = (out / "mfcc" / "a.npy").stat().st_mtime_ns
    make(tmp_path, "a.wav\tONE\n")
    assert (out / "mfcc" / "a.npy").stat().st_mtime_ns != first
    again = (out / "mfcc" / "a.npy").stat().st_mtime_ns
    make(tmp_path, "a.wav\tONE\n")
    assert (out / "mfcc" / "a.npy").stat().st_mtime_ns == again


def test_where_the_audio_lies_is_recorded(tmp_path, monkeypatch):
    """Also in a record that an older version left, and where the audio has moved; features are not made again."""
    audio = tmp_path / "audio" / "각 folder" / "a.wav"
    write_sound(audio, 1)
    table = f"{audio.parent.name}/a.wav\tONE\n"
    out = make(tmp_path, table)
    record, features = out / "sources.tsv", next((out / "mfcc").iterdir())
    (identity,) = Sources(record).known
    source, made = Sources(record).known[identity], features.stat().st_mtime_ns
    assert source == Source(str(audio), Source.of(audio).digest)
    record.write_text(f"\n{identity}\t{source.digest}", encoding="utf-8")
    assert Sources(record).known == {identity: Source("", source.digest)}
    for moved in (tmp_path, tmp_path / "elsewhere"):
        if moved != tmp_path:
            moved.mkdir()
            (tmp_path / "audio").rename(moved / "audio")
        monkeypatch.chdir(moved)  # a relative path is recorded whole
        (moved / "t.tsv").write_text(table, encoding="utf-8")
        found = find_utterances(Path("audio"), Path("t.tsv"), "train")
        make_corpus([found], tmp_path / "out", FeatureConfig(), 1, False)
        assert Sources(record).known == {identity: source._replace(audio=str(moved / audio.relative_to(tmp_path)))}
    assert features.stat().st_mtime_ns == made


def test_a_path_with_a_line_break_has_no_place_in_the_record(tmp_path):
    write_sound(tmp_path / "a\nb.wav", 1)
    source = Source.of(tmp_path / "a\nb.wav")
    assert source.audio == ""
    Sources(tmp_path / "sources.tsv").add("a", source)
    assert Sources(tmp_path / "sources.tsv").known == {"a": source}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1c"])
def test_only_line_breaks_end_a_line(tmp_path, separator):
    write_sound(tmp_path / "audio" / "a.wav", 1)
    assert read_transcript(make(tmp_path, f"a.wav\tone{separator}two\r\n") / "transcripts" / "a.npy") == "ONE TWO"
    chapter = tmp_path / "tree" / "part" / "1" / "2"
    write_sound(chapter / "1-2-0.wav", 1)
    (chapter / "1-2.trans.txt").write_bytes(f"\ufeff1-2-0 one{separator}two\r\n".encode())
    (found,) = find_partitions(tmp_path / "tree")
    assert not found.findings
    make_corpus([found], tmp_path / "libri", FeatureConfig(), 1, False)
    assert read_transcript(tmp_path / "libri" / "part" / "transcripts" / "1-2-0.npy") == "ONE TWO"


BAD_LINES = {
    "swapped columns": ("said here\ta.wav", "the columns are swapped"),
    "a text that is too long for a path": ("x" * 5000 + "\tA", "found no file"),
    "a NUL in a path": ("a\0.wav\tA", "found no file"),
    "a name too long for its files": ("/".join(["d" * 100] * 3) + ".wav\tA", "bytes"),
    "a folder": ("folder\tA", "found no file"),
    "no sound": ("empty.wav\tA", "cannot be read"),
    "half a sound": ("half.wav\tA", "ends early"),
    "raw samples": ("sound.raw\tA", "cannot be read"),
}


def test_findings_on_names_that_are_no_utf_8_are_written_as_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("corpora.common.LISTED", 1)
    monkeypatch.setattr("corpora.common.first_findings", lambda *_: "found")  # pytest-xdist cannot send their bytes
    audio = tmp_path / "audio"
    write_sound(audio / "a.wav", 1)
    table = "".join(f"caf\udce9-{number}.wav\tNONE\n" for number in range(3))
    findings = [Found("train", [Utterance("a", audio / "a.wav", "A", "t:1")], table.splitlines())]
    make_corpus(findings, tmp_path / "out", FeatureConfig(), 1, skip_bad=True)
    assert (tmp_path / "out" / "findings.txt").read_bytes().startswith(b"caf\xe9-0.wav")


@pytest.mark.parametrize("kind", BAD_LINES)
def test_what_cannot_be_used_is_a_finding_and_the_rest_is_made(tmp_path, kind):
    line, words = BAD_LINES[kind]
    audio = tmp_path / "audio"
    write_sound(audio / "a.wav", 1)
    write_sound(audio / ("/".join(["d" * 100] * 3) + ".wav"), 1)
    (audio / "folder").mkdir()
    (audio / "empty.wav").write_bytes(b"")
    (audio / "sound.raw").write_bytes(bytes(4000))
    (audio / "half.wav").write_bytes((audio / "a.wav").read_bytes()[:4000])
    table = f"a.wav\tFINE\n{line}\n"
    with pytest.raises(UserError, match=words) as error:
        make(tmp_path, table)
    assert "--skip-bad" in str(error.value)
    out = make(tmp_path, table, skip_bad=True)
    assert [path.name for path in (out / "mfcc").iterdir()] == ["a.npy"]
    assert [path.name for path in (out / "transcripts").iterdir()] == ["a.npy"]
