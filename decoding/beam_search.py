"""Beam search over all utterances and hypotheses of a batch at once, on the device."""

from typing import NamedTuple

import torch
from torch import Tensor

from decoding.greedy import SYNC_EVERY
from decoding.recogniser import Heard, Recogniser, reorder
from utils.vocabulary import EOS, PAD, SOS


class Hypothesis(NamedTuple):
    """tokens: `<eos>` left out.   score: log_probability and what its length adds."""

    tokens: list[int]
    score: float
    log_probability: float


class _Finished(NamedTuple):
    """The best K finished hypotheses of each utterance, kept aside from the beam."""

    scores: Tensor  # (B, K)
    tokens: Tensor  # (B, K, longest limit), padded with <pad>

    def merge(self, scores: Tensor, tokens: Tensor) -> "_Finished":
        """The best K of these and those."""
        best, index = torch.cat([self.scores, scores], dim=1).topk(self.scores.size(1), dim=1)
        tokens = torch.cat([self.tokens, tokens], dim=1)
        return _Finished(best, _select(tokens, index))


@torch.no_grad()
def beam_search(
    recogniser: Recogniser,
    heard: tuple[Heard, ...],
    limits: Tensor,
    beam_size: int,
    length_reward: float = 0.0,
) -> list[list[Hypothesis]]:
    """Up to `beam_size` hypotheses of each utterance, best first. Each character adds `length_reward` to the score:
    a product of probabilities alone prefers short texts.

    A hypothesis finishes where `<eos>` is its most probable next token and among the best `beam_size` continuations of
    its utterance. An utterance is done after `limits (B,)` characters, or when as many have finished and the best of
    them scores no worse than the best of the beam by then. Without these two rules improbable early ends, which are
    cheap in a beam, cut texts short (RESULTS.md). Only where nothing has finished by the limit, the beam itself is the
    result. What happens to an utterance does not depend on the others.
    """
    B, K, longest = limits.size(0), beam_size, int(limits.max())
    device, impossible = limits.device, float("-inf")
    states = recogniser.initial_state(heard, rows=K)
    token = torch.full((B * K,), SOS, device=device)
    scores = torch.full((B, K), impossible, device=device)
    scores[:, 0] = 0.0  # all K start alike: the first alone may branch
    tokens = torch.full((B, K, longest), PAD, device=device)
    finished = _Finished(torch.full((B, K), impossible, device=device), tokens.clone())
    count = torch.zeros(B, dtype=torch.long, device=device)
    done = torch.zeros(B, dtype=torch.bool, device=device)
    first_row = torch.arange(B, device=device).unsqueeze(1) * K

    for step in range(longest + 1):
        log_probs, states = recogniser.step(token, states, heard)
        V = log_probs.size(1)
        log_probs[:, [PAD, SOS]] = impossible
        log_probs[:, EOS].masked_fill_(log_probs.argmax(1) != EOS, impossible)
        log_probs += length_reward
        continuations = (scores.unsqueeze(2) + log_probs.view(B, K, V)).flatten(1)
        # Each hypothesis has one <eos>, so among the best 2K there are K that go on.
        best, index = continuations.topk(2 * K, dim=1)
        parent, character = index // V, index % V
        ends = character == EOS

        over = (step >= limits) & ~done  # the limit is reached: only <eos> could still follow
        ending = ends[:, :K] & (best[:, :K] > impossible) & ~done.unsqueeze(1)
        finished = finished.merge(best[:, :K].masked_fill(~ending, impossible), _select(tokens, parent[:, :K]))
        count = count + ending.sum(1)
        cut = (over & (count == 0)).unsqueeze(1)
        finished = _Finished(
            torch.where(cut, scores + length_reward, finished.scores),
            torch.where(cut.unsqueeze(2), tokens, finished.tokens),
        )
        scores, going_on = best.masked_fill(ends, impossible).topk(K, dim=1)
        ahead = finished.scores[:, 0] >= scores[:, 0]
        done = done | over | ((count >= K) & ahead)
        if step == longest or ((device.type == "cpu" or step % SYNC_EVERY == SYNC_EVERY - 1) and done.all()):
            break

        parent, character = parent.gather(1, going_on), character.gather(1, going_on)
        tokens = _select(tokens, parent)
        tokens[:, :, step] = character
        states = reorder(states, (first_row + parent).flatten())
        token = character.flatten()

    def hypothesis(row: list[int], score: float) -> Hypothesis:
        spelled = [token for token in row if token != PAD]
        return Hypothesis(spelled, score, score - length_reward * (len(spelled) + 1))

    return [
        [hypothesis(row, score) for row, score in zip(*utterance, strict=True) if score > impossible]
        for utterance in zip(finished.tokens.tolist(), finished.scores.tolist(), strict=True)
    ]


def _select(tokens: Tensor, index: Tensor) -> Tensor:
    """`tokens (B, K, L)` at `index (B, J)`: `(B, J, L)`."""
    return tokens.gather(1, index.unsqueeze(2).expand(-1, -1, tokens.size(2)))
