"""evaluate() on models whose answers are known, and on ranks that must leave it together."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from Levenshtein import distance

from corpora.loading import load_labelled
from dataset import FeatureDataset, make_loader
from decoding.transcribe import fill_batches
from training.evaluate import evaluate, lockstep, utterances_to_show
from utils.metrics import repetition, score, tidy
from utils.vocabulary import EOS, KAGGLE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dev(toy_root):
    (corpus,) = load_labelled(toy_root, {"dev": ["dev"]}, "mean_variance")
    return corpus


def loader_of(corpus, batch_size: int):
    return make_loader(FeatureDataset(corpus), fill_batches(corpus.lengths, batch_size * max(corpus.lengths)), 0, CPU)


def script(model, text: str) -> None:
    """Lets the Speller answer `text` whatever it hears; along a transcript it guesses, and looks along the diagonal."""
    answer = [*KAGGLE.encode(text)[1:-1], EOS]

    def initial_state(memory, rows):
        return (torch.zeros(len(memory.keys) * rows, dtype=torch.long),)

    def step(token, state, memory, spoken):
        (position,) = state
        logits = torch.zeros(len(token), len(KAGGLE))
        logits[range(len(token)), [answer[min(index, len(answer) - 1)] for index in position.tolist()]] = 20.0
        return logits, (position + 1,), torch.zeros(len(token), 1, memory.keys.size(2))

    def spell(tokens, memory, teacher_forcing_rate, spoken):
        B, U = tokens.shape
        characters, steps = (tokens > 0).sum(1), memory.lengths
        attention = torch.zeros(B, 1, U, memory.keys.size(2))
        for row in range(B):
            for u in range(int(characters[row])):
                attention[row, 0, u, u * int(steps[row]) // int(characters[row])] = 1
        return torch.zeros(B, U, len(KAGGLE)), attention

    model.speller.initial_state, model.speller.step, model.speller.forward = initial_state, step, spell


def test_metrics_of_a_scripted_model(make_las, dev):
    model = make_las(ctc=False)
    script(model, "AB")
    shown = utterances_to_show(dev)
    found = evaluate(model, loader_of(dev, 5), shown, CPU, "float32")
    expected = score(dev.transcripts, ["AB"] * 12)
    metrics = found.metrics
    assert (metrics["dev_distance"], metrics["dev_cer"], metrics["dev_wer"]) == expected
    assert expected.distance == sum(distance(tidy(text), "AB") for text in dev.transcripts) / 12
    assert metrics["dev_loss"] == pytest.approx(math.log(len(KAGGLE)), rel=1e-6)
    assert metrics["dev_monotonicity"] > 0.95
    assert metrics["dev_sharpness"] == pytest.approx(1, abs=1e-6)
    assert metrics["dev_coverage"] == pytest.approx(1, abs=0.05)
    assert metrics["dev_unended"] == metrics["dev_loops"] == 0
    assert "dev_ctc_distance" not in metrics
    names = [path.stem for path in dev.paths]
    assert [tuple(row) for row in found.predictions] == [
        (name, tidy(text), "AB", distance(tidy(text), "AB")) for name, text in zip(names, dev.transcripts, strict=True)
    ]
    assert [drawn.utterance for drawn in found.maps] == [names[index] for index in shown]
    for drawn, index in zip(found.maps, shown, strict=True):
        assert drawn.characters == [*dev.transcripts[index], "<eos>"]
        assert drawn.weights.shape[0] == len(drawn.characters)
        assert drawn.weights.sum(1) == pytest.approx(1)
        assert drawn.seconds == dev.lengths[index] / 100


def test_batches_do_not_change_what_is_measured(make_las, dev):
    """Losses are means over characters, not over batches."""
    model = make_las(scale=3.0)
    whole, parts = (evaluate(model, loader_of(dev, size), [0], CPU, "float32") for size in (12, 5))
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-5)
    assert parts.predictions == whole.predictions


def test_maps_end_where_an_utterance_does_in_memory_steps(make_las, dev):
    """Attention sees an eighth of the frames here, the CTC branch a quarter."""
    model = make_las(listener={"pblstm_layers": 2})
    found = evaluate(model, loader_of(dev, 5), range(12), CPU, "float32")
    for drawn, frames in zip(found.maps, dev.lengths, strict=True):
        assert drawn.weights.shape[1] == -(-frames // 8)
        assert drawn.weights.sum(1) == pytest.approx(1, abs=1e-5)


class Texts(list):
    """What utterances_to_show needs of a corpus."""

    @property
    def transcripts(self):
        return self


@pytest.mark.parametrize(("lengths", "shown"), [(range(11), [3, 6, 9]), ([5, 1], [1, 0]), ([7], [0])])
def test_a_short_a_middling_and_a_long_utterance_are_shown(lengths, shown):
    """At three, six and nine tenths of the order of their texts' lengths."""
    assert utterances_to_show(Texts("A" * length for length in lengths)) == shown


