"""Alignment of a transcript to the encoder steps at which it is spoken, by the CTC branch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.blstm import length_mask

LEAST = 1e-6  # occupancy of a character that CTC cannot place at all


def ctc_occupancy(log_probs: Tensor, lengths: Tensor, characters: Tensor, character_lengths: Tensor) -> Tensor:
    """Probability that each character of a transcript is the one spoken at each step, given the whole transcript.

    It is what the forward-backward algorithm computes on the way to the gradient of the CTC loss (Graves et al. 2006,
    equation 15), here with a label of its own for every character, so that one call of torch's loss yields it for a
    batch. Such labels differ from their neighbours: a doubled letter needs no blank between.

    Args:
        log_probs: `(B, S, V)`, blank 0; no gradient flows into them.
        lengths: `(B,)`, steps of each utterance.
        characters: `(B, U)`, padded with any.
        character_lengths: `(B,)`.

    Returns:
        `(B, S, U)`; what lies beyond an utterance's characters means nothing.
    """
    log_probs = log_probs.detach()
    labels = torch.arange(1, characters.size(1) + 1, device=characters.device).expand_as(characters)
    of_characters = log_probs.gather(2, characters.unsqueeze(1).expand(-1, log_probs.size(1), -1))
    with torch.enable_grad():
        of_labels = torch.cat([log_probs[:, :, :1], of_characters], dim=2).requires_grad_()
        loss = F.ctc_loss(
            of_labels.transpose(0, 1), labels, lengths, character_lengths, reduction="sum", zero_infinity=True
        )
        (gradient,) = torch.autograd.grad(loss, of_labels)
    occupancy = (of_labels.detach().exp() - gradient)[:, :, 1:].clamp(min=0)  # the gradient is probability - occupancy
    inside = length_mask(lengths.to(log_probs.device, non_blocking=True), log_probs.size(1))
    return occupancy * inside.unsqueeze(2)  # beyond the steps there is no gradient


def ctc_positions(log_probs: Tensor, lengths: Tensor, characters: Tensor, character_lengths: Tensor) -> Tensor:
    """The step at which each character is spoken, `(B, U)`, never decreasing: the mean of its occupancy.

    Arguments as of `ctc_occupancy`.
    """
    occupancy = ctc_occupancy(log_probs, lengths, characters, character_lengths)
    steps = torch.arange(occupancy.size(1), device=occupancy.device, dtype=occupancy.dtype)
    mean = (steps @ occupancy) / occupancy.sum(1).clamp(min=LEAST)
    return mean.cummax(1).values
