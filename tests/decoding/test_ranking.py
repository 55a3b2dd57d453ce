"""Which hypothesis of a beam is the answer."""

import math
import random

import Levenshtein
import pytest

from decoding.beam_search import Hypothesis
from decoding.ranking import RANKERS, likelihood, minimum_bayes_risk
from utils.vocabulary import KAGGLE


def beam(*texts_and_probabilities):
    """Hypotheses, best score first."""
    return [
        Hypothesis(KAGGLE.encode(text)[1:-1], math.log(probability) / (len(text) + 1), math.log(probability))
        for text, probability in texts_and_probabilities
    ]


def test_likelihood_takes_the_first():
    assert likelihood(beam(("CAT", 0.4), ("CAR", 0.3))) == "CAT"


def test_risk_prefers_the_middle_of_a_crowd():
    crowd = beam(("DOG", 0.4), ("CAT", 0.25), ("CATS", 0.2), ("CAR", 0.15))
    assert likelihood(crowd) == "DOG"
    assert minimum_bayes_risk(crowd) == "CAT"
    assert minimum_bayes_risk(beam(("DOG", 0.9), ("CAT", 0.05), ("CATS", 0.05))) == "DOG"
    assert minimum_bayes_risk(beam(("A", 0.5), ("B", 0.5))) == "A"


def test_risk_is_of_tidy_texts_as_the_score_is():
    assert minimum_bayes_risk(beam(("XAC", 0.45), ("AC", 0.28), (" AC", 0.27))) == "AC"


@pytest.mark.parametrize("seed", range(10))
def test_risk_is_the_expected_distance(seed):
    generator = random.Random(seed)
    texts = list(dict.fromkeys("".join(generator.choices("AB", k=generator.randint(0, 5))) for _ in range(8)))
    weights = [generator.random() for _ in texts]
    risk = {
        text: sum(weight * Levenshtein.distance(text, other) for weight, other in zip(weights, texts, strict=True))
        for text in texts
    }
    chosen = minimum_bayes_risk(beam(*zip(texts, weights, strict=True)))
    assert risk[chosen] == pytest.approx(min(risk.values()))


def test_every_ranker_takes_a_single_hypothesis():
    assert {rank(beam(("", 1.0))) for rank in RANKERS.values()} == {""}
