"""Where the CTC branch hears the characters of a transcript, against all paths enumerated and the search."""

from itertools import product

import pytest
import torch

from decoding import ctc_prefix
from models.alignment import ctc_positions
from utils.vocabulary import SOS


def first_emissions(path) -> list[tuple[int, int]]:
    """Characters that a path of symbols spells, each with the step at which it is first emitted."""
    return [(symbol, at) for at, symbol in enumerate(path) if symbol and (at == 0 or path[at - 1] != symbol)]


def test_positions_are_the_mean_of_all_paths_whatever_follows():
    torch.manual_seed(0)
    log_probs = torch.randn(2, 6, 5).log_softmax(2)
    characters, steps = torch.tensor([[3, 4, 4], [2, 1, 0]]), torch.tensor([6, 4])
    found = ctc_positions(log_probs, steps, characters, torch.tensor([3, 2]))
    for row, length in ((0, 3), (1, 2)):
        spoken, S = characters[row, :length].tolist(), int(steps[row])
        for last in range(length):
            total = weighted = 0.0
            for path in product(range(5), repeat=S):
                emitted = first_emissions(path)[: last + 1]
                if [symbol for symbol, _ in emitted] == spoken[: last + 1]:
                    probability = float(log_probs[row, range(S), path].sum().exp())
                    total, weighted = total + probability, weighted + probability * emitted[last][1]
            assert found[row, last].item() == pytest.approx(weighted / total, abs=1e-4)


def test_training_and_search_hear_a_character_at_the_same_step():
    torch.manual_seed(1)
    log_probs, lengths = (4 * torch.randn(2, 300, 31)).log_softmax(2), torch.tensor([300, 220])
    tokens = torch.randint(3, 31, (2, 50))
    tokens[0, 10:15] = 7
    found = ctc_positions(log_probs, lengths, tokens, torch.tensor([50, 50]))
    frames = ctc_prefix.prepare(log_probs, lengths)
    _, state = ctc_prefix.step(torch.tensor([SOS, SOS]), ctc_prefix.initial_state(frames, 1, positions=True), frames)
    assert state.position.tolist() == [0, 0]
    for step, token in enumerate(tokens.unbind(1)):
        _, state = ctc_prefix.step(token, state, frames)
        torch.testing.assert_close(state.position, found[:, step], atol=0.02, rtol=1e-4)


def test_positions_are_peaks_and_padding_changes_nothing():
    scores = torch.zeros(1, 12, 6)
    scores[:, :, 0] = 6
    for step, character in ((2, 3), (5, 4), (9, 4)):
        scores[0, step, character] = 20
    log_probs = scores.log_softmax(2).requires_grad_()
    characters, lengths = torch.tensor([[3, 4, 4]]), torch.tensor([12])
    found = ctc_positions(log_probs, lengths, characters, torch.tensor([3]))
    assert found[0].tolist() == pytest.approx([2, 5, 9], abs=0.1)
    assert not found.requires_grad
    noisy = torch.cat([log_probs, torch.full((1, 30, 6), float("nan"))], dim=1)
    padded = ctc_positions(noisy, lengths, torch.tensor([[3, 4, 4, 5]]), torch.tensor([3]))
    torch.testing.assert_close(padded[:, :3], found)
    assert padded.isfinite().all()


def test_a_transcript_that_ctc_cannot_spell_is_no_fault():
    found = ctc_positions(
        torch.randn(1, 2, 6).log_softmax(2), torch.tensor([2]), torch.tensor([[3, 4, 5]]), torch.tensor([3])
    )
    assert found[0, 0] > 0
    assert found[0].tolist() == [found[0, 0], 1, 1]  # the third is where the second was
    nothing = torch.zeros(1, 0, dtype=torch.long)
    assert ctc_positions(torch.randn(1, 2, 6), torch.tensor([2]), nothing, torch.tensor([0])).shape == (1, 0)
