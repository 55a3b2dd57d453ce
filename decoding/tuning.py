"""Weights of Speller, CTC branch, language model and length, found as in minimum error rate training (Och 2003).

N-best lists are rescored under all weights of a grid; with the best ones the corpus is searched again, and what is new
joins the lists, until the weights stay. Lists of a single search hold nothing that other weights would prefer. Then the
neighbours of the best weights are tried. Only real searches count.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from Levenshtein import distance
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from corpora.loading import Corpus
from decoding.beam_search import Hypothesis, beam_search
from decoding.ranking import RANKERS
from decoding.recogniser import EncodedUtterances, Recogniser
from decoding.rescoring import SourceScores, Weights, combine, score_hypotheses
from decoding.transcribe import decode_batches
from utils.metrics import tidy
from utils.vocabulary import KAGGLE, Vocabulary

CTC_WEIGHTS = [step / 10 for step in range(11)]
LM_WEIGHTS = [step / 10 for step in range(9)]
LENGTH_REWARDS = [step / 5 for step in range(9)]
NBEST = 16  # hypotheses per utterance that the weights choose among
SEARCH = Weights(0.3, 0.2, 0.8)  # of the search that finds them: some of each source
ROUNDS = 4  # of searching with the weights that the lists so far make the best
MOST_TRIALS = 24  # searches as test.py does them
STEPS = Weights(0.1, 0.1, 0.2)  # to the neighbours


@dataclass(frozen=True)
class Trial:
    """Weights with which the corpus was decoded, and the distance of each utterance."""

    weights: Weights
    rank: str
    distances: Sequence[int]

    @property
    def distance(self) -> float:
        """The mean."""
        return sum(self.distances) / len(self.distances)

    def surpasses(self, other: "Trial") -> bool:
        """Whether the difference of the means is more than twice its standard error, utterance by utterance."""
        better = torch.tensor(other.distances).double() - torch.tensor(self.distances)
        return bool(better.mean() > 2 * better.std() / len(better) ** 0.5)


class NBest(NamedTuple):
    """N-best lists of `N` utterances, padded to `K` hypotheses with length 1 and distance 0."""

    scores: SourceScores  # (N, K)
    distances: Tensor  # (N, K) to the reference
    real: Tensor  # (N, K), False on padding
    tokens: list[list[list[int]]]  # of each hypothesis


def collect(recogniser: Recogniser, corpus: Corpus, device: torch.device, length_reward: float) -> NBest:
    """N-best lists of a corpus from one beam search, with their scores by source."""

    def decode_batch(
        encoded: tuple[EncodedUtterances, ...], limits: Tensor
    ) -> list[tuple[list[list[int]], SourceScores]]:
        beams = beam_search(recogniser, encoded, limits, NBEST, length_reward)
        tokens = [[hypothesis.tokens for hypothesis in beam] for beam in beams]
        return list(zip(tokens, score_hypotheses(recogniser, encoded, tokens), strict=True))

    found = decode_batches(recogniser, corpus, NBEST, device, decode_batch)
    tokens = [hypotheses for hypotheses, _ in found]
    distances = [
        torch.tensor([distance(tidy(text), tidy(corpus.vocabulary.decode(hypothesis))) for hypothesis in hypotheses])
        for text, hypotheses in zip(corpus.transcripts, tokens, strict=True)
    ]
    scores = SourceScores(
        *(
            pad_sequence(list(values), batch_first=True, padding_value=padding)
            for values, padding in zip(zip(*(each for _, each in found), strict=True), (0, 0, 0, 1), strict=True)
        )
    )
    real = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in distances], batch_first=True)
    return NBest(scores, pad_sequence(distances, batch_first=True), real, tokens)


def best_weights(nbest: NBest, ctc_weights: Sequence[float], lm_weights: Sequence[float]) -> Weights:
    """The weights under which the best-scored hypotheses have the least mean distance.

    The mean distance is smoothed over neighbouring points of the grid: a point that is good by luck has bad neighbours.
    """
    axes = (ctc_weights, lm_weights, LENGTH_REWARDS)
    grid = [Weights(*point) for point in itertools.product(*axes)]
    means = []
    for weights in grid:
        best = combine(nbest.scores, weights).masked_fill(~nbest.real, float("-inf")).argmax(1, keepdim=True)
        means.append(nbest.distances.gather(1, best).double().mean())
    cube = torch.stack(means).view(1, 1, *map(len, axes))
    smooth = F.avg_pool3d(F.pad(cube, (1,) * 6, mode="replicate"), kernel_size=3, stride=1)
    return grid[int(smooth.argmin())]


def best_rank(nbest: NBest, weights: Weights, texts: Sequence[str], vocabulary: Vocabulary = KAGGLE) -> str:
    """mbr if it is better than likelihood on these lists, else likelihood."""
    scores = combine(nbest.scores, weights)
    logs = combine(nbest.scores, weights._replace(length_reward=0.0))
    total = dict.fromkeys(RANKERS, 0)
    for row, (hypotheses, text) in enumerate(zip(nbest.tokens, texts, strict=True)):
        beam = [Hypothesis(tokens, float(scores[row, k]), float(logs[row, k])) for k, tokens in enumerate(hypotheses)]
        beam.sort(key=lambda hypothesis: -hypothesis.score)
        for name, rank in RANKERS.items():
            total[name] += distance(tidy(text), tidy(rank(beam, vocabulary)))
    return "mbr" if total["mbr"] < total["likelihood"] else "likelihood"


def merge(one: NBest, other: NBest) -> NBest:
    """The hypotheses of both lists of each utterance, each once."""
    places = []  # of each utterance: in which list, and where in it
    for mine, theirs in zip(one.tokens, other.tokens, strict=True):
        known = {tuple(tokens) for tokens in mine}
        new = [index for index, tokens in enumerate(theirs) if tuple(tokens) not in known]
        places.append((list(range(len(mine))), new))

    def joined(mine: Tensor, theirs: Tensor, padding: float) -> Tensor:
        rows = [torch.cat([mine[row, first], theirs[row, second]]) for row, (first, second) in enumerate(places)]
        return pad_sequence(rows, batch_first=True, padding_value=padding)

    paddings = (0, 0, 0, 1)
    scores = SourceScores(*map(joined, one.scores, other.scores, paddings))
    tokens = [
        [*(mine[index] for index in first), *(theirs[index] for index in second)]
        for mine, theirs, (first, second) in zip(one.tokens, other.tokens, places, strict=True)
    ]
    return NBest(scores, joined(one.distances, other.distances, 0), joined(one.real, other.real, False), tokens)


def search_weights(
    measure: Callable[[Weights, str], Sequence[int]],
    find: Callable[[Weights], NBest],
    before: Trial,
    ctc_weights: Sequence[float],
    texts: Sequence[str],
    vocabulary: Vocabulary = KAGGLE,
    comparable: bool = True,
) -> list[Trial]:
    """Tries weights until nothing better comes.

    Args:
        measure: distance of each utterance decoded with these weights and this rank.
        find: N-best lists of a search with these weights.
        before: the weights that are in use.
        ctc_weights: that may be taken.
        texts: references.
        vocabulary: that they are spelled with.
        comparable: whether `before` was measured with the language model of `measure`; otherwise the same weights may
            be tried again.

    Returns:
        All trials, `before` first.
    """
    trials = {(before.weights, before.rank if comparable else "before"): before}

    def attempt(weights: Weights, rank: str) -> Trial:
        weights = Weights(*(round(value, 3) for value in weights))
        if (weights, rank) not in trials:
            trials[weights, rank] = Trial(weights, rank, measure(weights, rank))
        return trials[weights, rank]

    lists = find(SEARCH._replace(ctc_weight=min(SEARCH.ctc_weight, max(ctc_weights))))
    for _ in range(ROUNDS):
        count, weights = len(trials), best_weights(lists, ctc_weights, LM_WEIGHTS)
        attempt(weights, best_rank(lists, weights, texts, vocabulary))
        if len(trials) == count:
            break
        lists = merge(lists, find(weights))

    best, way, moved = min(trials.values(), key=lambda trial: trial.distance), 0, True
    while moved:
        moved = False
        around = neighbours(best.weights, ctc_weights)
        for number in sorted(around, key=lambda number: number != way):  # the way that was better last comes first
            if len(trials) >= MOST_TRIALS:
                break
            trial = attempt(around[number], best.rank)
            if trial.distance < best.distance:
                best, way, moved = trial, number, True
                break
    return list(trials.values())


def neighbours(weights: Weights, ctc_weights: Sequence[float]) -> dict[int, Weights]:
    """Weights one step away in one direction, by the number of the direction."""
    highest = Weights(max(ctc_weights), float("inf"), float("inf"))
    around = {}
    for number, (name, step, most) in enumerate(zip(Weights._fields, STEPS, highest, strict=True)):
        for sign in (1, -1):
            value = round(getattr(weights, name) + sign * step, 3)
            if 0 <= value <= most:
                around[2 * number + (sign < 0)] = weights._replace(**{name: value})
    return around
