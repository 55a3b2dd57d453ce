"""Where the CTC branch hears the characters of a text, without looking at what follows them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.blstm import length_mask
from utils.vocabulary import CTC_BLANK

NEVER = -1e5  # log-probability of what cannot be: finite, so that no sum of it is nan


def ctc_positions(log_probs: Tensor, lengths: Tensor, characters: Tensor, character_lengths: Tensor) -> Tensor:
    """The step at which each character of a transcript is first emitted, given those before it, in the mean.

    The probability that prefix `g` is followed by character `c` is a sum over the steps at which `c` can be first
    emitted (Watanabe et al. 2017, algorithm 2); this is the mean step of its terms. It depends on no later character,
    so it is what beam search knows of the last character of a hypothesis (`decoding.ctc_prefix`). The CTC loss has the
    forward variables of all prefixes of a transcript, so one call of it yields all positions of a batch.

    Args:
        log_probs: `(B, S, V)`; no gradient flows into them.
        lengths: `(B,)`, steps of each utterance; on the CPU best.
        characters: `(B, U)`, padded with any.
        character_lengths: `(B,)`, on the CPU best.

    Returns:
        `(B, U)`; of a character that there are too few steps for, that of the one before; the first one's is at 0 then.
    """
    (_, S, _), U, log_probs = log_probs.shape, int(character_lengths.max()), log_probs.detach()
    padding, characters = characters.size(1) - U, characters[:, :U]
    # F.ctc_loss is this function without the forward variables, which are not written beyond the lengths.
    _, forward = torch._ctc_loss(
        log_probs.transpose(0, 1), characters, lengths.tolist(), character_lengths.tolist(), CTC_BLANK
    )
    inside = length_mask(lengths.to(log_probs.device, non_blocking=True), S).unsqueeze(2)
    inside = inside & length_mask(character_lengths.to(log_probs.device, non_blocking=True), U).unsqueeze(1)
    # Blanks and characters take turns in them: of each character the blank before it, and itself.
    forward = forward[:, :, : 2 * U].unflatten(2, (U, 2))
    in_blank, in_character = torch.where(inside.unsqueeze(3), forward, NEVER).clamp(min=NEVER).unbind(3)
    in_character = F.pad(in_character[:, :, :-1], (1, 0), value=NEVER)  # the character before it
    again = F.pad(characters[:, 1:] == characters[:, :-1], (1, 0)).unsqueeze(1)  # must be separated by a blank
    before = torch.logaddexp(in_blank, in_character.masked_fill(again, NEVER))
    before = F.pad(before[:, :-1], (0, 0, 1, 0), value=NEVER)
    before[:, 0, :1] = 0.0  # the first character needs nothing before it
    emitted = before + log_probs.gather(2, characters.unsqueeze(1).expand(-1, S, -1)).clamp(min=NEVER)
    position, possible = first_emission(emitted.masked_fill(~inside, 3 * NEVER).transpose(1, 2))
    last = F.pad(position, (1, 0)).gather(1, possible.sum(1, keepdim=True))
    return F.pad(torch.where(possible, position, last), (0, padding))


def first_emission(emitted: Tensor) -> tuple[Tensor, Tensor]:
    """The mean step at which a character is first emitted, and whether it can be at all.

    Args:
        emitted: `(..., S)`, log-probability of its prefix with the character first emitted at each step.

    Returns:
        Both `(...)`.
    """
    steps = torch.arange(emitted.size(-1), device=emitted.device, dtype=emitted.dtype)
    return emitted.softmax(-1) @ steps, emitted.amax(-1) > NEVER / 2
