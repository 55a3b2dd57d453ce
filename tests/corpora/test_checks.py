"""Files that cannot be used: what was found, what was expected."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from corpora import checks
from corpora.checks import (
    PartitionIndex,
    check_shapes,
    first_findings,
    infer_format,
    list_findings,
    read_features,
    read_transcript,
    read_utterance,
)
from corpora.layout import PathList
from utils.errors import BadFile, UserError
from utils.features import FeatureFormat


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
        (np.array(["<sos>", "H", "é", "1", "<eos>"]), "outside the vocabulary: '1', 'é'"),
        (np.array(["h", "i"]), "'h', 'i'"),
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
