"""Files that cannot be used: what was found, what was expected."""

import errno
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from corpora import checks
from corpora.checks import (
    PartitionIndex,
    UtteranceRecord,
    check_lengths,
    check_shapes,
    check_texts,
    first_findings,
    has_boundaries,
    infer_format,
    list_findings,
    read_features,
    read_transcript,
    read_utterance,
)
from corpora.layout import PathList
from utils.errors import BadFile, UserError
from utils.features import FeatureFormat
from utils.vocabulary import KAGGLE, SPECIAL, TextForm, Vocabulary


def bad_features(path, kind):
    good = np.ones((20, 4), np.float32)
    if kind == "truncated":
        np.save(path, good)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "no bytes":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"this is not an array, whatever it is called")
    elif kind == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    elif kind == "1-D":
        np.save(path, good[0])
    elif kind == "3-D":
        np.save(path, good[None])
    elif kind == "no frames":
        np.save(path, good[:0])
    elif kind == "text array":
        np.save(path, np.array([["a"]]))
    elif kind == "claims 10 GB":
        header = str({"descr": "<f4", "fortran_order": False, "shape": (100_000_000, 28)}).encode()
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 16)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, good)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("truncated", "truncated"),
        ("no bytes", "an empty file"),
        ("text", "not a .npy file"),
        ("pickle", "object array"),
        ("1-D", "a 1-D array of float32"),
        ("3-D", "a 3-D array"),
        ("no frames", "an empty array"),
        ("text array", "array of <U1"),
        ("claims 10 GB", "truncated"),
        ("npz", "archive"),
    ],
)
def test_unusable_feature_files(tmp_path, kind, found):
    path = tmp_path / "x.npy"
    bad_features(path, kind)
    with pytest.raises(BadFile, match=found):
        read_features(path)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.array(["<sos>", "H", "\t", "\u2028", "<eos>"]), r"outside any vocabulary: '\\t', '\\u2028'"),
        (np.array(["H", "", "\ud800"]), r"'', '\\ud800'"),
        (np.array(["ha", "x\u0301y"]), "'ha', "),
        (np.array(["<sos>", "<eos>"]), "an empty transcript"),
        (np.array([1, 2]), "array of int64"),
        (np.array([["H", "I"]]), "a 2-D array"),
        (np.array(["HI", "YOU"]), "'HI', 'YOU'"),
        (np.array([{}], dtype=object), "object array"),
    ],
)
def test_unusable_transcripts(tmp_path, array, found):
    path = tmp_path / "x.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(BadFile, match=found):
        read_transcript(path)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["한", "국", " ", "é", "1"], "한국 é1"),
        (["<sos>", "\u1112\u1161\u11ab", "e\u0301", "<eos>"], "\u1112\u1161\u11abe\u0301"),  # as they stand there
        (["ज", "\u093c", "ज\u093c\u093e"], "ज\u093cज\u093c\u093e"),
    ],
)
def test_transcripts_in_any_language(tmp_path, tokens, text):
    np.save(tmp_path / "x.npy", np.array(tokens))
    assert read_transcript(tmp_path / "x.npy") == text


GERMAN = Vocabulary((*SPECIAL, *" abcßü"))


@pytest.mark.parametrize(
    ("texts", "vocabulary", "scored", "found"),
    [
        (["ABC", "A1É"], KAGGLE, False, {1: "'1', 'É'"}),
        (["ABC", "A1É"], KAGGLE, True, {1: "'1', 'É'"}),
        (["abc", "üÜß"], GERMAN, False, {1: "'Ü'"}),
        (["abc", "üÜß"], GERMAN, True, {}),
        (["abc", "ü\u0301ß"], GERMAN, False, {1: r"U\+0301"}),
        (["abc", ""], GERMAN, True, {1: "punctuation alone"}),
    ],
)
def test_characters_outside_the_vocabulary(texts, vocabulary, scored, found, caplog):
    """Of what is trained on, and of the competition's, each is a finding; of others' references they are counted."""
    index = PartitionIndex(np.ones((2, 2)), texts, {}, np.zeros(2, np.uint32))
    check_texts(index, PathList.of(Path("dev/transcripts"), ["a.npy", "b.npy"]), vocabulary, scored)
    assert set(index.findings) == set(found)
    for number, words in found.items():
        assert re.search(rf"b\.npy'?: found .*{words}", index.findings[number][0])
    assert ("dev: 1 of 6 letters are not in the model's vocabulary ('Ü')" in caplog.text) == (
        scored and "Ü" in texts[1]
    )