@pytest.mark.parametrize(("text", "loops"), [("ABAB", 0), ("ABCABCABCABC", 1)])
def test_loops_are_told_from_references_by_their_repetition(text, loops, make_las, dev):
    model = make_las(ctc=False)
    script(model, text)
    found = evaluate(model, loader_of(dev, 5), [0], CPU, "float32")
    beyond = [repetition(text) - repetition(true) for true in dev.transcripts]
    assert found.metrics["dev_loops"] == sum(each > 0.3 for each in beyond) / 12
    assert (found.metrics["dev_loops"] > 0) == bool(loops)


def test_without_the_speller_the_hypothesis_is_what_ctc_reads(make_las, dev):
    model = make_las(scale=3.0)
    script(model, "AB")
    found = evaluate(model, loader_of(dev, 5), [0], CPU, "float32", spell=False)
    assert found.metrics["dev_distance"] == found.metrics["dev_ctc_distance"]
    assert {row.hypothesis for row in found.predictions} != {"AB"}
    spelled = evaluate(model, loader_of(dev, 5), [0], CPU, "float32")
    assert spelled.metrics["dev_ctc_distance"] == found.metrics["dev_ctc_distance"] != spelled.metrics["dev_distance"]


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_it_ends_without_a_result_once_it_is_stopped(batches, make_las, dev):
    """Of three batches: one that has all of them is not stopped any more."""
    model, evaluated = make_las(), []
    forward = model.forward
    model.forward = lambda *inputs, **named: evaluated.append(1) or forward(*inputs, **named)
    found = evaluate(model, loader_of(dev, 4), [0], CPU, "float32", stop=lambda: len(evaluated) >= batches)
    assert (found is None) == (batches < 3)
    assert len(evaluated) == batches


# -------------------------------------------------------------------------------------------------------- several ranks


class ThreadContext:
    """What lockstep needs of a DistributedContext, between threads; one that waits in vain fails."""

    hide_progress = True

    def __init__(self, rank: int, world_size: int, barrier: threading.Barrier, values: dict):
        self.rank, self.world_size, self.barrier, self.values = rank, world_size, barrier, values

    def all_reduce_sum(self, value):
        self.values[self.rank] = value.clone()
        self.barrier.wait()
        total = sum(self.values.values())
        self.barrier.wait()
        return total

    def any_rank(self, flag):
        return bool(self.all_reduce_sum(torch.tensor(int(flag))))


def on_two_ranks(lengths, stops) -> list[int]:
    """How many batches each rank gets, of so many, where each asks to stop before the batch of that index."""
    barrier, values = threading.Barrier(2, timeout=20), {}

    def leave(rank):
        seen = []
        batches = [torch.zeros(1)] * lengths[rank]
        context = ThreadContext(rank, 2, barrier, values)
        for batch in lockstep(batches, context, CPU, stop=lambda: len(seen) == stops[rank]):
            seen.append(batch)
        return len(seen)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(leave, range(2)))


def test_ranks_leave_together_with_a_batch_more_on_one():
    assert on_two_ranks((3, 2), (None, None)) == [3, 2]
    assert on_two_ranks((2, 2), (None, None)) == [2, 2]


@pytest.mark.parametrize(("stops", "seen"), [((None, 1), [1, 1]), ((0, None), [0, 0]), ((2, None), [2, 2])])
def test_ranks_leave_together_once_one_is_stopped(stops, seen):
    assert on_two_ranks((3, 2), stops) == seen
