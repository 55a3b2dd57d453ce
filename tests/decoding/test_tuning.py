"""The search for decoding weights against a world in which every answer is known."""

import pytest
import torch

from decoding.rescoring import SourceScores, Weights
from decoding.tuning import CTC_WEIGHTS, MOST_TRIALS, NBest, Trial, merge, neighbours, search_weights

BEST = Weights(0.3, 0.5, 0.4)


def lists(*utterances: list[tuple[list[int], int]]) -> NBest:
    """N-best lists of tokens and distances; a hypothesis's scores are its distance and its length."""
    K = max(map(len, utterances))
    padded = [[*utterance, *[([], 0)] * (K - len(utterance))] for utterance in utterances]
    distances = torch.tensor([[distance for _, distance in row] for row in padded])
    real = torch.tensor([[index < len(utterance) for index in range(K)] for utterance in utterances])
    lengths = torch.tensor([[len(tokens) + 1.0 for tokens, _ in row] for row in padded]).double()
    sources = [-distances.double() - kind for kind in range(3)]
    tokens = [[tokens for tokens, _ in utterance] for utterance in utterances]
    return NBest(SourceScores(*sources, lengths), distances, real, tokens)


def test_merged_lists_hold_each_hypothesis_once_with_its_scores():
    one = lists([([5], 1), ([6, 6], 2)], [([7], 0)])
    other = lists([([6, 6], 2), ([8], 4), ([9], 3)], [([7], 0), ([5, 5, 5], 6)])
    found = merge(one, other)
    assert found.tokens == [[[5], [6, 6], [8], [9]], [[7], [5, 5, 5]]]
    assert found.real.tolist() == [[True] * 4, [True, True, False, False]]
    assert found.distances[found.real].tolist() == [1, 2, 4, 3, 0, 6]
    assert found.scores.length[found.real].tolist() == [2, 3, 2, 2, 2, 4]
    assert found.scores.ctc[found.real].tolist() == [-2, -3, -5, -4, -1, -7]
    assert merge(found, one).tokens == found.tokens


def test_neighbours_are_a_step_away_and_within_bounds():
    assert set(neighbours(Weights(0.0, 0.1, 0.2), CTC_WEIGHTS).values()) == {
        Weights(0.1, 0.1, 0.2),
        Weights(0.0, 0.2, 0.2),
        Weights(0.0, 0.0, 0.2),
        Weights(0.0, 0.1, 0.4),
        Weights(0.0, 0.1, 0.0),
    }
    assert all(each.ctc_weight == 0 for each in neighbours(Weights(0.0, 0.1, 0.2), [0.0]).values())


def world(utterances: int = 20):
    """A valley of distances around BEST; its lists say nothing of it."""
    asked: list[Weights] = []

    def measure(weights: Weights, rank: str) -> list[int]:
        asked.append(weights)
        away = sum(abs(a - b) for a, b in zip(weights, BEST, strict=True))
        return [round(100 * away) + index % 2 for index in range(utterances)]

    def find(weights: Weights) -> NBest:
        return lists(*[[([5], 1), ([6], 2)]] * utterances)

    return asked, measure, find


@pytest.mark.parametrize("start", [Weights(0.3, 0.0, 0.8), Weights(0.9, 0.8, 0.0), BEST])
def test_the_search_walks_to_the_best_weights_and_keeps_the_best_that_it_measured(start):
    asked, measure, find = world()
    before = Trial(start, "likelihood", measure(start, "likelihood"))
    trials = search_weights(measure, find, before, CTC_WEIGHTS, ["A"] * 20)
    best = min(trials, key=lambda trial: trial.distance)
    assert trials[0] is before
    assert best.distance <= before.distance
    assert len(trials) == len(asked) <= MOST_TRIALS
    assert len({(trial.weights, trial.rank) for trial in trials}) == len(trials)
    if start in (BEST, Weights(0.3, 0.0, 0.8)):
        assert best.weights == BEST


def test_without_a_ctc_branch_it_has_no_weight():
    asked, measure, find = world()
    before = Trial(Weights(0.0, 0.0, 0.8), "likelihood", measure(Weights(0.0, 0.0, 0.8), "likelihood"))
    search_weights(measure, find, before, [0.0], ["A"] * 20)
    assert {weights.ctc_weight for weights in asked} == {0.0}
    assert len(asked) > 3


def test_a_difference_within_the_noise_is_told_from_one_that_is_not():
    before = Trial(BEST, "likelihood", [3, 1, 4, 1, 5, 9, 2, 6])
    assert Trial(BEST, "mbr", [2, 0, 3, 0, 4, 8, 1, 4]).surpasses(before)
    assert not Trial(BEST, "mbr", [3, 1, 4, 1, 5, 9, 2, 0]).surpasses(before)
    assert not before.surpasses(before)