def test_a_corpus_for_another_vocabulary_is_one_message():
    index = PartitionIndex(np.ones((2, 2)), ["한국어 A", "말 B"], {}, np.zeros(2, np.uint32))
    paths = PathList.of(Path("dev/transcripts"), ["a.npy", "b.npy"])
    with pytest.raises(
        UserError, match=r"found texts of other characters \('한', .* in 2 of 2 texts, .* Kaggle's 31"
    ) as bad:
        check_texts(index, paths, KAGGLE, False)
    assert "\n" not in str(bad.value)
    index.texts[:] = ["HELLO", "WORLD"]
    with pytest.raises(UserError, match=r"\('L', .* expected those of 9 tokens \('ü', 'ß', 'c', 'b', 'a', ' '\)"):
        check_texts(index, paths, GERMAN, True)


@pytest.mark.parametrize(("texts", "advised"), [(["hello", "world"], True), (["한국어", "말"], False)])
def test_upper_case_is_advised_where_it_helps(texts, advised):
    index = PartitionIndex(np.ones((2, 2)), texts, {}, np.zeros(2, np.uint32))
    with pytest.raises(UserError) as refused:
        check_texts(index, PathList.of(Path("dev/transcripts"), ["a.npy", "b.npy"]), KAGGLE, scored=True)
    assert ("data.text.case=upper" in str(refused.value)) == advised


def test_lengths_are_counted_in_tokens():
    jamo = Vocabulary((*SPECIAL, *"ㄱㅏ"), TextForm(units="jamo"))
    index = PartitionIndex(np.array([(9, 4), (9, 4)]), ["한국어", "까까"], {}, np.zeros(2, np.uint32))
    paths = PathList.of(Path("dev/transcripts"), ["a.npy", "b.npy"])
    check_lengths(index, paths, FeatureFormat(4, True, "none"), lambda frames: 7, jamo)
    assert list(index.findings) == [0]
    assert "a transcript of 8 characters (0 doubled) for 9 frames; expected at most 7" in index.findings[0][0]


@pytest.fixture
def failing_load(monkeypatch):
    """np.load raises errors of that kind a number of times; returns how often it was called."""

    def fail(error, times):
        calls, load = [], np.load

        def flaky(*arguments, **more):
            calls.append(arguments)
            if len(calls) <= times:
                raise error
            return load(*arguments, **more)

        monkeypatch.setattr(np, "load", flaky)
        return calls

    return fail


DEPTH = SystemError("AST constructor recursion depth mismatch (before=42, after=39)")


def test_a_header_that_another_threads_parser_failed_on_is_read_again(tmp_path, failing_load):
    """Python 3.11 and 3.12 raise SystemError when several threads parse headers at once; the file is fine."""
    path = tmp_path / "a.npy"
    np.save(path, np.ones((5, 4), "f4"))
    calls = failing_load(DEPTH, 4)
    record = read_utterance(path, None)
    assert (record.shape, record.findings) == ((5, 4), [])
    assert len(calls) == 5


@pytest.mark.parametrize(
    ("error", "attempts"), [(DEPTH, 5), (OSError("Input/output error"), 1), (ValueError("bad header"), 1)]
)
def test_a_header_that_cannot_be_read_becomes_a_finding(tmp_path, failing_load, error, attempts):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((5, 4), "f4"))
    calls = failing_load(error, 1000)
    record = read_utterance(path, None)
    expected = f"  {str(path)!r}: found an unreadable file ({error}); expected a .npy array"
    assert (record.features, record.findings) == (None, [expected])
    assert len(calls) == attempts


def test_letters_that_no_alphabet_has(tmp_path):
    """numpy reads any four bytes as a letter."""
    path = tmp_path / "a.npy"
    np.save(path, np.array(["A", "B"]))
    path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(BadFile, match="letters that no alphabet has"):
        read_transcript(path)


