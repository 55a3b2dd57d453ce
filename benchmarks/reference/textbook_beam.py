"""Beam search as a textbook writes it, by the rules of decoding/beam_search.py: one hypothesis at a time.

It finds the same hypotheses (tests/benchmarks/reference/test_textbook_beam.py), but calls the Speller for each one
separately and computes CTC prefix scores by the recursion over time of Watanabe et al. 2017, algorithm 2.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from decoding.beam_search import Hypothesis
from models.las import LAS
from models.speller import InputFeedingState, ParallelState
from utils.vocabulary import CTC_BLANK, EOS, KAGGLE, PAD, SOS

ZERO = -1e9  # log of 0 that can be added and subtracted without becoming nan


class Prefix(NamedTuple):
    """CTC forward variables of one prefix."""

    in_character: np.ndarray  # (S,), log P(prefix, steps so far) ending in its last character
    in_blank: np.ndarray  # (S,), the same ending in blank
    score: float  # log P(prefix...)
    last: int  # the prefix's last token
    position: float  # step at which it is first emitted, in the mean


class ExtendedPrefixes(NamedTuple):
    """CTC forward variables of a prefix with each of the `V` tokens appended."""

    in_character: np.ndarray  # (S, V)
    in_blank: np.ndarray  # (S, V)
    scores: np.ndarray  # (V,)
    positions: np.ndarray  # (V,)

    def choose(self, token: int) -> Prefix:
        """The prefix that ends in `token`."""
        score, position = float(self.scores[token]), float(self.positions[token])
        return Prefix(self.in_character[:, token], self.in_blank[:, token], score, token, position)


class PrefixScorer:
    """CTC prefix scores of one utterance.

    Args:
        log_probs: `(S, V)`, of the CTC branch.
    """

    def __init__(self, log_probs: Tensor):
        self.log_probs = log_probs.double().cpu().numpy()

    def start(self) -> Prefix:
        """The empty prefix: blanks alone so far."""
        blanks = self.log_probs[:, CTC_BLANK].cumsum()
        return Prefix(np.full_like(blanks, ZERO), blanks, 0.0, SOS, 0.0)

    def extend(self, prefix: Prefix) -> ExtendedPrefixes:
        """Appends each token to `prefix`; the score of `<eos>` is that the text ends there."""
        S, V = self.log_probs.shape
        in_character, in_blank, emitted = np.empty((S, V)), np.empty((S, V)), np.empty((S, V))
        character, blank, scores = (np.full(V, ZERO) for _ in range(3))
        for step, emit in enumerate(self.log_probs):
            if step:
                before = np.full(V, np.logaddexp(prefix.in_character[step - 1], prefix.in_blank[step - 1]))
                before[prefix.last] = prefix.in_blank[step - 1]  # the same character again needs a blank between
            else:
                before = np.full(V, 0.0 if prefix.last == SOS else ZERO)
            emitted[step] = before + emit
            scores = np.logaddexp(scores, emitted[step])
            character, blank = (
                np.logaddexp(character, before) + emit,
                np.logaddexp(blank, character) + emit[CTC_BLANK],
            )
            in_character[step], in_blank[step] = character, blank
        positions = np.arange(S) @ np.exp(emitted - scores)
        scores[EOS] = np.logaddexp(prefix.in_character[-1], prefix.in_blank[-1])
        return ExtendedPrefixes(in_character, in_blank, scores, positions)


class _Partial(NamedTuple):
    """A hypothesis that has not finished."""

    tokens: list[int]
    score: float
    state: InputFeedingState | ParallelState
    prefix: Prefix | None  # None without CTC


# Score, token, the hypothesis that it continues, its state before the token and, with CTC, its prefixes. A plain tuple:
# there are as many as hypotheses times characters at every step, and a class would slow the reference down.
_Continuation = tuple[float, int, _Partial, InputFeedingState | ParallelState, ExtendedPrefixes | None]


@torch.no_grad()
def textbook_beam(
    model: LAS,
    features: Tensor,
    limit: int,
    beam_size: int,
    length_reward: float = 0.0,
    ctc_weight: float = 0.0,
) -> list[Hypothesis]:
    """Searches the best hypotheses of one utterance by the rules of `decoding.beam_search.beam_search`.

    Args:
        model: in evaluation mode.
        features: `(T, D)`.
        limit: characters that the utterance may be spelled with.
        beam_size: `K`.
        length_reward: added to the score for every character.
        ctc_weight: share of the CTC branch, if there is one, as of `decoding.recogniser.Recogniser`.

    Returns:
        Up to `K` hypotheses, best first.
    """
    encoded = model.listen(features.unsqueeze(0), torch.tensor([len(features)], device=features.device))
    scorer = None
    if encoded.ctc_log_probs is not None and (ctc_weight or model.speller.attention.sees_position):
        scorer = PrefixScorer(encoded.ctc_log_probs[0])
    beam = [_Partial([], 0.0, model.speller.initial_state(encoded.memory), scorer.start() if scorer else None)]
    finished: list[Hypothesis] = []

    def finish(hypothesis: _Partial, score: float) -> None:
        length = len(hypothesis.tokens) + 1
        finished.append(Hypothesis(hypothesis.tokens, score, score - length_reward * length))

    allowed = [token for token in range(len(KAGGLE)) if token not in (PAD, SOS)]
    for step in range(limit + 1):
        continuations: list[_Continuation] = []
        for hypothesis in beam:
            last = torch.tensor([hypothesis.tokens[-1] if hypothesis.tokens else SOS], device=features.device)
            spoken = None
            if hypothesis.prefix is not None:
                spoken = model.encoder_step(torch.tensor([hypothesis.prefix.position], device=features.device))
            logits, state, _ = model.speller.step(last, hypothesis.state, encoded.memory, spoken)
            log_probs, extended = logits[0].log_softmax(-1), None
            if scorer is not None and hypothesis.prefix is not None:
                extended = scorer.extend(hypothesis.prefix)
                ctc_scores = torch.from_numpy(extended.scores - hypothesis.prefix.score).to(log_probs)
                log_probs = (1 - ctc_weight) * log_probs + ctc_weight * ctc_scores
            values = log_probs.tolist()
            best = max(values[token] for token in allowed)
            for token in allowed:
                if token != EOS or values[EOS] == best:
                    score = hypothesis.score + values[token] + length_reward
                    continuations.append((score, token, hypothesis, state, extended))
        continuations.sort(key=lambda continuation: -continuation[0])
        for score, token, hypothesis, _, _ in continuations[:beam_size]:
            if token == EOS:
                finish(hypothesis, score)
        if step == limit and not finished:
            for hypothesis in beam:
                finish(hypothesis, hypothesis.score + length_reward)
        unfinished = [continuation for continuation in continuations if continuation[1] != EOS][:beam_size]
        best = max((hypothesis.score for hypothesis in finished), default=-np.inf)
        if len(finished) >= beam_size and best >= unfinished[0][0]:
            break
        beam = [
            _Partial([*hypothesis.tokens, token], score, state, extended.choose(token) if extended else None)
            for score, token, hypothesis, state, extended in unfinished
        ]
    finished.sort(key=lambda hypothesis: -hypothesis.score)
    return finished[:beam_size]
