"""One or several trained models as one recogniser: what greedy and beam search ask for the next character."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from decoding import ctc_prefix
from decoding.language_model import LanguageModel
from models.attention import Memory
from models.las import LAS, Listened

FRAMES_PER_CHARACTER = 3  # nobody speaks faster than 33 characters a second
SHORTEST_LIMIT = 10

States = tuple[tuple[Tensor, ...], ...]


def character_limits(feature_lengths: Tensor) -> Tensor:
    """How many characters each utterance `(B,)` may be spelled with, `<eos>` not counted."""
    return SHORTEST_LIMIT + feature_lengths // FRAMES_PER_CHARACTER


class Heard(NamedTuple):
    """An utterance as one model heard it: what its Speller attends to, and what its CTC branch says."""

    memory: Memory
    ctc: ctc_prefix.Frames | None


class Recogniser:
    """An ensemble: the mean of its models' log-probabilities. Models of different shapes may go together.

    ctc_weight: share of the CTC branch in what a model says of the next character: `(1 - w) log P_attention(c | g) +
    w log P_ctc(c | g)`, `g` what was spelled so far. It does not count for a model without a CTC branch.
    lm_weight: how much of the language model's log P(c | g) is added (shallow fusion, Gulcehre et al. 2015).
    precision: bf16 computes the Listener in it; as in training, all else is float32.
    """

    def __init__(
        self,
        models: Sequence[LAS],
        ctc_weight: float = 0.0,
        language_model: LanguageModel | None = None,
        lm_weight: float = 0.0,
        precision: str = "float32",
    ):
        self.models, self.ctc_weight = [model.eval() for model in models], ctc_weight
        self.language_model, self.lm_weight = language_model if lm_weight else None, lm_weight
        self.precision = precision

    def listen(self, features: Tensor, feature_lengths: Tensor) -> tuple[Heard, ...]:
        """`features (B, T, D)`, `feature_lengths (B,)`."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return tuple(self.prepare(model.listen(features, feature_lengths)) for model in self.models)

    def prepare(self, listened: Listened) -> Heard:
        use_ctc = self.ctc_weight > 0 and listened.ctc_log_probs is not None
        ctc = ctc_prefix.prepare(listened.ctc_log_probs, listened.ctc_lengths) if use_ctc else None
        return Heard(listened.memory, ctc)

    def select(self, heard: tuple[Heard, ...], utterances: Tensor) -> tuple[Heard, ...]:
        """What was heard of these utterances alone."""
        return tuple(
            Heard(Memory(*_some(memory, utterances)), ctc and ctc_prefix.Frames(*_some(ctc, utterances)))
            for memory, ctc in heard
        )

    def initial_state(self, heard: tuple[Heard, ...], rows: int = 1) -> States:
        """State before `<sos>` for `rows` hypotheses of each utterance.

        For each model, of its Speller and its CTC branch; then of the language model.
        """
        states = []
        for model, (memory, ctc) in zip(self.models, heard, strict=True):
            states.append(model.speller.initial_state(memory, rows))
            states.append(() if ctc is None else ctc_prefix.initial_state(ctc, rows))
        N = heard[0].memory.keys.size(0) * rows
        states.append(() if self.language_model is None else (self.language_model.initial_state(N),))
        return tuple(states)

    def step(self, token: Tensor, states: States, heard: tuple[Heard, ...]) -> tuple[Tensor, States]:
        """Log-probabilities `(N, V)` of what follows `token (N,)`; see `Speller.step`."""
        log_probs, new = [], []
        for index, (model, (memory, ctc)) in enumerate(zip(self.models, heard, strict=True)):
            logits, speller_state, _ = model.speller.step(token, states[2 * index], memory)
            said, ctc_state = logits.log_softmax(-1), ()
            if ctc is not None:
                seen, ctc_state = ctc_prefix.step(token, states[2 * index + 1], ctc)
                said = (1 - self.ctc_weight) * said + self.ctc_weight * seen
            log_probs.append(said)
            new += [speller_state, ctc_state]
        total, lm_state = torch.stack(log_probs).mean(0), ()
        if self.language_model is not None:
            expected, lm_state = self.language_model.step(token, *states[-1])
            total, lm_state = total + self.lm_weight * expected, (lm_state,)
        return total, (*new, lm_state)


def _some(parts: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.index_select(0, rows) for tensor in parts)


def reorder(states: States, rows: Tensor) -> States:
    """The states of `rows (N,)`, in that order."""
    return tuple(_some(state, rows) for state in states)
