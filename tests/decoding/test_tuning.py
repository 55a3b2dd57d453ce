"""The search for decoding weights against a world in which every answer is known."""

import math

import pytest
import torch
from Levenshtein import distance

from corpora.layout import find_partition
from corpora.loading import load_corpus
from dataset import FeatureDataset
from decoding import tuning
from decoding.beam_search import Hypothesis, beam_search
from decoding.recogniser import Recogniser, character_limits
from decoding.rescoring import SourceScores, Weights
from decoding.tuning import (
    CTC_WEIGHTS,
    LENGTH_REWARDS,
    LM_WEIGHTS,
    MOST_TRIALS,
    NBest,
    Trial,
    best_rank,
    best_weights,
    collect,
    merge,
    neighbours,
    search_weights,
)
from utils.metrics import tidy
from utils.sampler import Item
from utils.vocabulary import KAGGLE

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


def test_the_grid_goes_in_even_steps_from_nothing():
    tenths, fifths = [step / 10 for step in range(11)], [step / 5 for step in range(9)]
    assert [tenths, tenths[:9], fifths] == [CTC_WEIGHTS, LM_WEIGHTS, LENGTH_REWARDS]


@pytest.mark.parametrize("at", [Weights(0.3, 0.5, 0.4), Weights(0.6, 0.2, 1.0)])
def test_the_best_weights_lie_among_good_ones(at, monkeypatch):
    """Five utterances, each more of which is wrong a step further away; one point is better than all by luck."""

    def combine(_, weights: Weights) -> torch.Tensor:
        away = sum(abs(a - b) / step for a, b, step in zip(weights, at, (0.1, 0.1, 0.2), strict=True))
        wrong = [weights != Weights(0.9, 0.7, 0.2) and away > limit for limit in (0.5, 1.5, 2.5, 3.5, -1.0)]
        return torch.tensor([[0.0, 1.0 if each else -1.0] for each in wrong])

    monkeypatch.setattr(tuning, "combine", combine)
    assert best_weights(lists(*[[([5], 0), ([6], 1)]] * 5), CTC_WEIGHTS, LM_WEIGHTS) == at


def test_padding_is_never_the_best_hypothesis():
    """What stands there scores best of all, and would be best of all where attention counts less."""
    padded = lists([([5], 1), ([6], 3)], [([7], 2)])
    scores = padded.scores._replace(attention=torch.tensor([[-1.0, -2.0], [-9.0, 0.0]]).double())
    found = best_weights(padded._replace(scores=scores), CTC_WEIGHTS, [0.0])
    tempting = padded._replace(scores=scores, distances=torch.tensor([[1, 3], [2, -99]]))
    assert best_weights(tempting, CTC_WEIGHTS, [0.0]) == found


@pytest.mark.parametrize(("texts", "rank"), [(["CAT"] * 3, "mbr"), (["DOG"] * 3, "likelihood"), ([""], "likelihood")])
def test_the_rank_is_the_one_that_would_have_been_better(texts, rank):
    """The crowd around CAT against DOG, the most probable; where both are as bad, the simple one."""
    crowd = [KAGGLE.encode(text)[1:-1] for text in ("CAT", "CATS", "CAR", "DOG")]
    logs = torch.tensor([[0.25, 0.2, 0.15, 0.4]] * len(texts)).log().double()
    scores = SourceScores(logs, logs, torch.zeros_like(logs), torch.zeros_like(logs))
    nbest = NBest(scores, torch.zeros(len(texts), 4), torch.ones(len(texts), 4, dtype=torch.bool), [crowd] * len(texts))
    assert best_rank(nbest, Weights(0.3, 0.0, 0.0), texts) == rank


