import numpy as np
import pytest
import torch

from utils.metrics import (
    best_epoch,
    compare,
    coverage,
    monotonicity,
    repetition,
    score,
    sharpness,
    spacing_distance,
)


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
    hypotheses = ["THE BATS AT", "", "IT'S LATE", "GOON"]
    distances = [slow_distance(*pair) for pair in zip(references, hypotheses, strict=True)]
    words = [slow_distance(a.split(), b.split()) for a, b in zip(references, hypotheses, strict=True)]
    result = score(references, hypotheses)
    assert result.distance == sum(distances) / 4
    assert result.cer == pytest.approx(sum(distances) / sum(map(len, references)))
    assert result.wer == pytest.approx(sum(words) / (3 + 1 + 2 + 2))
    assert distances == [3, 1, 0, 1]


def test_spaces_at_the_ends_and_doubled_ones_do_not_count():
    references, hypotheses = ["A  B", " C", "D E"], [" A B ", "C ", " D   F"]
    assert compare(references, hypotheses) == [("A B", "A B", 0), ("C", "C", 0), ("D E", "D F", 1)]
    assert score(references, hypotheses) == (1 / 3, 1 / 7, 1 / 5)


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


def test_errors_of_word_spacing_are_told_apart():
    references = ["우리 집에 가요", "책을 샀어요"]
    assert spacing_distance(references, references) == 0
    assert spacing_distance(["우리  집에 가요 ", "책을 샀어요"], references) == 0  # as texts are scored
    assert spacing_distance(references, ["우리집에 가 요", "책을 샀어요"]) == 1.0  # two spaces in two utterances
    assert spacing_distance(references, ["우리집에 가오", "책을 팔았어요"]) == 0.5  # not the letters' errors


def test_monotonicity_of_a_flat_map_is_near_zero():
    flat = torch.full((20, 40), 1 / 40) + 1e-4 * torch.from_numpy(np.random.default_rng(0).random((20, 40))).float()
    assert abs(monotonicity(flat / flat.sum(1, keepdim=True))) < 0.05
    assert monotonicity(flat[:1]) == 0


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (list(range(0, 40, 2)), 1.0),  # a diagonal, however sharp, reads everything
        (list(range(0, 40, 2)) * 2, 1.0),
        ([20] * 20, 5 / 40),  # stands still: the step, and a character's length to either side
        (list(range(20)), 22 / 40),  # skips the second half
        ([0, 39] * 10, 6 / 40),
    ],
)
def test_coverage(positions, expected):
    assert coverage(one_hot(positions, 40)) == pytest.approx(expected)
    assert coverage(torch.full((20, 40), 1 / 40)) == 1
    assert coverage(torch.ones(1, 1)) == 1


def test_sharpness_is_one_for_a_single_step_none_for_all_and_between_for_some():
    assert sharpness(one_hot([3, 7, 9], 40)) == 1
    assert sharpness(torch.full((20, 40), 1 / 40)) == pytest.approx(0)
    four = torch.zeros(10, 64)
    four[:, 8:12] = 1 / 4
    assert sharpness(four) == pytest.approx(1 - np.log(4) / np.log(64))
    assert sharpness(torch.ones(3, 1)) == 1


def test_repetition_tells_a_loop_from_a_text():
    text = "HE HOPED THERE WOULD BE STEW FOR DINNER TURNIPS AND CARROTS AND BRUISED POTATOES AND FAT MUTTON PIECES"
    assert repetition(text) < 0.15
    assert repetition("FIFTY TWO FIFTY THREE") < 0.3
    assert repetition(text + " AND FAT MUTTON PIECES" * 6) > 0.5
    assert repetition("A" * 50) > 0.9
    assert repetition("") == repetition("ABC") == repetition("ABCD") == 0


def test_measures_of_maps_of_two_characters():
    """Small enough to compute by hand: spreads well below 1, and what lies just at a quarter of a character."""
    assert monotonicity(torch.eye(2)) == pytest.approx(1)
    assert monotonicity(torch.tensor([[0.75, 0.25], [0.25, 0.75]])) == pytest.approx(0.5)
    attention = torch.zeros(1, 8)
    attention[0, 0], attention[0, 7] = 0.75, 0.25
    assert coverage(attention) == 1  # one character: eight steps to either side
    narrow = torch.zeros(4, 8)
    narrow[:, 0], narrow[:, 7] = 1 - 0.25 / 4, 0.25 / 4  # a quarter of a character in the last step
    assert coverage(narrow) == 6 / 8
    narrow[:, 0], narrow[:, 7] = 1 - 0.24 / 4, 0.24 / 4
    assert coverage(narrow) == 3 / 8


def test_four_characters_in_a_row_repeat():
    assert repetition("ABCDABCD") == pytest.approx(1 / 5)
    assert repetition("ABCABC") == 0
    assert repetition("AAAAA") == 1 / 2


def test_the_best_epoch_trained_the_speller_if_any_did():
    history = [{"epoch": epoch, "dev_distance": value} for epoch, value in enumerate((1.0, 2.0, 5.0, 4.0, 4.0), 1)]
    assert [best_epoch(history, ctc_epochs)["epoch"] for ctc_epochs in (0, 1, 2, 3, 5)] == [1, 2, 4, 4, 1]
