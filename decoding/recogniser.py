"""One or several trained models as one recogniser: what greedy and beam search ask for the next character."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from decoding import ctc_prefix
from decoding.language_model import LanguageModel
from models.attention import Memory
from models.las import LAS, EncoderOutput
from utils.device import autocast

FRAMES_PER_CHARACTER = 3  # nobody speaks faster than 33 characters per second
SHORTEST_LIMIT = 10
S = TypeVar("S")


def character_limits(feature_lengths: Tensor) -> Tensor:
    """How many characters each utterance of `feature_lengths (B,)` may be spelled with, `<eos>` not counted: `(B,)`."""
    return SHORTEST_LIMIT + feature_lengths // FRAMES_PER_CHARACTER


class EncodedUtterances(NamedTuple):
    """A batch encoded by one model: what its Speller attends to, and the posteriors of its CTC branch."""

    memory: Memory
    ctc: ctc_prefix.Frames | None  # None without a CTC branch, or if nobody needs them


class RecogniserState(NamedTuple):
    """State of `N` hypotheses; the first dimension of every tensor in it is `N`."""

    spellers: tuple[Any, ...]  # of each model
    ctc: tuple[ctc_prefix.PrefixState | None, ...]  # of each model
    language_model: Tensor | None  # (N,)


class Recogniser:
    """An ensemble: the mean of its models' log-probabilities. Models of different shapes may go together.

    Args:
        models: trained models; they are put into evaluation mode.
        ctc_weight: share `w` of the CTC branch in a model's score of the next character `c` after the prefix `g`,
            `(1 - w) log P_attention(c | g) + w log P_ctc(c | g)`. It does not count for a model without a CTC branch.
        language_model: added with `lm_weight` times its log P(c | g) (shallow fusion, Gulcehre et al. 2015), or None.
        lm_weight: weight of the language model.
        precision: float32, or bf16 or fp16 for the Listener; as in training, all else is float32.
        keep_posteriors: whether `encode` returns the posteriors of CTC branches without weight as well.
    """

    def __init__(
        self,
        models: Sequence[LAS],
        ctc_weight: float = 0.0,
        language_model: LanguageModel | None = None,
        lm_weight: float = 0.0,
        precision: str = "float32",
        keep_posteriors: bool = False,
    ):
        self.models, self.ctc_weight = [model.eval() for model in models], ctc_weight
        self.language_model, self.lm_weight = language_model if lm_weight else None, lm_weight
        self.precision, self.keep_posteriors = precision, keep_posteriors

    @property
    def device(self) -> torch.device:
        return next(self.models[0].parameters()).device

    def encode(self, features: Tensor, feature_lengths: Tensor) -> tuple[EncodedUtterances, ...]:
        """Each model's encoding of `features (B, T, D)` of `feature_lengths (B,)`."""
        with autocast(features.device, self.precision):
            return tuple(self.prepare(model, model.listen(features, feature_lengths)) for model in self.models)

    def prepare(self, model: LAS, encoded: EncoderOutput) -> EncodedUtterances:
        """What `encode` returns of a model, from what its Listener has encoded already."""
        if encoded.ctc_log_probs is None or not (self._scores_prefixes(model) or self.keep_posteriors):
            return EncodedUtterances(encoded.memory, None)
        return EncodedUtterances(encoded.memory, ctc_prefix.prepare(encoded.ctc_log_probs, encoded.ctc_lengths))

    def _scores_prefixes(self, model: LAS) -> bool:
        """Whether the CTC branch follows every hypothesis: for its score, or to tell attention where it is."""
        return self.ctc_weight > 0 or model.speller.attention.sees_position

    def initial_state(self, encoded: Sequence[EncodedUtterances], rows: int = 1) -> RecogniserState:
        """State before `<sos>` for `rows` hypotheses of each utterance, `N = B * rows`."""
        spellers = [
            model.speller.initial_state(memory, rows) for model, (memory, _) in zip(self.models, encoded, strict=True)
        ]
        ctc = [
            ctc_prefix.initial_state(frames, rows, model.speller.attention.sees_position)
            if frames is not None and self._scores_prefixes(model)
            else None
            for model, (_, frames) in zip(self.models, encoded, strict=True)
        ]
        N = encoded[0].memory.keys.size(0) * rows
        language_model = None if self.language_model is None else self.language_model.initial_state(N)
        return RecogniserState(tuple(spellers), tuple(ctc), language_model)

    def step(
        self, token: Tensor, state: RecogniserState, encoded: Sequence[EncodedUtterances]
    ) -> tuple[Tensor, RecogniserState]:
        """Log-probabilities `(N, V)` of what follows `token (N,)`, and the state after it; see `Speller.step`."""
        log_probs, spellers, ctc = [], [], []
        for model, speller_state, ctc_state, (memory, frames) in zip(
            self.models, state.spellers, state.ctc, encoded, strict=True
        ):
            ctc_scores = spoken = None
            if frames is not None and ctc_state is not None:
                ctc_scores, ctc_state = ctc_prefix.step(token, ctc_state, frames)
                spoken = None if ctc_state.position is None else model.encoder_step(ctc_state.position)
            logits, speller_state, _ = model.speller.step(token, speller_state, memory, spoken)
            model_scores = logits.log_softmax(-1)
            if ctc_scores is not None and self.ctc_weight:
                model_scores = (1 - self.ctc_weight) * model_scores + self.ctc_weight * ctc_scores
            log_probs.append(model_scores)
            spellers.append(speller_state)
            ctc.append(ctc_state)
        total, lm_state = torch.stack(log_probs).mean(0), state.language_model
        if self.language_model is not None and lm_state is not None:
            lm_scores, lm_state = self.language_model.step(token, lm_state)
            total = total + self.lm_weight * lm_scores
        return total, RecogniserState(tuple(spellers), tuple(ctc), lm_state)


def select_rows(tree: S, rows: Tensor) -> S:
    """`tree` with every tensor in it indexed by `rows (N',)` along its first dimension.

    Args:
        tree: a tensor, None, or tuples and NamedTuples of such, as states and encoded utterances are.
        rows: positions; a beam re-orders its hypotheses by the positions of their parents.
    """
    if isinstance(tree, Tensor):
        return tree.index_select(0, rows)  # type: ignore[return-value]
    if not isinstance(tree, tuple):
        return tree  # None
    parts = [select_rows(part, rows) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)  # type: ignore[return-value]
