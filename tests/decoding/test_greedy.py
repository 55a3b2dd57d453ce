"""Greedy decoding against a slow reference, and the best path of the CTC branch."""

import pytest
import torch

from benchmarks.pretend_cuda import PretendCuda
from decoding.greedy import ctc_greedy, first_letters, greedy_search
from decoding.recogniser import EncodedUtterances
from models.attention import Memory
from tests.decoding.scripted import CASES, LIMITS, Scripted, ScriptedOnGpu, V
from utils.vocabulary import EOS, KAGGLE, PAD, SOS


def slow_greedy(model, encoded, limit):
    states, token, spelled = model.initial_state(encoded), torch.tensor([SOS]), []
    while len(spelled) < limit:
        log_probs, states = model.step(token, states, encoded)
        best = max((c for c in range(V) if c not in (PAD, SOS)), key=lambda c: float(log_probs[0, c]))
        if best == EOS:
            break
        spelled.append(best)
        token = torch.tensor([best])
    return spelled


@pytest.mark.parametrize(("seed", "ending"), CASES)
def test_greedy_equals_slow_greedy(seed, ending):
    model = Scripted(seed, 6, ending)
    together = greedy_search(model, (torch.arange(6),), LIMITS)
    assert together == [slow_greedy(model, (torch.tensor([u]),), int(LIMITS[u])) for u in range(6)]


@pytest.mark.parametrize(("limit", "ending", "steps"), [(20, -100.0, 20), (20, 100.0, 8), (5, 100.0, 5)])
def test_on_a_gpu_it_asks_every_eighth_step_whether_all_have_finished(limit, ending, steps):
    limits = torch.full((3,), limit)
    expected = greedy_search(Scripted(0, 3, ending), (torch.arange(3),), limits)
    with PretendCuda() as gpu:
        model, encoded = ScriptedOnGpu(0, 3, ending), (torch.arange(3).to(gpu.device),)
        with gpu.count() as counted:
            assert greedy_search(model, encoded, limits) == expected
    assert counted.by_name["argmax"] == steps
    assert len(counted.syncs) == steps // 8 + 1  # and the texts


def test_on_a_cpu_it_ends_with_the_last_text():
    class Counted(Scripted):
        steps = 0

        def step(self, token, states, encoded):
            self.steps += 1
            return super().step(token, states, encoded)

    model = Counted(0, 6, ending=100.0)
    greedy_search(model, (torch.arange(6),), LIMITS)
    assert model.steps == 1


def test_ctc_greedy_merges_repeats_and_drops_blanks():
    labels = torch.tensor([[0, 3, 3, 0, 3, 4, 0, 5], [4, 4, 5, 5, 5, 0, 3, 3]])
    log_probs = torch.nn.functional.one_hot(labels, V).float().log()
    assert ctc_greedy(log_probs, torch.tensor([8, 6])) == [[3, 3, 4, 5], [4, 5]]


def test_first_letters_are_the_most_probable_that_say_something():
    """For utterances that must not be empty: neither <eos> nor a space, the most probable of all here."""

    class Reluctant(Scripted):
        def step(self, token, states, encoded):
            log_probs = torch.full((len(token), V), -9.0)
            log_probs[:, [PAD, SOS, EOS, KAGGLE.tokens.index(" ")]] = torch.tensor([-0.1, -0.2, -0.3, -0.4])
            log_probs[torch.arange(3), [5, 3, 29]] = -1.0
            log_probs[torch.arange(3), [9, 8, 7]] = -2.0
            return log_probs, states

    memory = Memory(*[torch.zeros(3, 1)] * 4)
    model = Reluctant(0, 3)
    model.initial_state = lambda encoded, rows=1: ()
    assert first_letters(model, [EncodedUtterances(memory, None)]) == ["C", "A", "'"]
