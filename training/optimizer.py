"""AdamW, with weight decay on the matrices alone."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(f"las.{__name__}")


def make_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over all parameters of `model`; biases, norms, embeddings and other vectors do not decay.

    A decayed gain of a layer norm or a decayed bias is only pulled away from what fits the data, and an embedding that
    is seldom read decays at every step all the same.
    """
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    plain = {parameter for parameter in model.parameters() if parameter.ndim < 2 or parameter in embeddings}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in model.parameters() if parameter not in plain]},
        {"params": [parameter for parameter in model.parameters() if parameter in plain], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def parameters_of(optimizer: torch.optim.AdamW, model: nn.Module, state: dict[str, Any]) -> list[Tensor]:
    """The parameters that `state` is for, in its order: of `optimizer`, or of `model` as one group, as it once was."""
    if len(state["param_groups"]) == 1:
        return list(model.parameters())
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def load_optimizer_state(optimizer: torch.optim.AdamW, model: nn.Module, state: dict[str, Any]) -> None:
    """Restores what `optimizer.state_dict()` returned, now or when all parameters of `model` decayed, as one group."""
    if len(state["param_groups"]) == 1:
        logger.info("weight decay: on the matrices alone from here on; this run began when everything decayed")
        position = {parameter: index for index, parameter in enumerate(parameters_of(optimizer, model, state))}
        order = [position[parameter] for group in optimizer.param_groups for parameter in group["params"]]
        moments = {new: state["state"][old] for new, old in enumerate(order) if old in state["state"]}
        state = {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}
    optimizer.load_state_dict(state)