def test_a_long_list_of_findings_is_cut_on_screen_and_whole_in_its_file(tmp_path):
    findings = [f"  {number}" for number in range(103)]
    shown = list_findings(findings, "train", 200, tmp_path / "new" / "report.txt").splitlines()
    assert shown[0] == "train: 103 findings in 200 utterances:"
    assert shown[1:101] == findings[:100]
    assert shown[101:] == [f"  ... and 3 more, all in {tmp_path / 'new' / 'report.txt'}"]
    assert (tmp_path / "new" / "report.txt").read_text().splitlines() == findings
    assert first_findings(findings[:100], None).splitlines() == findings[:100]


@pytest.mark.parametrize(
    ("shapes", "dim", "time_first"),
    [
        ([(50, 28), (60, 28), (70, 28)], 28, True),
        ([(28, 50), (28, 60), (28, 70)], 28, False),
        ([(50, 28), (60, 28), (28, 70)], 28, True),  # one is stored the other way round
        ([(50, 28), (50, 28)], 28, True),  # of equal shapes the shorter axis
        ([(28, 50), (28, 50)], 28, False),
        ([(28, 28)], 28, True),
    ],
)
def test_the_axis_that_files_agree_on_is_the_feature_axis(shapes, dim, time_first):
    assert infer_format(np.array(shapes), "mean") == FeatureFormat(dim, time_first, "mean")


def test_features_of_another_kind_are_one_message_not_a_finding_per_file():
    index = PartitionIndex(np.array([(50, 28), (60, 28)]), ["A", "B"], {}, np.zeros(2, np.uint32))
    features = PathList.of(Path("dev/mfcc"), ["a.npy", "b.npy"])
    with pytest.raises(UserError, match=r"dev/mfcc: found 2 arrays of shapes such as \(50, 28\), expected \(T, 15\)"):
        check_shapes(index, features, FeatureFormat(15, True, "mean"))
    assert index.findings == {}


@pytest.mark.parametrize(("failures", "code"), [(2, errno.EIO), (2, errno.ESTALE), (9, errno.ENOTCONN)])
def test_a_disk_that_does_not_answer_is_asked_again_and_no_fault_of_the_file(tmp_path, monkeypatch, failures, code):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((3, 2), dtype=np.float32))
    read, left = Path.read_bytes, [failures]

    def fail(self):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(code, os.strerror(code), str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr(checks, "PAUSE", 0.0)
    if failures < 5:
        assert read_utterance(path, None).findings == []
    else:
        with pytest.raises(UserError, match=r"a\.npy: its disk does not answer .*; nothing is wrong with the file"):
            read_utterance(path, None)


def test_a_disk_that_does_not_answer_is_asked_five_times_with_pauses(tmp_path, monkeypatch):
    pauses = []

    def fail(self):
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr(checks.time, "sleep", pauses.append)
    with pytest.raises(UserError):
        read_features(tmp_path / "a.npy")
    assert pauses == [0.5] * 4


def test_a_long_reason_is_cut(tmp_path, failing_load):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((5, 4), "f4"))
    failing_load(ValueError("x" * 200), 1)
    with pytest.raises(BadFile, match=r"\(x{100}\)"):
        read_features(path)


# ------------------------------------------------------------------------------------------------------ what was read


def save(folder, features, text=("<sos>", "A", "<eos>")):
    paths = folder / "f.npy", folder / "t.npy"
    np.save(paths[0], features)
    np.save(paths[1], np.array(text))
    return paths


@pytest.mark.parametrize("text", [("<sos>", "A", "B", "<eos>"), ("A", "B"), ("<sos>", "A", "B"), ("A", "B", "<eos>")])
def test_an_utterance_as_it_was_read(tmp_path, text):
    features = np.arange(6, dtype=np.float64).reshape(3, 2)
    record = read_utterance(*save(tmp_path, features, text))
    assert (record.shape, record.text, record.findings) == ((3, 2), "AB", [])
    assert record.features.dtype == np.float32
    assert record.checksum == zlib.crc32(features.astype(np.float32).tobytes())
    assert has_boundaries(tmp_path / "t.npy") == (text[0] == "<sos>")


