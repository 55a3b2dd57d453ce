"""Files that cannot be used: what was found, what was expected."""

import numpy as np
import pytest

from corpora.checks import read_features, read_transcript
from utils.errors import BadFile


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


def test_a_header_that_another_threads_parser_failed_on_is_read_again(tmp_path, monkeypatch):
    """Python 3.11 raises SystemError when several threads parse headers at once; the file is fine."""
    path, load, failures = tmp_path / "a.npy", np.load, [3]
    np.save(path, np.ones((5, 4), "f4"))

    def flaky(*arguments, **more):
        failures[0] -= 1
        if failures[0] >= 0:
            raise SystemError("AST constructor recursion depth mismatch (before=42, after=39)")
        return load(*arguments, **more)

    monkeypatch.setattr(np, "load", flaky)
    assert read_features(path).shape == (5, 4)
    failures[0] = 100
    with pytest.raises(BadFile, match="an unreadable file"):
        read_features(path)
