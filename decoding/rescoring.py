"""Scores of finished hypotheses by source: Speller, CTC branch and language model apart.

The beam mixes them with fixed weights. Kept apart, an N-best list can be rescored under any weights without another
search: that is how `tune.py` finds good ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from decoding.recogniser import EncodedUtterances, Recogniser
from utils.vocabulary import CTC_BLANK, EOS, PAD, SOS

IMPOSSIBLE = -1e5  # log-probability of a text that is longer than its CTC steps: infinity times no weight is no number


class SourceScores(NamedTuple):
    """Scores of `K` hypotheses."""

    attention: Tensor  # (..., K) log-probability
    ctc: Tensor  # (..., K) log-probability
    lm: Tensor  # (..., K) log-probability
    length: Tensor  # (..., K) characters, <eos> counted


class Weights(NamedTuple):
    """Weights of the sources, see `Recogniser` and `beam_search`."""

    ctc_weight: float
    lm_weight: float
    length_reward: float


def combine(scores: SourceScores, weights: Weights) -> Tensor:
    """The score that `beam_search` gives the hypotheses under these weights, `(..., K)`."""
    total = (1 - weights.ctc_weight) * scores.attention + weights.ctc_weight * scores.ctc
    return total + weights.lm_weight * scores.lm + weights.length_reward * scores.length


@torch.no_grad()
def score_hypotheses(
    recogniser: Recogniser, encoded: Sequence[EncodedUtterances], hypotheses: Sequence[Sequence[Sequence[int]]]
) -> list[SourceScores]:
    """Scores the hypotheses of each utterance of a batch by source.

    The models of an ensemble are averaged, as in the search. A model without a CTC branch counts with its attention.

    Args:
        recogniser: the models; it keeps the posteriors of CTC branches whatever their weight.
        encoded: the batch, as `recogniser.encode` returned it.
        hypotheses: of each utterance, tokens without `<eos>`; any number of them per utterance.

    Returns:
        For each utterance the scores of its hypotheses, float64 on the CPU.
    """
    K = max(map(len, hypotheses))
    rows = [list(tokens) for utterance in hypotheses for tokens in [*utterance, *[[]] * (K - len(utterance))]]
    inputs = pad_sequence([torch.tensor([SOS, *tokens]) for tokens in rows], batch_first=True, padding_value=PAD)
    targets = pad_sequence([torch.tensor([*tokens, EOS]) for tokens in rows], batch_first=True, padding_value=PAD)
    lengths = torch.tensor([len(tokens) for tokens in rows])
    device = encoded[0].memory.keys.device
    inputs, targets = inputs.to(device), targets.to(device)

    def of_targets(log_probs: Tensor) -> Tensor:
        chosen = log_probs.gather(2, targets.unsqueeze(2)).squeeze(2)
        return chosen.masked_fill(targets == PAD, 0.0).sum(1)

    attention: list[Tensor] = []
    ctc: list[Tensor] = []
    for model, (memory, frames) in zip(recogniser.models, encoded, strict=True):
        log_probs = spoken = None
        if frames is not None:
            log_probs = frames.log_probs.float()
            all_steps = torch.full((log_probs.size(0),), log_probs.size(1))
            spoken = model.spoken(log_probs, all_steps, inputs, lengths)
        logits, _ = model.speller(inputs, memory, spoken=spoken)
        attention.append(of_targets(logits.log_softmax(-1)))
        if log_probs is None:
            ctc.append(attention[-1])
            continue
        log_probs = log_probs.repeat_interleave(K, dim=0).transpose(0, 1)
        steps = torch.full_like(lengths, log_probs.size(0))
        ctc_loss = F.ctc_loss(log_probs, targets, steps, lengths, blank=CTC_BLANK, reduction="none")
        ctc.append((-ctc_loss).clamp(min=IMPOSSIBLE))
    lm = torch.zeros_like(attention[0])
    if recogniser.language_model is not None:
        state, expected = recogniser.language_model.initial_state(len(rows)), []
        for token in inputs.unbind(1):
            log_probs, state = recogniser.language_model.step(token, state)
            expected.append(log_probs)
        lm = of_targets(torch.stack(expected, dim=1))
    every = SourceScores(torch.stack(attention).mean(0), torch.stack(ctc).mean(0), lm, lengths + 1)
    each = zip(*(values.view(-1, K).cpu().double() for values in every), strict=True)
    return [
        SourceScores(*(values[: len(utterance)] for values in scores))
        for scores, utterance in zip(each, hypotheses, strict=True)
    ]
