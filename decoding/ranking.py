"""Rankers: which hypothesis of a beam is the answer."""

from collections.abc import Sequence

import torch
from Levenshtein import distance

from decoding.beam_search import Hypothesis
from utils.metrics import tidy
from utils.vocabulary import KAGGLE, Vocabulary


def likelihood(hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary = KAGGLE) -> str:
    """The text of the hypothesis with the best score."""
    return vocabulary.decode(hypotheses[0].tokens)


def minimum_bayes_risk(hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary = KAGGLE) -> str:
    """The text with the least expected Levenshtein distance, the competition's metric (Goel and Byrne 2000).

    The expectation is over the hypotheses themselves, with their probabilities. Of equals, the better score wins.
    """
    texts = [tidy(vocabulary.decode(hypothesis.tokens)) for hypothesis in hypotheses]
    probabilities = torch.tensor([hypothesis.log_probability for hypothesis in hypotheses]).double().softmax(0).tolist()
    risks = [
        sum(probability * distance(text, other) for other, probability in zip(texts, probabilities, strict=True))
        for text in texts
    ]
    return texts[min(range(len(texts)), key=risks.__getitem__)]


RANKERS = {"likelihood": likelihood, "mbr": minimum_bayes_risk}
