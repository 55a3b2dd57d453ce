import numpy as np
import pytest
import torch

from utils.metrics import monotonicity, score


def slow_distance(a, b) -> int:
    """The textbook recursion, by rows."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, above = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def test_score_is_a_mean_over_utterances_with_spaces_counted():
    references = ["THE CAT SAT", "A", "IT'S LATE", "GO ON"]
    hypotheses = ["THE BAT  SAT", "", "IT'S LATE", "GOON"]
    distances = [slow_distance(*pair) for pair in zip(references, hypotheses, strict=True)]
    words = [slow_distance(a.split(), b.split()) for a, b in zip(references, hypotheses, strict=True)]
    result = score(references, hypotheses)
    assert result.distance == sum(distances) / 4
    assert result.cer == pytest.approx(sum(distances) / sum(map(len, references)))
    assert result.wer == pytest.approx(sum(words) / (3 + 1 + 2 + 2))
    assert distances == [2, 1, 0, 1]


def one_hot(positions, steps) -> torch.Tensor:
    return torch.eye(steps)[torch.tensor(positions)]


@pytest.mark.parametrize(
    ("positions", "low", "high"),
    [
        (list(range(0, 40, 2)), 0.99, 1.0),  # a diagonal
        ([8 + i for i in range(24)], 0.99, 1.0),  # one between silences
        ([20] * 20, -0.01, 0.01),  # stands still
        (list(range(38, -1, -2)), -1.0, -0.99),  # backwards
        ([0, 39] * 10, -0.1, 0.1),  # to and fro
        (list(range(0, 40, 2)) * 3, 0.3, 0.35),  # three times over
    ],
)
def test_monotonicity(positions, low, high):
    assert low <= monotonicity(one_hot(positions, 40)) <= high


def test_monotonicity_of_a_flat_map_is_near_zero():
    flat = torch.full((20, 40), 1 / 40) + 1e-4 * torch.from_numpy(np.random.default_rng(0).random((20, 40))).float()
    assert abs(monotonicity(flat / flat.sum(1, keepdim=True))) < 0.05
    assert monotonicity(flat[:1]) == 0
