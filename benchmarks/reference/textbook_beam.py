"""Beam search as a textbook writes it: one utterance, one hypothesis at a time, by the rules of decoding/beam_search.

It finds the same hypotheses (tests/benchmarks/), by a call of the Speller for each hypothesis and, jointly with
CTC, by the recursion over time of Watanabe et al. 2017, algorithm 2, for each hypothesis.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from decoding.beam_search import Hypothesis
from models.las import LAS
from models.speller import State
from utils.vocabulary import CTC_BLANK, EOS, PAD, SOS, VOCABULARY

ZERO = -1e9  # log of 0 that can be added and subtracted without becoming nan


class Prefix(NamedTuple):
    """log P(prefix, steps so far) ending in a character and in blank `(S,)`, log P(prefix...), its last token."""

    in_character: np.ndarray
    in_blank: np.ndarray
    score: float
    last: int


class Extended(NamedTuple):
    """The same for a prefix with each character appended: `(S, V)`, `(S, V)`, `(V,)`."""

    in_character: np.ndarray
    in_blank: np.ndarray
    scores: np.ndarray

    def choose(self, token: int) -> Prefix:
        return Prefix(self.in_character[:, token], self.in_blank[:, token], float(self.scores[token]), token)


class PrefixScorer:
    """CTC prefix scores of one utterance from the branch's log-probabilities `(S, V)`."""

    def __init__(self, log_probs: Tensor):
        self.log_probs = log_probs.double().cpu().numpy()

    def start(self) -> Prefix:
        blanks = self.log_probs[:, CTC_BLANK].cumsum()
        return Prefix(np.full_like(blanks, ZERO), blanks, 0.0, SOS)

    def extend(self, prefix: Prefix) -> Extended:
        """Forward variables step by step, for all characters that may follow."""
        S, V = self.log_probs.shape
        in_character, in_blank = np.empty((S, V)), np.empty((S, V))
        character, blank, scores = (np.full(V, ZERO) for _ in range(3))
        for step, emit in enumerate(self.log_probs):
            if step:
                before = np.full(V, np.logaddexp(prefix.in_character[step - 1], prefix.in_blank[step - 1]))
                before[prefix.last] = prefix.in_blank[step - 1]  # the same character again needs a blank between
            else:
                before = np.full(V, 0.0 if prefix.last == SOS else ZERO)
            scores = np.logaddexp(scores, before + emit)
            character, blank = (
                np.logaddexp(character, before) + emit,
                np.logaddexp(blank, character) + emit[CTC_BLANK],
            )
            in_character[step], in_blank[step] = character, blank
        scores[EOS] = np.logaddexp(prefix.in_character[-1], prefix.in_blank[-1])
        return Extended(in_character, in_blank, scores)


class _Partial(NamedTuple):
    tokens: list[int]
    score: float
    state: State
    prefix: Prefix | None


@torch.no_grad()
def textbook_beam(
    model: LAS,
    features: Tensor,
    limit: int,
    beam_size: int,
    length_reward: float = 0.0,
    ctc_weight: float = 0.0,
) -> list[Hypothesis]:
    """Up to `beam_size` hypotheses of one utterance `features (T, D)`, best first; arguments as of `beam_search`."""
    encoded = model.listen(features.unsqueeze(0), torch.tensor([len(features)], device=features.device))
    scorer = PrefixScorer(encoded.ctc_log_probs[0]) if ctc_weight and encoded.ctc_log_probs is not None else None
    start = model.speller.initial_state(encoded.memory)
    beam = [_Partial([], 0.0, start, scorer.start() if scorer else None)]
    finished: list[Hypothesis] = []

    def finish(hypothesis: _Partial, score: float) -> None:
        length = len(hypothesis.tokens) + 1
        finished.append(Hypothesis(hypothesis.tokens, score, score - length_reward * length))

    for step in range(limit + 1):
        continuations = []
        for hypothesis in beam:
            token = torch.tensor([hypothesis.tokens[-1] if hypothesis.tokens else SOS], device=features.device)
            logits, state, _ = model.speller.step(token, hypothesis.state, encoded.memory)
            log_probs, extended = logits[0].log_softmax(-1), None
            if scorer:
                extended = scorer.extend(hypothesis.prefix)
                seen = torch.from_numpy(extended.scores - hypothesis.prefix.score).to(log_probs)
                log_probs = (1 - ctc_weight) * log_probs + ctc_weight * seen
            values = log_probs.tolist()
            allowed = [token for token in range(len(VOCABULARY)) if token not in (PAD, SOS)]
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
        going_on = [continuation for continuation in continuations if continuation[1] != EOS][:beam_size]
        best = max((hypothesis.score for hypothesis in finished), default=-np.inf)
        if len(finished) >= beam_size and best >= going_on[0][0]:
            break
        beam = [
            _Partial([*hypothesis.tokens, token], score, state, extended.choose(token) if extended else None)
            for score, token, hypothesis, state, extended in going_on
        ]
    finished.sort(key=lambda hypothesis: -hypothesis.score)
    return finished[:beam_size]
