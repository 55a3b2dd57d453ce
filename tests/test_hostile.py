"""Broken and hostile input, thousands of cases: each ends in success or in one clean message, and no code is run."""

import contextlib
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import known_keys, load_config
from corpora.checks import read_utterance
from tests.conftest import speak
from utils.checkpoint import load_checkpoint, load_models, save_checkpoint
from utils.errors import UserError
from utils.vocabulary import KAGGLE

CASES = 400  # of each kind
QUIET = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut off, with bits turned over, with a piece repeated or overwritten; the first bytes, the header, more often."""
    data = bytearray(content)
    near = min(len(data), 160)
    kind = generator.integers(5)
    if kind == 0:
        return bytes(data[: generator.integers(len(data))])
    for _ in range(generator.integers(1, 6)):
        at = int(generator.integers(near if generator.random() < 0.7 else len(data)))
        if kind == 1:
            data[at] ^= 1 << int(generator.integers(8))
        elif kind == 2:
            data[at] = int(generator.integers(256))
        elif kind == 3:
            size = int(generator.integers(1, 40))
            data[at:at] = data[at : at + size]
        else:
            digits = str(generator.integers(10 ** int(generator.integers(1, 12)))).encode()
            data[at : at + len(digits)] = digits
    return bytes(data)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: str, body: bytes = b"") -> bytes:
    """A .npy file with a header of our own making."""
    padded = text.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + body


@pytest.fixture
def pair(tmp_path):
    return tmp_path / "features.npy", tmp_path / "transcript.npy"


@pytest.mark.parametrize("seed", range(3))
def test_mutated_arrays(pair, seed):
    generator = np.random.default_rng(seed)
    features = npy(speak("A CAB", generator))
    transcript = npy(np.array(["<sos>", *"A CAB", "<eos>"]))
    complaints = 0
    for _ in range(CASES):
        pair[0].write_bytes(mutated(features, generator))
        pair[1].write_bytes(mutated(transcript, generator))
        record = read_utterance(*pair)
        assert record.findings or (record.features.ndim == 2 and record.text)
        assert all("found" in finding and "expected" in finding for finding in record.findings)
        complaints += bool(record.findings)
    assert complaints > CASES / 2


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil-code-was-here",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 not really a zip",
        npy(np.zeros(5)),
        npy(np.zeros((2, 3, 4))),
        npy(np.zeros((0, 12))),
        npy(np.full((3, 12), np.nan)),
        npy(np.zeros((3, 12), dtype=complex)),
        npy(np.array([["a", "b"]])),
        pickle.dumps(Evil()),
        npy(np.array([Evil()], dtype=object)),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 28), }", b"\0" * 64),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 28), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 28), }", b"\0" * 560),
        header("{'descr': '|V1000000000', 'fortran_order': False, 'shape': (1, 1), }"),
        header("{'descr': '<U99999999', 'fortran_order': False, 'shape': (5,), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }", pickle.dumps(Evil())),
        header("__import__('os').system('touch evil-code-was-here')"),
        header("(" * 110),
    ],
    ids=range(18),
)
def test_arrays_that_are_none(pair, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for features, transcript in ((content, npy(np.array(["A"]))), (npy(np.ones((9, 12), "f4")), content)):
        pair[0].write_bytes(features)
        pair[1].write_bytes(transcript)
        (finding,) = read_utterance(*pair).findings
        assert "found" in finding
    assert not Path("evil-code-was-here").exists()


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory):
    from models.las import LAS
    from tests.conftest import SMALL

    sizes = {**load_config(overrides=[*SMALL, "model.listener.hidden=4"]).model.model_dump(), "ctc": True}
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    checkpoint = {
        "model": LAS(12, len(KAGGLE), **sizes).state_dict(),
        "model_settings": sizes,
        "features": {"dim": 12, "time_first": True, "normalize": "mean"},
        "vocabulary": list(KAGGLE.tokens),
        "epoch": 1,
    }
    save_checkpoint(path, checkpoint)
    return path, checkpoint


def test_mutated_checkpoints(checkpoint_file, tmp_path):
    content, generator, refused = checkpoint_file[0].read_bytes(), np.random.default_rng(0), 0
    path = tmp_path / "mutated.pt"
    for _ in range(CASES):
        path.write_bytes(mutated(content, generator))
        try:
            load_models([path])
        except UserError:
            refused += 1
    assert refused > CASES / 2


def test_checkpoints_with_code_or_of_another_kind(checkpoint_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, checkpoint = checkpoint_file
    path = tmp_path / "other.pt"
    others = [{**checkpoint, "epoch": Evil()}, Evil(), [1, 2], {"model": 3}, torch.ones(3)]
    others += [{**checkpoint, key: value} for key in checkpoint for value in (None, "x", 7, {}, [])]
    others += [{**checkpoint, "model_settings": {**checkpoint["model_settings"], "attention": {"kind": "other"}}}]
    accepted = 0
    for other in others:
        torch.save(other, path)
        try:
            load_models([path])
            accepted += 1
        except UserError:
            pass
    assert accepted <= 5  # whatever stands as the epoch is only printed
    assert not Path("evil-code-was-here").exists()
    with pytest.raises(UserError):
        load_checkpoint(tmp_path)  # a folder


words = st.sampled_from([*"-{}[]:\n", "training", "model", "epochs", "conv", "listener", "data", "  "])
pieces = st.one_of(words, st.text(max_size=6), st.integers().map(str), st.floats().map(str))


@QUIET
@given(text=st.one_of(st.text(max_size=200), st.lists(pieces, max_size=30).map(" ".join)))
def test_any_text_as_a_configuration_file(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(UserError):
        load_config(path)


@QUIET
@given(key=st.sampled_from(sorted(known_keys())), value=st.one_of(st.text(max_size=40), pieces))
def test_any_value_of_any_key(key, value):
    with contextlib.suppress(UserError):
        load_config(overrides=[f"{key}={value}"])
