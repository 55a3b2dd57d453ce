"""One optimiser step from one batch, computed in parts or shared by processes where that is asked for."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from dataset import Batch
from models.las import LAS, las_loss, off_diagonal
from utils.device import is_out_of_memory
from utils.distributed import Team
from utils.errors import UserError


class Learner:
    """A model, its optimiser (AdamW) and the running mean of its weights.

    precision: float32, or bf16 for autocast.   accumulate: parts that a batch is computed in.   average_steps: see
    `weight_average`.   listens_alone: whether some steps do not train the Speller.
    """

    def __init__(
        self,
        model: LAS,
        team: Team,
        precision: str,
        *,
        accumulate: int,
        weight_decay: float,
        clip_norm: float,
        ctc_weight: float,
        label_smoothing: float,
        average_steps: float,
        listens_alone: bool,
    ):
        self.model, self.team, self.precision, self.accumulate = model, team, precision, accumulate
        self.clip_norm, self.ctc_weight, self.label_smoothing = clip_norm, ctc_weight, label_smoothing
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=weight_decay, fused=True)
        self.average = weight_average(model, average_steps)
        self._parallel = model
        if team.size > 1:
            # Where the Speller is not trained at first, its gradients are not waited for.
            self._parallel = DistributedDataParallel(model, find_unused_parameters=listens_alone)

    def step(
        self, batch: Batch, count: Tensor, rate: float, forcing: float, guide: float, spell: bool
    ) -> tuple[Tensor, Tensor]:
        """One update of the weights; none where the gradient is not finite.

        count: characters of the whole batch, of which this process may have a share.   rate: of learning.   forcing:
        teacher forcing rate.   guide: weight of guided attention.   spell: False trains the Listener alone, by CTC.
        Returns this share's part of the mean losses (total, attention, CTC) and the gradient's norm before clipping.
        Raises UserError where memory has no room for the batch.
        """
        try:
            losses = self._backward(batch, count, forcing, guide, spell)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            B, T, _ = batch.features.shape
            raise UserError(
                f"no memory for a batch of {B} utterances of up to {T} frames: compute it in parts, "
                f"training.accumulate={2 * self.accumulate}, or take a smaller training.batch_size; last.pt holds what "
                "was computed before"
            ) from None
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        if torch.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.average.update_parameters(self.model)
        return losses, norm

    def _backward(self, batch: Batch, count: Tensor, forcing: float, guide: float, spell: bool) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(3, device=self.device)
        size = -(-len(batch.indices) // self.accumulate)
        starts = range(0, len(batch.indices), size)
        for first in starts:
            part = batch.rows(slice(first, first + size)) if len(starts) > 1 else batch
            together = nullcontext() if self.team.size == 1 or first == starts[-1] else self._parallel.no_sync()
            tokens = part.tokens[:, :-1] if spell else None
            with together:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    logits, attention, listened = self._parallel(part.features, part.feature_lengths, tokens, forcing)
                loss = las_loss(
                    logits, listened, part.tokens, part.token_lengths, self.ctc_weight, self.label_smoothing
                )
                total = loss.total
                if spell and guide:
                    steps = listened.memory.mask.sum((1, 2, 3))
                    total = total + guide * off_diagonal(attention, part.token_lengths - 1, steps)
                share = part.characters / count
                (total * (share * self.team.size)).backward()  # the processes' gradients are averaged
            losses += torch.stack([value.detach() for value in loss]) * share
        return losses

    @property
    def best_guess(self) -> LAS:
        """The model with the mean of its weights: what is evaluated and kept."""
        return self.average.module

    def state(self) -> dict:
        """What a checkpoint needs, besides the mean weights, for training to go on as if never interrupted."""
        return {
            "weights": self.model.state_dict(),
            "averaged_steps": int(self.average.n_averaged),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, mean: dict, state: dict) -> None:
        """`mean`: the mean weights.   `state`: as `state` gave it, in a checkpoint."""
        self.average.module.load_state_dict(mean)
        self.average.n_averaged.fill_(state["averaged_steps"])
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])


def weight_average(model: nn.Module, horizon: float) -> AveragedModel:
    """An exponential moving average over about `horizon` optimiser steps (Polyak and Juditsky 1992); 0: the last alone.

    In the beginning it reaches less far back, over about a tenth of the steps so far.
    """

    def average(means: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
        share = max(1 / max(1.0, horizon), 9 / (10 + int(steps)))
        torch._foreach_lerp_(means, weights, share)

    return AveragedModel(model, multi_avg_fn=average)