def test_numbers_that_are_not_finite_are_counted_and_the_first_is_shown(tmp_path):
    features = np.ones((4, 3), np.float32)
    features[1, 2], features[3, 0] = np.nan, np.inf
    (finding,) = read_utterance(*save(tmp_path, features)).findings
    assert "found nan at [1, 2] (2 values not finite); expected finite numbers" in finding


@pytest.mark.parametrize(("value", "half", "fits"), [(65504, True, True), (-65505, True, False), (1e30, False, True)])
def test_what_16_bits_cannot_hold_is_a_finding_where_they_have_to(tmp_path, value, half, fits):
    findings = read_utterance(*save(tmp_path, np.array([[0.0, value]])), half).findings
    assert fits == (findings == [])
    if not fits:
        assert "found a value of 65,505; expected at most 65,504, the most that 16 bits hold" in findings[0]


def test_both_files_of_an_utterance_can_be_wrong(tmp_path):
    findings = read_utterance(*save(tmp_path, np.ones(3), [])).findings
    assert [finding.split(":")[0].strip(" '").rpartition("/")[2] for finding in findings] == ["f.npy", "t.npy"]
    assert read_utterance(tmp_path / "t.npy", None).text is None


def test_the_parts_of_an_index_add_up():
    good = UtteranceRecord(None, (5, 4), "AB", 7)
    bad = UtteranceRecord(findings=["  it is wrong"])
    one, two = PartitionIndex.of([bad, good]), PartitionIndex.of([good, bad, bad])
    whole = one + two
    assert whole.shapes.tolist() == [[0, 0], [5, 4], [5, 4], [0, 0], [0, 0]]
    assert whole.readable.tolist() == [False, True, True, False, False]
    assert whole.texts == ["", "AB", "AB", "", ""]
    assert whole.findings == {0: bad.findings, 3: bad.findings, 4: bad.findings}
    assert whole.checksums.tolist() == [0, 7, 7, 0, 0]
    whole.add(3, "  and more")
    whole.add(1, "  also")
    assert (whole.findings[3], whole.findings[1]) == (["  it is wrong", "  and more"], ["  also"])
    assert PartitionIndex.of([]).shapes.shape == (0, 2)


@pytest.mark.parametrize(("time_first", "shape"), [(True, r"shape (T, 4)"), (False, r"shape (4, T)")])
def test_files_of_another_dimension_are_findings(time_first, shape):
    shapes = np.array([(9, 4), (4, 4), (0, 0), (9, 5)])
    index = PartitionIndex(shapes if time_first else shapes[:, ::-1], [""] * 4, {}, np.zeros(4, np.uint32))
    features = PathList.of(Path("dev"), ["a.npy", "b.npy", "c.npy", "d.npy"])
    check_shapes(index, features, FeatureFormat(4, time_first, "mean"))
    found = "(9, 5)" if time_first else "(5, 9)"
    assert index.findings == {
        3: [f"  'dev/d.npy': found shape {found}; expected {shape}, as the model or the other files have"]
    }


@pytest.mark.parametrize("time_first", [True, False])
def test_texts_too_long_for_their_frames_are_findings(time_first):
    """CTC needs a step for every character, and one more between two that are the same."""
    texts = ["ABCD", "ABCDE", "AABB", "ABAB", "", "ABCDE"]
    shapes = np.array([(8, 3)] * 5 + [(0, 0)])
    index = PartitionIndex(shapes if time_first else shapes[:, ::-1], texts, {}, np.zeros(6, np.uint32))
    transcripts = PathList.of(Path("dev"), [f"{number}.npy" for number in range(6)])
    check_lengths(index, transcripts, FeatureFormat(3, time_first, "mean"), lambda frames: frames // 2)
    expected = "expected at most 4, all that the model can align to so few frames"
    assert index.findings == {
        1: [f"  'dev/1.npy': found a transcript of 5 characters (0 doubled) for 8 frames; {expected}"],
        2: [f"  'dev/2.npy': found a transcript of 4 characters (2 doubled) for 8 frames; {expected}"],
    }
