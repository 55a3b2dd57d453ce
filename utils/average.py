"""The running mean of a model's weights: steadier than the weights themselves, and what is evaluated and kept."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def weight_average(model: nn.Module, horizon: float) -> AveragedModel:
    """An exponential moving average over about `horizon` optimiser steps (Polyak and Juditsky 1992); 0: the last alone.

    In the beginning it reaches less far back, over about a tenth of the steps so far.
    """

    def average(means: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
        share = max(1 / max(1.0, horizon), 9 / (10 + int(steps)))
        torch._foreach_lerp_(means, weights, share)

    return AveragedModel(model, multi_avg_fn=average)
