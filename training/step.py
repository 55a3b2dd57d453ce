"""One optimiser step on one batch, with gradient accumulation and data parallelism."""

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dataset import Batch
from models.las import LAS, EncoderOutput, las_loss, off_alignment, off_diagonal
from training.expected_distance import expected_distance
from training.optimizer import load_optimizer_state, make_optimizer
from utils.device import autocast, is_out_of_memory
from utils.distributed import DistributedContext
from utils.errors import UserError
from utils.sampler import NONE
from utils.vocabulary import KAGGLE, Vocabulary

LEAST_SCALE = 1.0  # of the loss with fp16: gradients that overflow even then are not finite
MAX_BAD_STEPS = 3  # consecutive steps without a finite gradient before a run stops

logger = logging.getLogger(f"las.{__name__}")


class StepResult(NamedTuple):
    """What one step computed, on the CPU."""

    losses: Tensor  # (3,) this rank's share of the mean total, attention and CTC loss
    gradient_norm: Tensor  # (), before clipping
    updated: bool  # False if the gradient was not finite and the weights stayed as they were
    overflow: bool = False  # with fp16: it was only scaled too far


class TrainStep:
    """A model, its AdamW optimiser and an exponential moving average (EMA) of its weights.

    Args:
        model: the model to train, on its device.
        context: ranks that share each batch; their gradients are averaged by DistributedDataParallel.
        precision: float32, or bf16 or fp16 for autocast; with fp16 the loss is scaled.
        utterances: path of each utterance of the corpus, to name those of a bad batch.
        accumulate: number of micro-batches that a batch is computed in (gradient accumulation).
        weight_decay: of AdamW, see `make_optimizer`.
        clip_norm: gradients are scaled down to this norm.
        ctc_weight: share of the CTC loss.
        label_smoothing: of the cross entropy on characters.
        ema_steps: horizon of the EMA, see `ExponentialMovingAverage`.
        ctc_only_warmup: whether some steps train the Listener by CTC alone.
        vocabulary: of the model, for the expected distance.
    """

    def __init__(
        self,
        model: LAS,
        context: DistributedContext,
        precision: str,
        utterances: Sequence[Path],
        *,
        accumulate: int,
        weight_decay: float,
        clip_norm: float,
        ctc_weight: float,
        label_smoothing: float,
        ema_steps: float,
        ctc_only_warmup: bool,
        vocabulary: Vocabulary = KAGGLE,
    ):
        self.model, self.context, self.precision, self.utterances = model, context, precision, utterances
        self.accumulate, self.clip_norm = accumulate, clip_norm
        self.ctc_weight, self.label_smoothing = ctc_weight, label_smoothing
        self.vocabulary = vocabulary
        self.device = next(model.parameters()).device
        self.optimizer = make_optimizer(model, weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.ema = ExponentialMovingAverage(model, ema_steps)
        self._bad_steps = 0  # consecutive
        self._parallel: nn.Module = model
        if context.world_size > 1:
            # Steps that train the Listener alone leave the Speller without gradients, which must not be waited for.
            self._parallel = DistributedDataParallel(model, find_unused_parameters=ctc_only_warmup)

    def __call__(
        self,
        batch: Batch,
        *,
        characters: int,
        learning_rate: float,
        teacher_forcing_rate: float,
        guided_attention: float,
        train_speller: bool,
        minimise_distance: bool = False,
    ) -> StepResult:
        """Updates the weights once, unless the gradient is not finite.

        Args:
            batch: this rank's share of the batch.
            characters: of the whole batch over all ranks, `<eos>` counted.
            learning_rate: of AdamW for this step.
            teacher_forcing_rate: probability that the Speller reads the true previous character.
            guided_attention: weight of the loss on attention away from the diagonal, or the alignment of CTC.
            train_speller: False trains the Listener alone, by CTC.
            minimise_distance: whether `expected_distance` is minimised too.

        Raises:
            UserError: there is no memory for the batch, or MAX_BAD_STEPS consecutive gradients were not finite.
        """
        try:
            losses = self._backward(
                batch, characters, teacher_forcing_rate, guided_attention, train_speller, minimise_distance
            )
            return self._update(batch, losses, learning_rate)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            B, T, _ = batch.features.shape
            raise UserError(
                f"no memory for a batch of {B} utterances of up to {T} frames: compute it in more micro-batches, "
                f"training.accumulate={2 * self.accumulate}, or take a smaller training.batch_size; last.pt holds what "
                "was computed before"
            ) from None

    def _update(self, batch: Batch, losses: Tensor, learning_rate: float) -> StepResult:
        """Clips the gradient and takes the optimiser's step with it, if it is finite."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        # All that the host has to know is read at once: each reading waits for the GPU.
        losses, norm = torch.cat([losses, norm.unsqueeze(0)]).cpu().split([3, 1])
        norm = norm.squeeze(0)
        finite = bool(norm.isfinite())
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.scaler.step(self.optimizer)
            self.ema.update(self.model)
        # An overflow of scaled gradients is no fault of the batch, as long as the scale can come down.
        overflow = (
            not finite
            and self.scaler.is_enabled()
            and bool(losses.isfinite().all())
            and self.scaler.get_scale() > LEAST_SCALE
        )
        self.scaler.update()
        self._guard(finite, overflow, batch)
        return StepResult(losses, norm, finite, overflow)

    def _backward(
        self,
        batch: Batch,
        characters: int,
        teacher_forcing_rate: float,
        guided_attention: float,
        spell: bool,
        minimise_distance: bool,
    ) -> Tensor:
        """Gradients of the mean loss over the whole batch; this rank's share of the losses `(3,)`."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(3, device=self.device)
        size = -(-len(batch.indices) // self.accumulate)
        starts = range(0, len(batch.indices), size)
        for first in starts:
            part = batch.rows(slice(first, first + size)) if len(starts) > 1 else batch
            tokens = part.tokens[:, :-1] if spell else None
            with self._synchronised(last=first == starts[-1]):
                with autocast(self.device, self.precision):
                    logits, attention, encoded = self._parallel(
                        part.features, part.feature_lengths, tokens, teacher_forcing_rate, part.token_lengths - 2
                    )
                loss = las_loss(logits, encoded, part.tokens, part.token_lengths, self.ctc_weight, self.label_smoothing)
                total = loss.total
                if spell and guided_attention:
                    total = total + guided_attention * self._guide(attention, encoded, part.token_lengths)
                if spell and minimise_distance:
                    expected = expected_distance(self.model, encoded, part, self.ctc_weight, self.vocabulary)
                    total = total + expected / part.characters
                share = part.characters / characters
                self.scaler.scale(total * (share * self.context.world_size)).backward()  # DDP averages over ranks
            losses += torch.stack([value.detach() for value in loss]) * share
        return losses

    @staticmethod
    def _guide(attention: Tensor, encoded: EncoderOutput, token_lengths: Tensor) -> Tensor:
        """The loss of guided attention: along the CTC branch's alignment where the Speller was given it."""
        if encoded.spoken is None:
            return off_diagonal(attention, token_lengths - 1, encoded.memory.lengths)
        return off_alignment(attention, encoded.spoken, token_lengths - 2)

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients in the backward pass of the last micro-batch alone."""
        if isinstance(self._parallel, DistributedDataParallel) and not last:
            return self._parallel.no_sync()
        return nullcontext()

    def _guard(self, finite: bool, overflow: bool, batch: Batch) -> None:
        """Names the utterances of a step that was skipped; stops the run after MAX_BAD_STEPS of them in a row."""
        if finite or overflow:
            self._bad_steps = 0 if finite else self._bad_steps
            return
        self._bad_steps += 1
        positions = [*batch.indices.tolist(), *batch.followers[batch.followers != NONE].tolist()]
        names = ", ".join(self.utterances[position].stem for position in positions)
        logger.warning(f"skipped a batch whose gradient is not finite: {names}")
        if self._bad_steps == MAX_BAD_STEPS:
            raise UserError(
                f"{MAX_BAD_STEPS} batches in a row gave no finite gradient; last.pt holds what was computed before. "
                "A lower training.learning_rate or training.clip_norm usually helps"
            )

    def check_finite(self) -> None:
        """Raises UserError if a weight is not finite, as after steps that were far too large."""
        tensors = [*self.model.state_dict().values(), *self.ema_model.state_dict().values()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise UserError(
                "the weights are not finite any more; last.pt holds what was computed before. A lower "
                "training.learning_rate or training.weight_decay usually helps"
            )

    @property
    def ema_model(self) -> LAS:
        """The model with the averaged weights: the one that is evaluated and decoded with."""
        return self.ema.model

    def state_dict(self) -> dict:
        """What a checkpoint needs besides the averaged weights to resume training exactly."""
        return {
            "weights": self.model.state_dict(),
            "averaged_steps": self.ema.steps,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, ema_weights: dict, state: dict) -> None:
        """Restores the averaged weights and what `state_dict` returned."""
        self.ema.model.load_state_dict(ema_weights)
        self.ema.steps = state["averaged_steps"]
        self.model.load_state_dict(state["weights"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


class ExponentialMovingAverage:
    """A model whose weights are the mean of those of the last `horizon` steps or so (Polyak and Juditsky 1992).

    In the beginning it reaches less far back: over about a tenth of the steps so far. Horizon 0: the last weights.
    torch's AveragedModel keeps its count on the device, and reading it there would wait for the GPU at every step.
    """

    def __init__(self, model: LAS, horizon: float):
        self.model, self.horizon, self.steps = copy.deepcopy(model).requires_grad_(False), horizon, 0
        for module in self.model.modules():
            if isinstance(module, nn.LSTM):
                module.flatten_parameters()  # a copy is not one chunk of memory any more, which cuDNN wants

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights of `model` into the mean."""
        share = max(1 / max(1.0, self.horizon), 9 / (10 + self.steps)) if self.steps else 1.0
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), share)
        self.steps += 1
