"""CTC's opinion of what comes next, for joint CTC/attention decoding (Watanabe et al. 2017, algorithm 2).

The probability that a text starts with prefix `g` followed by `c` is a sum over the steps at which `c` can be first
emitted. All prefixes of a beam and all characters are scored by one matrix product, and the forward variables of the
chosen prefixes follow in closed form from cumulative sums: there is no loop over time and none over hypotheses.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from utils.vocabulary import CTC_BLANK, EOS, PAD, SOS

ZERO = -1e9  # log of 0 that can be added and subtracted without becoming nan


class Frames(NamedTuple):
    """The CTC branch's log-probabilities `(B, S, V)`, prepared for scoring; float64, padding is certain blank."""

    log_probs: Tensor
    probs: Tensor
    cumulative: Tensor  # sums over time of log_probs up to each step, (B, S, V)


State = tuple[Tensor, ...]  # ends in a character (N, S), ends in blank (N, S), last token (N,), log P(prefix) (N,)


def prepare(log_probs: Tensor, lengths: Tensor) -> Frames:
    """`log_probs (B, S, V)`, `lengths (B,)`."""
    padding = torch.arange(log_probs.size(1), device=lengths.device) >= lengths.unsqueeze(1)
    log_probs = log_probs.double().clamp(min=ZERO / 1e4).masked_fill(padding.unsqueeze(2), ZERO / 1e4)
    log_probs[..., CTC_BLANK] = log_probs[..., CTC_BLANK].masked_fill(padding, 0.0)
    return Frames(log_probs, log_probs.exp(), log_probs.cumsum(1))


def initial_state(frames: Frames, rows: int) -> State:
    """The empty prefix, for `rows` hypotheses of each utterance: blanks alone so far."""
    blank = frames.cumulative[..., CTC_BLANK].repeat_interleave(rows, dim=0)
    last = torch.full((blank.size(0),), SOS, device=blank.device)
    return torch.full_like(blank, ZERO), blank, last, blank.new_zeros(blank.size(0))


def step(token: Tensor, state: State, frames: Frames) -> tuple[Tensor, State]:
    """Appends `token (N,)` to the prefixes; `log P(prefix + c...) - log P(prefix...)` for every `c`, `(N, V)`.

    For `<eos>` it is the log-probability that the text ends there. `<sos>` appends nothing.
    """
    in_character, in_blank, last, score = _append(token, state, frames)
    B, S, _ = frames.log_probs.shape
    rows = token.size(0) // B

    either = _shift(torch.logaddexp(in_character, in_blank), start=(last == SOS))
    top = either.amax(1, keepdim=True)
    weights = (either - top).exp().view(B, rows, S)
    first = (weights @ frames.probs).flatten(0, 1).log().clamp(min=ZERO) + top  # (N, V)
    # The same character again must be separated by a blank.
    again = _shift(in_blank, start=(last == SOS)) + _of_token(frames.log_probs, last, rows)
    first = first.scatter(1, last.unsqueeze(1), again.logsumexp(1, keepdim=True))
    first[:, EOS] = torch.logaddexp(in_character[:, -1], in_blank[:, -1])
    first[:, [PAD, SOS]] = ZERO
    return (first - score.unsqueeze(1)).float(), (in_character, in_blank, last, score, first)


def _append(token: Tensor, state: State, frames: Frames) -> State:
    """Forward variables of the prefixes with `token` appended; rows with `<sos>` stay as they are."""
    in_character, in_blank, last, _, *scored = state
    if not scored:
        return state  # <sos>, the first step
    rows = token.size(0) // frames.log_probs.size(0)
    both = torch.logaddexp(in_character, in_blank)
    before = _shift(torch.where((token == last).unsqueeze(1), in_blank, both), start=(last == SOS))
    emit = _of_token(frames.cumulative, token, rows)
    blank = frames.cumulative[..., CTC_BLANK].repeat_interleave(rows, dim=0)
    # x[t] = logaddexp(x[t-1], y[t]) + p[t] has the solution P[t] + logcumsumexp(y - P[t-1]), with P the sums of p.
    now_character = emit + torch.logcumsumexp(before - _shift(emit, None), 1)
    entering = _shift(now_character, None, fill=ZERO)
    now_blank = blank + torch.logcumsumexp(entering - _shift(blank, None), 1)
    return now_character, now_blank, token, scored[0].gather(1, token.unsqueeze(1)).squeeze(1)


def _of_token(frames: Tensor, token: Tensor, rows: int) -> Tensor:
    """`frames (B, S, V)` of each row's token: `(N, S)`."""
    B, S, _ = frames.shape
    index = token.view(B, 1, rows).expand(B, S, rows)
    return frames.gather(2, index).transpose(1, 2).reshape(B * rows, S)


def _shift(x: Tensor, start: Tensor | None, fill: float = 0.0) -> Tensor:
    """`x (N, S)` one step later; before the first step the empty prefix (`start`) has probability 1, others 0."""
    first = x.new_full((x.size(0), 1), fill) if start is None else torch.where(start, 0.0, ZERO).to(x).unsqueeze(1)
    return torch.cat([first, x[:, :-1]], dim=1)