def test_collected_lists_are_those_of_the_beam(make_las, toy_root):
    corpus, device = load_corpus([find_partition(toy_root, "dev")], "mean"), torch.device("cpu")
    recogniser = Recogniser([make_las(scale=2.0)], 0.3)
    nbest = collect(recogniser, corpus, device, length_reward=0.4)
    assert nbest.distances.shape == nbest.real.shape == nbest.scores.length.shape
    longest = max(map(len, nbest.tokens))
    assert nbest.real.sum(1).tolist() == list(map(len, nbest.tokens))
    assert 8 < longest == nbest.real.size(1) <= 16
    for row, (text, beam) in enumerate(zip(corpus.transcripts, nbest.tokens, strict=True)):
        assert nbest.distances[row, : len(beam)].tolist() == [
            distance(text, tidy(KAGGLE.decode(tokens))) for tokens in beam
        ]
        assert nbest.scores.length[row].tolist() == [len(tokens) + 1 for tokens in beam] + [1] * (longest - len(beam))
    features = FeatureDataset(corpus)[Item(0)].features.unsqueeze(0)
    lengths = torch.tensor([features.size(1)])
    encoded = recogniser.encode(features, lengths)
    (beam,) = beam_search(recogniser, encoded, character_limits(lengths), 16, 0.4)
    assert [each.tokens for each in beam] == nbest.tokens[0]


def test_lists_are_compared_as_texts_are_scored(make_las, toy_root, monkeypatch):
    """Without spaces at the ends, and with single ones inside."""
    spaced = Hypothesis(KAGGLE.encode(" AB  C ")[1:-1], -1.0, -1.0)
    monkeypatch.setattr(tuning, "beam_search", lambda recogniser, encoded, limits, *_: [[spaced]] * len(limits))
    corpus = load_corpus([find_partition(toy_root, "dev")], "mean")
    nbest = collect(Recogniser([make_las()], 0.3), corpus, torch.device("cpu"), length_reward=0.4)
    assert nbest.distances[:, 0].tolist() == [distance(text.strip(), "AB C") for text in corpus.transcripts]


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


def test_lists_come_from_a_search_with_some_of_each_source_and_then_with_the_best_weights():
    asked, measure, find = world()
    searched = []

    def noted(weights: Weights) -> NBest:
        searched.append(weights)
        return find(weights)

    before = Trial(BEST, "likelihood", measure(BEST, "likelihood"))
    search_weights(measure, noted, before, CTC_WEIGHTS, ["A"] * 20)
    assert searched[0] == Weights(0.3, 0.2, 0.8)
    assert searched[1:] == [asked[1]]  # the same lists, and so the same weights: it does not search a third time
    searched.clear()
    search_weights(measure, noted, before, [0.0, 0.1], ["A"] * 20)
    assert searched[0] == Weights(0.1, 0.2, 0.8)


def test_lists_are_searched_four_times_at_most(monkeypatch):
    _, measure, find = world()
    searched, points = [], iter([Weights(step / 10, 0.0, 0.0) for step in range(9)])
    monkeypatch.setattr(tuning, "best_weights", lambda *_: next(points))
    before = Trial(BEST, "likelihood", measure(BEST, "likelihood"))
    search_weights(measure, lambda weights: searched.append(weights) or find(weights), before, CTC_WEIGHTS, ["A"] * 20)
    assert [weights.ctc_weight for weights in searched[1:]] == [0.0, 0.1, 0.2, 0.3]


def test_the_weights_in_use_are_measured_again_with_another_language_model():
    asked, measure, find = world()
    before = Trial(BEST, "likelihood", [1000] * 20)  # with a language model of before, which was a bad one
    trials = search_weights(measure, find, before, CTC_WEIGHTS, ["A"] * 20, comparable=False)
    assert BEST in asked
    assert min(trials, key=lambda trial: trial.distance).weights == BEST
    assert trials[0] is before


def test_trials_end_at_their_limit(monkeypatch):
    _, measure, find = world()
    monkeypatch.setattr(tuning, "MOST_TRIALS", 5)
    before = Trial(Weights(0.9, 0.8, 0.0), "likelihood", measure(Weights(0.9, 0.8, 0.0), "likelihood"))
    assert len(search_weights(measure, find, before, CTC_WEIGHTS, ["A"] * 20)) == 5


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
    zeros = Trial(BEST, "likelihood", [0] * 100)
    for mean, surpasses in ((0.21, True), (0.19, False)):  # a standard deviation of 1, a standard error of 0.1
        half = math.sqrt(0.99)
        other = Trial(BEST, "mbr", [mean + half, mean - half] * 50)
        assert zeros.surpasses(other) == surpasses
