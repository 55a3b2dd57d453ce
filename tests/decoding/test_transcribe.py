"""A corpus to texts, whatever memory there is."""

import dataclasses
import re

import pytest
import torch

import decoding.transcribe
from corpora.layout import find_partition
from corpora.loading import load_corpus
from decoding.beam_search import Hypothesis
from decoding.recogniser import Recogniser
from decoding.resume import PartialResults
from decoding.transcribe import DecodingOptions, fill_batches, frame_budget, share_of_batches, transcribe
from utils.distributed import SINGLE_PROCESS, DistributedContext
from utils.errors import UserError
from utils.vocabulary import KAGGLE

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


def test_the_budget_is_what_memory_holds_with_so_many_hypotheses(monkeypatch):
    monkeypatch.setattr(decoding.transcribe, "memory_to_spare", lambda device: 28 * 10**6)
    assert [frame_budget(CPU, size, 500) for size in (1, 2, 5)] == [1166, 1076, 875]
    monkeypatch.setattr(decoding.transcribe, "memory_to_spare", lambda device: 10**12)
    assert frame_budget(CPU, 2, 500) == 10**6


def test_ranks_share_the_batches_and_each_has_some(monkeypatch):
    lengths = [10, 40, 22, 31, 20]  # 62 frames, rounded up, are half of them
    monkeypatch.setattr(DistributedContext, "all_gather", lambda self, value: [value] * self.world_size)
    shares = [share_of_batches(lengths, 2, 31, CPU, DistributedContext(rank, 2)) for rank in range(2)]
    assert [[[item.position for item in batch] for batch in share] for share in shares] == [[[1], [4, 0]], [[3, 2]]]
    (everything,) = share_of_batches(lengths, 2, 31, CPU, SINGLE_PROCESS)
    assert [item.position for item in everything] == [1, 3, 2, 4, 0]


def test_ranks_of_unequal_memory_share_every_utterance_once(monkeypatch):
    lengths, budgets = [10 + 7 * index % 400 for index in range(300)], [9000, 4000, 8999]
    monkeypatch.setattr(DistributedContext, "all_gather", lambda self, value: budgets)
    shares = []
    for rank, budget in enumerate(budgets):
        monkeypatch.setattr(decoding.transcribe, "frame_budget", lambda *_, budget=budget: budget)
        shares += share_of_batches(lengths, 2, 31, CPU, DistributedContext(rank, 3))
    assert sorted(item.position for batch in shares for item in batch) == list(range(300))
    assert max(max(lengths[item.position] for item in batch) * len(batch) for batch in shares) <= min(budgets)


@pytest.mark.parametrize(("mode", "rows"), [("beam", 3), ("greedy", 1)])
def test_batches_are_made_for_the_hypotheses_that_there_are(mode, rows, make_las, corpus, monkeypatch):
    spelling(["A"], monkeypatch)
    asked = []
    monkeypatch.setattr(decoding.transcribe, "frame_budget", lambda device, size, V: asked.append((size, V)) or 10**6)
    transcribe(Recogniser([make_las()]), corpus, DecodingOptions(mode, 3, "likelihood", 0.0), CPU)
    assert asked == [(rows, 31)]


def test_options_are_named_as_people_know_them():
    assert [str(DecodingOptions(mode, 8, "mbr", 0.5)) for mode in ("greedy", "beam")] == ["greedy", "beam 8"]


def test_utterances_without_finite_numbers_are_named(make_las, corpus, monkeypatch):
    """The first three of them."""
    recogniser, positions = Recogniser([make_las(), make_las(1)]), torch.tensor([1, 4, 6, 9])
    encode_batch = recogniser.encode

    def broken(features, lengths):
        encoded = encode_batch(features, lengths)
        encoded[1].memory.keys[positions, 0, 2, 5] = float("inf")
        return encoded

    monkeypatch.setattr(recogniser, "encode", broken)
    order = sorted(range(12), key=lambda index: -corpus.lengths[index])
    names = ", ".join(str(corpus.paths[order[position]]) for position in positions[:3])
    with pytest.raises(UserError, match=f"^{re.escape(names)}: found no finite numbers"):
        transcribe(recogniser, corpus, OPTIONS, CPU)


def spelling(texts, monkeypatch):
    """Greedy search and beam search give `texts`, best first, for every utterance."""
    beam = [Hypothesis(KAGGLE.encode(text)[1:-1], -float(place), -float(place)) for place, text in enumerate(texts)]
    monkeypatch.setattr(
        decoding.transcribe, "greedy_search", lambda model, encoded, limits: [beam[0].tokens] * len(limits)
    )
    monkeypatch.setattr(decoding.transcribe, "beam_search", lambda model, encoded, limits, *_: [beam] * len(limits))
    monkeypatch.setattr(
        decoding.transcribe, "first_letters", lambda model, encoded, vocabulary: ["Q"] * len(encoded[0].memory.keys)
    )


@pytest.mark.parametrize("mode", ["greedy", "beam"])
@pytest.mark.parametrize(
    ("texts", "in_beam", "greedy"),
    [
        (["A", "B"], "A", "A"),
        (["", " ", "B"], "B", "Q"),
        ([" ", "", "B"], "B", "Q"),
        (["", " "], "Q", "Q"),
        ([" A  B "], "A B", "A B"),
    ],
)
def test_where_blanks_are_not_allowed_every_utterance_has_a_letter(
    make_las, corpus, monkeypatch, mode, texts, in_beam, greedy
):
    """The best hypothesis that says something, else the most probable first letter."""
    spelling(texts, monkeypatch)
    recogniser, options = Recogniser([make_las()]), DecodingOptions(mode, 3, "likelihood", 0.0)
    assert transcribe(recogniser, corpus, options, CPU) == [" ".join(texts[0].split())] * 12
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
