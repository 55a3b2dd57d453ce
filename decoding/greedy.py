"""Greedy decoding: always the most probable character."""

import torch
from torch import Tensor

from decoding.recogniser import Heard, Recogniser
from utils.vocabulary import CTC_BLANK, EOS, PAD, SOS

SYNC_EVERY = 8  # steps between looks whether all have finished: on a GPU each look waits for the device


@torch.no_grad()
def greedy_search(recogniser: Recogniser, heard: tuple[Heard, ...], limits: Tensor) -> list[list[int]]:
    """Tokens of each utterance, `<eos>` left out; at most `limits (B,)` of them."""
    states = recogniser.initial_state(heard)
    token = torch.full_like(limits, SOS)
    finished = torch.zeros_like(limits, dtype=torch.bool)
    spelled = []
    for step in range(int(limits.max())):
        log_probs, states = recogniser.step(token, states, heard)
        log_probs[:, [PAD, SOS]] = float("-inf")
        token = log_probs.argmax(1)
        finished = finished | (token == EOS) | (step >= limits)
        spelled.append(token.masked_fill(finished, PAD))
        if (finished.device.type == "cpu" or step % SYNC_EVERY == SYNC_EVERY - 1) and finished.all():
            break
    rows = torch.stack(spelled, dim=1).tolist()
    return [[token for token in row if token != PAD] for row in rows]


def ctc_greedy(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """Best path of the CTC branch: `log_probs (B, S, V)`, repeats merged, blanks dropped."""
    best = log_probs.argmax(2).cpu()
    rows = [torch.unique_consecutive(row[:length]).tolist() for row, length in zip(best, lengths.tolist(), strict=True)]
    return [[token for token in row if token != CTC_BLANK] for row in rows]
