"""The contestants of benchmarks.train: training steps of whole models, and steps of the Listener alone."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.reference.padded_lstms import PaddedLSTMs
from benchmarks.reference.speechbrain_las import SpeechBrainLAS
from benchmarks.reference.textbook import TextbookLAS
from dataset import Batch
from models.las import LAS, las_loss
from models.listener import Listener
from utils.device import PRECISIONS, autocast
from utils.vocabulary import KAGGLE

Step = Callable[[Batch], None]
BATCHING = {  # of each contestant, see `Epoch`
    "project": "bucketed",
    "other": "bucketed",
    "packed": "random",
    "padded": "random",
    "speechbrain": "bucketed",
}
STEP_SETTINGS = {"learning_rate", "weight_decay", "clip_norm", "ctc_weight", "label_smoothing"}  # of `training_step`


def with_input_feeding(model_kwargs: Mapping[str, Any], input_feeding: bool) -> dict[str, Any]:
    """The same sizes with `model.speller.input_feeding` as given; dot attention where the kind does not go with it."""
    fitting = {"dot", "location"} if input_feeding else {"dot", "relative"}
    kind = model_kwargs["attention"]["kind"]
    kind = kind if kind in fitting else "dot"
    return {
        **model_kwargs,
        "attention": {**model_kwargs["attention"], "kind": kind},
        "speller": {**model_kwargs["speller"], "input_feeding": input_feeding},
    }


def kwargs_of(name: str, model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a contestant's model, from those of the project's; textbooks always have input feeding."""
    input_feeding = model_kwargs["speller"]["input_feeding"]
    own = {"other": not input_feeding, "packed": True, "padded": True}.get(name, input_feeding)
    return with_input_feeding(model_kwargs, own)


def make_model(name: str, feature_dim: int, model_kwargs: Mapping[str, Any]) -> nn.Module:
    """The model of a contestant; all of them are called as `LAS` is.

    Args:
        name: a key of BATCHING.
        feature_dim: `D`.
        model_kwargs: further keyword arguments of the project's `LAS`.
    """
    torch.manual_seed(0)
    sizes, own = (feature_dim, len(KAGGLE)), kwargs_of(name, model_kwargs)
    if name in ("packed", "padded"):
        return TextbookLAS(*sizes, **own, packed=name == "packed")
    ours = LAS(*sizes, **own)
    return SpeechBrainLAS(*sizes, **own, parameters=ours.parameter_count) if name == "speechbrain" else ours


def training_step(
    model: nn.Module,
    device: torch.device,
    precision: str,
    *,
    learning_rate: float,
    weight_decay: float,
    clip_norm: float,
    ctc_weight: float,
    label_smoothing: float,
) -> Step:
    """A step as train.py makes it, but with teacher forcing throughout and without the moving average of the weights.

    Args:
        model: is moved to the device.
        device: to train on.
        precision: float32, or bf16 or fp16 for autocast; with fp16 the loss is scaled.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        ctc_weight: share of the CTC loss.
        label_smoothing: of the cross entropy on characters.
    """
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=weight_decay, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step(batch: Batch) -> None:
        with autocast(device, precision):
            logits, _, encoded = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
        loss = las_loss(logits, encoded, batch.tokens, batch.token_lengths, ctc_weight, label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss.total).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimizer)
        scaler.update()

    return step


def listener_step(feature_dim: int, listener: Mapping[str, Any], device: torch.device, precision: str) -> Step:
    """Forward and backward pass of the project's Listener alone.

    Args:
        feature_dim: `D`.
        listener: further keyword arguments of `Listener`.
        device: to compute on.
        precision: float32, or bf16 or fp16 for autocast.
    """
    model = Listener(feature_dim, **listener).to(device).train()

    def step(batch: Batch) -> None:
        with autocast(device, precision):
            encoded = model(batch.features, batch.feature_lengths)
        model.zero_grad(set_to_none=True)
        encoded.memory.sum().backward()

    return step


def lstms_step(feature_dim: int, listener: Mapping[str, Any], device: torch.device, precision: str) -> Step:
    """Forward and backward pass of the Listener's LSTMs, see `PaddedLSTMs`; arguments as of `listener_step`."""
    model = PaddedLSTMs(feature_dim, **listener).to(device).train()

    def step(batch: Batch) -> None:
        # torch chooses a CPU kernel before autocast casts the input: one that may fail in that precision
        x = model.make_input(batch.features).to(PRECISIONS[precision])
        with autocast(device, precision):
            output = model(x)
        model.zero_grad(set_to_none=True)
        output.sum().backward()

    return step
