"""A corpus to texts, whatever memory there is."""

import pytest
import torch

import decoding.transcribe
from corpora.layout import find_partition
from corpora.loading import load_corpus
from decoding.recogniser import Recogniser
from decoding.transcribe import DecodingOptions, fill_batches, transcribe
from utils.errors import UserError

CPU = torch.device("cpu")
OPTIONS = DecodingOptions("beam", 3, "likelihood", 0.5)


@pytest.fixture
def corpus(toy_root):
    return load_corpus([find_partition(toy_root, "dev")], "mean")


def with_room_for(rows, monkeypatch, error):
    """Beam search that fails on larger batches, and the sizes of those that it was asked for."""
    search, asked = decoding.transcribe.beam_search, []

    def limited(recogniser, heard, limits, *rest):
        asked.append(len(limits))
        if len(limits) > rows:
            raise error
        return search(recogniser, heard, limits, *rest)

    monkeypatch.setattr(decoding.transcribe, "beam_search", limited)
    return asked


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_without_room_is_halved_and_gives_the_same(make_las, corpus, monkeypatch, error):
    recogniser = Recogniser([make_las(scale=2.0)], ctc_weight=0.3)
    expected = transcribe(recogniser, corpus, OPTIONS, CPU)
    asked = with_room_for(3, monkeypatch, error)
    assert transcribe(recogniser, corpus, OPTIONS, CPU) == expected
    assert asked == [12, 6, 3, 3, 6, 3, 3]
    assert len(set(expected)) > 3


def test_one_utterance_without_room_is_named(make_las, corpus, monkeypatch):
    with_room_for(0, monkeypatch, torch.OutOfMemoryError("CUDA"))
    with pytest.raises(UserError, match=r"dev-0\d\d\.npy: no memory to decode its \d+ frames; .*decoding\.beam_size"):
        transcribe(Recogniser([make_las()]), corpus, OPTIONS, CPU)


def test_other_errors_are_not_swallowed(make_las, corpus, monkeypatch):
    with_room_for(0, monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        transcribe(Recogniser([make_las()]), corpus, OPTIONS, CPU)


def test_batches_fill_the_room_there_is_and_hold_like_lengths():
    lengths = [30, 100, 20, 90, 95, 10, 500]
    batches = [[item.position for item in batch] for batch in fill_batches(lengths, 300)]
    assert batches == [[6], [1, 4, 3], [0, 2, 5]]  # one that alone is too long is tried alone
