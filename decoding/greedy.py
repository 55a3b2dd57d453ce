"""Greedy decoding: always the most probable character."""

from collections.abc import Sequence

import torch
from torch import Tensor

from decoding.recogniser import EncodedUtterances, Recogniser
from utils.vocabulary import CTC_BLANK, EOS, KAGGLE, PAD, SOS, Vocabulary

SYNC_EVERY = 8  # steps between tests whether all have finished: on a GPU each test waits for the device


@torch.no_grad()
def greedy_search(recogniser: Recogniser, encoded: Sequence[EncodedUtterances], limits: Tensor) -> list[list[int]]:
    """Spells each utterance of a batch with the most probable characters.

    Args:
        recogniser: the models.
        encoded: the batch of `B` utterances, as `recogniser.encode` returned it.
        limits: `(B,)`, characters that each utterance may be spelled with; on the CPU best.

    Returns:
        Tokens of each utterance, without `<eos>`.
    """
    state = recogniser.initial_state(encoded)
    longest, limits = int(limits.max()), limits.to(recogniser.device, non_blocking=True)
    token = torch.full_like(limits, SOS)
    finished = torch.zeros_like(limits, dtype=torch.bool)
    spelled = []
    for step in range(longest):
        log_probs, state = recogniser.step(token, state, encoded)
        log_probs[:, :EOS].fill_(float("-inf"))  # <pad> and <sos>; a list of indices would be copied to the device
        token = log_probs.argmax(1)
        finished = finished | (token == EOS) | (step >= limits)
        spelled.append(token.masked_fill(finished, PAD))
        if (finished.device.type == "cpu" or step % SYNC_EVERY == SYNC_EVERY - 1) and finished.all():
            break
    rows = torch.stack(spelled, dim=1).tolist()
    return [[token for token in row if token != PAD] for row in rows]


@torch.no_grad()
def first_letters(
    recogniser: Recogniser, encoded: Sequence[EncodedUtterances], vocabulary: Vocabulary = KAGGLE
) -> list[str]:
    """The most probable first character of each utterance that is neither `<eos>` nor a space."""
    state = recogniser.initial_state(encoded)
    token = torch.full((encoded[0].memory.keys.size(0),), SOS, device=encoded[0].memory.keys.device)
    log_probs, _ = recogniser.step(token, state, encoded)
    for unspoken in (PAD, SOS, EOS, *vocabulary.encode(vocabulary.known(" "))[1:-1]):
        log_probs[:, unspoken].fill_(float("-inf"))
    return [vocabulary.decode([token]) for token in log_probs.argmax(1).tolist()]


def ctc_greedy(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """Best path of the CTC branch, repeats merged and blanks dropped (Graves et al. 2006, section 3.2).

    Args:
        log_probs: `(B, S, V)`.
        lengths: `(B,)`, steps of each utterance.

    Returns:
        Tokens of each utterance.
    """
    best = log_probs.argmax(2).cpu()
    rows = [torch.unique_consecutive(row[:length]).tolist() for row, length in zip(best, lengths.tolist(), strict=True)]
    return [[token for token in row if token != CTC_BLANK] for row in rows]
