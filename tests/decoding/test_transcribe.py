"""A corpus to texts, whatever memory there is."""

import dataclasses

import pytest
import torch

import decoding.transcribe
from corpora.layout import find_partition
from corpora.loading import load_corpus
from decoding.beam_search import Hypothesis
from decoding.recogniser import Recogniser
from decoding.resume import PartialResults
from decoding.transcribe import DecodingOptions, fill_batches, transcribe
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.vocabulary import encode

CPU = torch.device("cpu")
OPTIONS = DecodingOptions("beam", 3, "likelihood", 0.5)


@pytest.fixture
def corpus(toy_root):
    return load_corpus([find_partition(toy_root, "dev")], "mean")


@pytest.fixture(autouse=True)
def large_batches(monkeypatch):
    monkeypatch.setattr(decoding.transcribe, "MAX_FRAMES", 10**6)


def with_room_for(rows, monkeypatch, error):
    """Beam search that fails on larger batches, and the sizes of those that it was asked for."""
    search, asked = decoding.transcribe.beam_search, []

    def limited(recogniser, encoded, limits, *rest):
        asked.append(len(limits))
        if len(limits) > rows:
            raise error
        return search(recogniser, encoded, limits, *rest)

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


def spelling(texts, monkeypatch):
    """Greedy search and beam search give `texts`, best first, for every utterance."""
    beam = [Hypothesis(encode(text)[1:-1], -float(place), -float(place)) for place, text in enumerate(texts)]
    monkeypatch.setattr(
        decoding.transcribe, "greedy_search", lambda model, encoded, limits: [beam[0].tokens] * len(limits)
    )
    monkeypatch.setattr(decoding.transcribe, "beam_search", lambda model, encoded, limits, *_: [beam] * len(limits))
    monkeypatch.setattr(
        decoding.transcribe, "first_letters", lambda model, encoded: ["Q"] * len(encoded[0].memory.keys)
    )


@pytest.mark.parametrize("mode", ["greedy", "beam"])
@pytest.mark.parametrize(
    ("texts", "in_beam", "greedy"),
    [(["A", "B"], "A", "A"), (["", " ", "B"], "B", "Q"), ([" ", "", "B"], "B", "Q"), (["", " "], "Q", "Q")],
)
def test_where_blanks_are_not_allowed_every_utterance_has_a_letter(
    make_las, corpus, monkeypatch, mode, texts, in_beam, greedy
):
    """The best hypothesis that says something, else the most probable first letter."""
    spelling(texts, monkeypatch)
    recogniser, options = Recogniser([make_las()]), DecodingOptions(mode, 3, "likelihood", 0.0)
    assert transcribe(recogniser, corpus, options, CPU) == [texts[0]] * 12
    expected = in_beam if mode == "beam" else greedy
    options = dataclasses.replace(options, allow_blank=False)
    assert transcribe(recogniser, corpus, options, CPU) == [expected] * 12


def test_what_a_killed_decoding_left_is_not_decoded_again(make_las, corpus, monkeypatch, tmp_path):
    recogniser = Recogniser([make_las(scale=2.0)], ctc_weight=0.3)
    expected = transcribe(recogniser, corpus, OPTIONS, CPU)
    names = [path.name for path in corpus.paths]
    partial = PartialResults(tmp_path, "dev", "key", False, SINGLE_PROCESS)
    partial.add({names[2]: "KEPT", names[5]: "KEPT TOO", "of another corpus": "NOT THIS"})
    partial = PartialResults(tmp_path, "dev", "key", True, SINGLE_PROCESS)
    asked = with_room_for(12, monkeypatch, None)
    found = transcribe(recogniser, corpus, OPTIONS, CPU, partial=partial)
    assert [found[2], found[5]] == ["KEPT", "KEPT TOO"]
    assert asked == [10]
    others = [index for index in range(12) if index not in (2, 5)]
    assert [found[index] for index in others] == [expected[index] for index in others]
    resumed = PartialResults(tmp_path, "dev", "key", True, SINGLE_PROCESS).texts
    assert [resumed[name] for name in names] == found
