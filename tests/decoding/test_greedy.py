"""Greedy decoding against a slow reference, and the best path of the CTC branch."""

import pytest
import torch

from decoding.greedy import ctc_greedy, greedy_search
from tests.decoding.scripted import CASES, LIMITS, Scripted, V
from utils.vocabulary import EOS, PAD, SOS


def slow_greedy(model, memories, limit):
    states, token, spelled = model.initial_state(memories), torch.tensor([SOS]), []
    while len(spelled) < limit:
        log_probs, states = model.step(token, states, memories)
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
