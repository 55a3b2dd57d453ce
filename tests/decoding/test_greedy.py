"""Greedy decoding against a slow reference, and the best path of the CTC branch."""

import pytest
import torch

from decoding.greedy import ctc_greedy, first_letters, greedy_search
from decoding.recogniser import EncodedUtterances
from models.attention import Memory
from tests.decoding.scripted import CASES, LIMITS, Scripted, V
from utils.vocabulary import EOS, PAD, SOS, VOCABULARY


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


def test_ctc_greedy_merges_repeats_and_drops_blanks():
    labels = torch.tensor([[0, 3, 3, 0, 3, 4, 0, 5], [4, 4, 5, 5, 5, 0, 3, 3]])
    log_probs = torch.nn.functional.one_hot(labels, V).float().log()
    assert ctc_greedy(log_probs, torch.tensor([8, 6])) == [[3, 3, 4, 5], [4, 5]]


def test_first_letters_are_the_most_probable_that_say_something():
    """For utterances that must not be empty: neither <eos> nor a space, the most probable of all here."""

    class Reluctant(Scripted):
        def step(self, token, states, encoded):
            log_probs = torch.full((len(token), V), -9.0)
            log_probs[:, [PAD, SOS, EOS, VOCABULARY.index(" ")]] = torch.tensor([-0.1, -0.2, -0.3, -0.4])
            log_probs[torch.arange(3), [5, 3, 29]] = -1.0
            log_probs[torch.arange(3), [9, 8, 7]] = -2.0
            return log_probs, states

    memory = Memory(*[torch.zeros(3, 1)] * 4)
    model = Reluctant(0, 3)
    model.initial_state = lambda encoded, rows=1: ()
    assert first_letters(model, [EncodedUtterances(memory, None)]) == ["C", "A", "'"]
