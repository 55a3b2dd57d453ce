"""The CTC prefix score of the next character, for joint CTC/attention decoding (Watanabe et al. 2017, algorithm 2).

The probability that a text starts with prefix `g` followed by `c` is a sum over the steps at which `c` can be first
emitted. All prefixes of a beam and all characters are scored by one matrix product, and the forward variables of the
chosen prefixes follow in closed form from cumulative sums: there is no loop over time and none over hypotheses.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.alignment import NEVER, first_emission
from models.blstm import length_mask
from utils.vocabulary import CTC_BLANK, EOS, SOS

ZERO = -1e9  # log of 0 that can be added and subtracted without becoming nan


class Frames(NamedTuple):
    """The CTC branch's posteriors, prepared for scoring; float64, padding is certain blank."""

    log_probs: Tensor  # (B, S, V)
    probs: Tensor  # (B, S, V)
    cumulative: Tensor  # (B, S, V), sums over time of log_probs up to each step


class PrefixState(NamedTuple):
    """Forward variables of the prefix of each of `N` hypotheses."""

    in_character: Tensor  # (N, S), log P(prefix, steps so far) ending in its last character
    in_blank: Tensor  # (N, S), the same ending in blank
    last: Tensor  # (N,), the prefix's last token
    extended: Tensor  # (N, V), log P of the prefix with each token appended
    position: Tensor | None  # (N,), the step at which the last token is first emitted, in the mean; None: not asked for


def prepare(log_probs: Tensor, lengths: Tensor) -> Frames:
    """Prepares the CTC branch's `log_probs (B, S, V)` of utterances of `lengths (B,)`."""
    padding = ~length_mask(lengths.to(log_probs.device, non_blocking=True), log_probs.size(1))
    log_probs = log_probs.double().clamp(min=NEVER).masked_fill(padding.unsqueeze(2), NEVER)
    log_probs[..., CTC_BLANK] = log_probs[..., CTC_BLANK].masked_fill(padding, 0.0)
    return Frames(log_probs, log_probs.exp(), log_probs.cumsum(1))


def initial_state(frames: Frames, rows: int, positions: bool = False) -> PrefixState:
    """The empty prefix, for `rows` hypotheses of each utterance: blanks alone so far; `positions`: at step 0."""
    blank = frames.cumulative[..., CTC_BLANK].repeat_interleave(rows, dim=0)
    last = torch.full((blank.size(0),), SOS, device=blank.device)
    extended = blank.new_zeros(blank.size(0), frames.log_probs.size(2))
    position = torch.zeros(len(last), device=blank.device) if positions else None
    return PrefixState(torch.full_like(blank, ZERO), blank, last, extended, position)


def step(token: Tensor, state: PrefixState, frames: Frames) -> tuple[Tensor, PrefixState]:
    """Appends a token to each prefix and scores every continuation.

    Args:
        token: `(N,)`; `<sos>` appends nothing.
        state: of the prefixes before.
        frames: as `prepare` returned them.

    Returns:
        `log P(prefix + c...) - log P(prefix...)` for every `c`, `(N, V)`, for `<eos>` the log-probability that the text
        ends there; and the state of the longer prefixes.
    """
    in_character, in_blank, position = _append(token, state, frames)
    score = state.extended.gather(1, token.unsqueeze(1))
    B, S, _ = frames.log_probs.shape
    rows = token.size(0) // B

    empty = _log_empty(token)
    either = _shift(torch.logaddexp(in_character, in_blank), empty)
    top = either.amax(1, keepdim=True)
    weights = (either - top).exp().view(B, rows, S)
    first = (weights @ frames.probs).flatten(0, 1).log().clamp(min=ZERO) + top  # (N, V)
    # The same character again must be separated by a blank.
    again = _shift(in_blank, empty) + _of_token(frames.log_probs, token, rows)
    first = first.scatter(1, token.unsqueeze(1), again.logsumexp(1, keepdim=True))
    first[:, EOS] = torch.logaddexp(in_character[:, -1], in_blank[:, -1])
    first[:, :EOS].fill_(ZERO)  # <pad> and <sos>
    return (first - score).float(), PrefixState(in_character, in_blank, token, first, position)


def _append(token: Tensor, state: PrefixState, frames: Frames) -> tuple[Tensor, Tensor, Tensor | None]:
    """Forward variables and position of the prefixes with `token` appended; rows with `<sos>` stay as they are."""
    in_character, in_blank, last, _, position = state
    rows = token.size(0) // frames.log_probs.size(0)
    both = torch.logaddexp(in_character, in_blank)
    before = _shift(torch.where((token == last).unsqueeze(1), in_blank, both), _log_empty(last))
    emit = _of_token(frames.cumulative, token, rows)
    blank = frames.cumulative[..., CTC_BLANK].repeat_interleave(rows, dim=0)
    # x[t] = logaddexp(x[t-1], y[t]) + p[t] has the solution P[t] + logcumsumexp(y - P[t-1]), with P the sums of p.
    now_character = emit + torch.logcumsumexp(before - _shift(emit, 0.0), 1)
    now_blank = blank + torch.logcumsumexp(_shift(now_character, ZERO) - _shift(blank, 0.0), 1)
    if position is not None:
        now, possible = first_emission(before + _of_token(frames.log_probs, token, rows))
        position = torch.where(possible & (token != SOS), now.float(), position)
    same = (token == SOS).unsqueeze(1)
    return torch.where(same, in_character, now_character), torch.where(same, in_blank, now_blank), position


def _of_token(frames: Tensor, token: Tensor, rows: int) -> Tensor:
    """`frames (B, S, V)` of each row's token: `(N, S)`."""
    B, S, _ = frames.shape
    index = token.view(B, 1, rows).expand(B, S, rows)
    return frames.gather(2, index).transpose(1, 2).reshape(B * rows, S)


def _log_empty(last: Tensor) -> Tensor:
    """Before the first step the empty prefix has probability 1, all others 0: `(N, 1)`, in logarithms."""
    return torch.zeros_like(last, dtype=torch.float64).masked_fill_(last != SOS, ZERO).unsqueeze(1)


def _shift(x: Tensor, first: Tensor | float) -> Tensor:
    """`x (N, S)` one step later, starting with `first`, a number or `(N, 1)`."""
    if isinstance(first, Tensor):
        return torch.cat([first, x[:, :-1]], dim=1)
    return F.pad(x[:, :-1], (1, 0), value=first)
