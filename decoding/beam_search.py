"""Beam search over all utterances and hypotheses of a batch at once, on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from decoding.greedy import SYNC_EVERY
from decoding.recogniser import EncodedUtterances, Recogniser, select_rows
from utils.vocabulary import EOS, PAD, SOS

IMPOSSIBLE = float("-inf")
COMPACT_BELOW = 0.75  # share of unfinished utterances at which the finished ones are taken out of the batch


class Hypothesis(NamedTuple):
    """A text that the search has found."""

    tokens: list[int]  # without <eos>
    score: float  # log_probability and the length reward
    log_probability: float


class _Beam(NamedTuple):
    """Progress of the search on `N` utterances; tokens are padded with `<pad>`."""

    utterance: Tensor  # (N,) their positions in the batch
    limits: Tensor  # (N,) characters that they may be spelled with
    scores: Tensor  # (N, K) of the hypotheses in the beam
    tokens: Tensor  # (N, K, longest limit + 1)
    finished_scores: Tensor  # (N, K) of the best hypotheses that have finished
    finished_tokens: Tensor  # (N, K, longest limit + 1)
    finished_count: Tensor  # (N,) how many hypotheses have finished
    done: Tensor  # (N,) whether the search of the utterance has ended


@torch.no_grad()
def beam_search(
    recogniser: Recogniser,
    encoded: Sequence[EncodedUtterances],
    limits: Tensor,
    beam_size: int,
    length_reward: float = 0.0,
) -> list[list[Hypothesis]]:
    """Searches the best hypotheses of each utterance of a batch; the utterances do not depend on each other.

    A hypothesis finishes if `<eos>` is its most probable next token and among the best `beam_size` continuations of
    its utterance. An utterance is done after its limit of characters, or once `beam_size` hypotheses have finished and
    the best of them scores no worse than the best one in the beam. Without these two rules improbable early ends, which
    are cheap in a beam, cut texts short (docs/experiments.md). If none has finished by the limit, the beam itself is
    the result.

    Args:
        recogniser: the models.
        encoded: the batch of `B` utterances, as `recogniser.encode` returned it.
        limits: `(B,)`, characters that each utterance may be spelled with; on the CPU best.
        beam_size: `K`.
        length_reward: added to the score for every character, since a product of probabilities prefers short texts.

    Returns:
        Up to `K` hypotheses of each utterance, best first.
    """
    (B,), K, longest, device = limits.shape, beam_size, int(limits.max()), recogniser.device
    limits = limits.to(device, non_blocking=True)
    state = recogniser.initial_state(encoded, rows=K)
    token = torch.full((B * K,), SOS, device=device)
    beam = _start(limits, K, longest)
    found: dict[int, list[Hypothesis]] = {}
    for step in range(longest + 1):
        log_probs, state = recogniser.step(token, state, encoded)
        log_probs[:, :EOS].fill_(IMPOSSIBLE)  # <pad> and <sos>
        log_probs[:, EOS].masked_fill_(log_probs.argmax(1) != EOS, IMPOSSIBLE)
        beam, parent = _advance(beam, log_probs + length_reward, step, length_reward)
        rows = torch.arange(len(parent), device=device).unsqueeze(1) * K + parent
        if device.type == "cpu" or step % SYNC_EVERY == SYNC_EVERY - 1 or step == longest:
            unfinished = (~beam.done).nonzero().squeeze(1)
            if len(unfinished) <= COMPACT_BELOW * len(beam.done):
                found |= _read(select_rows(beam, beam.done.nonzero().squeeze(1)), length_reward)
                if len(unfinished) == 0:
                    break
                beam, encoded, rows = (
                    select_rows(beam, unfinished),
                    select_rows(tuple(encoded), unfinished),
                    rows[unfinished],
                )
        state = select_rows(state, rows.flatten())
        token = beam.tokens[:, :, step].flatten()
    return [found[utterance] for utterance in range(B)]


def _start(limits: Tensor, K: int, longest: int) -> _Beam:
    """The beam before `<sos>`."""
    (B,), device = limits.shape, limits.device
    scores = torch.full((B, K), IMPOSSIBLE, device=device)
    tokens = torch.full((B, K, longest + 1), PAD, device=device)
    alone = scores.clone()
    alone[:, 0] = 0.0  # all K start alike: the first alone may branch
    nothing = torch.zeros(B, dtype=torch.long, device=device)
    every = torch.arange(B, device=device)
    return _Beam(every, limits, alone, tokens, scores, tokens.clone(), nothing, nothing.bool())


def _advance(beam: _Beam, log_probs: Tensor, step: int, length_reward: float) -> tuple[_Beam, Tensor]:
    """The beam after one more character, and the position `(N, K)` of each hypothesis's parent in the beam before.

    log_probs: `(N * K, V)` of the next character, with the length reward in it.
    """
    (N, K), V = beam.scores.shape, log_probs.size(1)
    continuations = (beam.scores.unsqueeze(2) + log_probs.view(N, K, V)).flatten(1)
    # Each hypothesis has one <eos>, so among the best 2K there are K that go on.
    best, index = continuations.topk(2 * K, dim=1)
    parent, character = index // V, index % V
    ends = character == EOS

    ending = ends[:, :K] & (best[:, :K] > IMPOSSIBLE) & ~beam.done.unsqueeze(1)
    count = beam.finished_count + ending.sum(1)
    finished = torch.cat([beam.finished_scores, best[:, :K].masked_fill(~ending, IMPOSSIBLE)], dim=1)
    finished, chosen = finished.topk(K, dim=1)
    texts = _select(torch.cat([beam.finished_tokens, _select(beam.tokens, parent[:, :K])], dim=1), chosen)
    over = (step >= beam.limits) & ~beam.done  # the limit is reached: only <eos> could still follow
    cut = (over & (count == 0)).unsqueeze(1)
    finished = torch.where(cut, beam.scores + length_reward, finished)
    texts = torch.where(cut.unsqueeze(2), beam.tokens, texts)

    scores, going_on = best.masked_fill(ends, IMPOSSIBLE).topk(K, dim=1)
    done = beam.done | over | ((count >= K) & (finished[:, 0] >= scores[:, 0]))
    parent, character = parent.gather(1, going_on), character.gather(1, going_on)
    tokens = _select(beam.tokens, parent)
    tokens[:, :, step] = character
    return _Beam(beam.utterance, beam.limits, scores, tokens, finished, texts, count, done), parent


def _read(beam: _Beam, length_reward: float) -> dict[int, list[Hypothesis]]:
    """The finished hypotheses of each utterance, by its position."""

    def hypothesis(row: list[int], score: float) -> Hypothesis:
        spelled = [token for token in row if token != PAD]
        return Hypothesis(spelled, score, score - length_reward * (len(spelled) + 1))

    columns = (beam.utterance.tolist(), beam.finished_tokens.tolist(), beam.finished_scores.tolist())
    return {
        utterance: [hypothesis(row, score) for row, score in zip(rows, scores, strict=True) if score > IMPOSSIBLE]
        for utterance, rows, scores in zip(*columns, strict=True)
    }


def _select(tokens: Tensor, index: Tensor) -> Tensor:
    """`tokens (B, K, L)` at `index (B, J)`: `(B, J, L)`."""
    return tokens.gather(1, index.unsqueeze(2).expand(-1, -1, tokens.size(2)))
