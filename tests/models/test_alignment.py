"""Where the CTC branch hears the characters of a transcript, against all paths enumerated."""

from itertools import product

import pytest
import torch

from models.alignment import ctc_occupancy, ctc_positions


def paths(characters, steps):
    """Every path of labels (0 blank, k the k-th character) that spells the characters in order, each of them once."""
    for path in product(range(len(characters) + 1), repeat=steps):
        merged = [label for at, label in enumerate(path) if label and (at == 0 or path[at - 1] != label)]
        if merged == list(range(1, len(characters) + 1)):
            yield path


def test_occupancy_is_that_of_all_paths_and_none_in_padding():
    torch.manual_seed(0)
    log_probs = torch.randn(2, 6, 5).log_softmax(2)
    characters, steps = torch.tensor([[3, 4, 4], [2, 1, 0]]), torch.tensor([6, 4])
    found = ctc_occupancy(log_probs, steps, characters, torch.tensor([3, 2]))
    assert found.shape == (2, 6, 3)
    for row, length in ((0, 3), (1, 2)):
        spoken, S = characters[row, :length].tolist(), int(steps[row])
        expected, total = torch.zeros(S, length), 0.0
        for path in paths(spoken, S):
            symbols = [0 if label == 0 else spoken[label - 1] for label in path]
            probability = float(log_probs[row, range(S), symbols].sum().exp())
            total += probability
            for step, label in enumerate(path):
                if label:
                    expected[step, label - 1] += probability
        torch.testing.assert_close(found[row, :S, :length], expected / total, atol=1e-5, rtol=1e-4)
    assert (found[1, 4:] == 0).all()


def test_positions_are_peaks_in_order_and_padding_changes_nothing():
    scores = torch.zeros(1, 12, 6)
    scores[:, :, 0] = 6
    for step, character in ((2, 3), (5, 4), (9, 4)):
        scores[0, step, character] = 20
    log_probs = scores.log_softmax(2).requires_grad_()
    characters, lengths = torch.tensor([[3, 4, 4]]), torch.tensor([12])
    found = ctc_positions(log_probs, lengths, characters, torch.tensor([3]))
    assert found[0].tolist() == pytest.approx([2, 5, 9], abs=0.1)
    assert not found.requires_grad
    noisy = torch.cat([log_probs, torch.randn(1, 30, 6).log_softmax(2)], dim=1)
    with torch.no_grad():  # as in evaluation
        padded = ctc_positions(noisy, lengths, torch.tensor([[3, 4, 4, 5]]), torch.tensor([3]))
    torch.testing.assert_close(padded[:, :3], found)


def test_a_transcript_that_ctc_cannot_spell_is_no_fault():
    found = ctc_positions(
        torch.randn(1, 2, 6).log_softmax(2), torch.tensor([2]), torch.tensor([[3, 4, 5]]), torch.tensor([3])
    )
    assert found.isfinite().all()
