"""One or several trained models as one recogniser: what greedy and beam search ask for the next character."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.attention import Memory
from models.las import LAS
from models.speller import State

FRAMES_PER_CHARACTER = 3  # nobody speaks faster than 33 characters a second
SHORTEST_LIMIT = 10

Memories = tuple[Memory, ...]
States = tuple[State, ...]


def character_limits(feature_lengths: Tensor) -> Tensor:
    """How many characters each utterance `(B,)` may be spelled with, `<eos>` not counted."""
    return SHORTEST_LIMIT + feature_lengths // FRAMES_PER_CHARACTER


class Recogniser:
    """An ensemble: the mean of its models' log-probabilities. Models of different shapes may go together."""

    def __init__(self, models: Sequence[LAS]):
        self.models = [model.eval() for model in models]

    def listen(self, features: Tensor, feature_lengths: Tensor) -> Memories:
        """`features (B, T, D)`, `feature_lengths (B,)`."""
        return tuple(model.listen(features, feature_lengths).memory for model in self.models)

    def initial_state(self, memories: Memories, rows: int = 1) -> States:
        """State before `<sos>` for `rows` hypotheses of each utterance."""
        pairs = zip(self.models, memories, strict=True)
        return tuple(model.speller.initial_state(memory, rows) for model, memory in pairs)

    def step(self, token: Tensor, states: States, memories: Memories) -> tuple[Tensor, States]:
        """Log-probabilities `(N, V)` of what follows `token (N,)`; see `Speller.step`."""
        log_probs, new = [], []
        for model, state, memory in zip(self.models, states, memories, strict=True):
            logits, state, _ = model.speller.step(token, state, memory)
            log_probs.append(logits.log_softmax(-1))
            new.append(state)
        return torch.stack(log_probs).mean(0), tuple(new)


def reorder(states: States, rows: Tensor) -> States:
    """The states of `rows (N,)`, in that order."""
    return tuple(tuple(tensor.index_select(0, rows) for tensor in state) for state in states)
