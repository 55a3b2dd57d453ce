"""What benchmarks.train measures: models in training, and the Listener alone."""

import math
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.reference.speechbrain_las import SpeechBrainLAS
from benchmarks.reference.textbook import TextbookLAS
from dataset import Batch
from models.las import LAS, las_loss
from models.listener import Listener
from utils.vocabulary import VOCABULARY

Step = Callable[[Batch], None]
BATCHES = {  # of each contestant
    "project": "bucketed",
    "other": "bucketed",
    "packed": "random",
    "padded": "random",
    "speechbrain": "bucketed",
}


def with_feeding(model: dict, feeding: bool) -> dict:
    """The same sizes with `model.speller.input_feeding` as given; without it attention has to be `dot`."""
    kind = model["attention"]["kind"] if feeding else "dot"
    return {
        **model,
        "attention": {**model["attention"], "kind": kind},
        "speller": {**model["speller"], "input_feeding": feeding},
    }


def settings_of(name: str, settings: dict) -> dict:
    """The project's model settings as this contestant takes them: textbooks feed the context back."""
    feeding = settings["speller"]["input_feeding"]
    return with_feeding(settings, {"other": not feeding, "packed": True, "padded": True}.get(name, feeding))


def make_model(name: str, feature_dim: int, settings: dict) -> nn.Module:
    """settings: keyword arguments of `LAS`. All models are called as it is."""
    torch.manual_seed(0)
    sizes, own = (feature_dim, len(VOCABULARY)), settings_of(name, settings)
    if name in ("packed", "padded"):
        return TextbookLAS(*sizes, **own, packed=name == "packed")
    ours = LAS(*sizes, **own)
    return SpeechBrainLAS(*sizes, **own, parameters=ours.parameter_count) if name == "speechbrain" else ours


def training_step(model: nn.Module, training: dict, device: torch.device, precision: str) -> Step:
    """A step as train.py makes it, but with every true character read and no running mean of the weights.

    training: the keys of that section.
    """
    model.to(device).train()
    rate, decay = training["learning_rate"], training["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, fused=True)
    weights = training["ctc_weight"], training["label_smoothing"]

    def step(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits, _, encoded = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
        loss = las_loss(logits, encoded, batch.tokens, batch.token_lengths, *weights)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training["clip_norm"])
        optimizer.step()

    return step


def listener_step(feature_dim: int, settings: dict, device: torch.device, precision: str) -> Step:
    """Our Listener alone, forward and backward."""
    listener = Listener(feature_dim, **settings).to(device).train()

    def step(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            encoded = listener(batch.features, batch.feature_lengths)
        listener.zero_grad(set_to_none=True)
        encoded.memory.sum().backward()

    return step


def lstms_step(feature_dim: int, settings: dict, device: torch.device, precision: str) -> Step:
    """The Listener's LSTMs alone: plain padded bidirectional `nn.LSTM` calls on noise of the shapes they get there."""
    listener, first, hidden = Listener(feature_dim, **settings), len(settings["conv"]), settings["hidden"]
    start, factors = math.prod(listener.strides[:first]), listener.strides[first:]
    dim = listener.layers[first - 1].output_dim if first else feature_dim
    inputs = [factor * (2 * hidden if index else dim) for index, factor in enumerate(factors)]
    lstms = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True, bidirectional=True) for size in inputs)
    lstms.to(device).train()

    def step(batch: Batch) -> None:
        B, T, _ = batch.features.shape
        x = batch.features.new_ones(B, -(-T // start), dim).requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            for factor, lstm in zip(factors, lstms, strict=True):
                x = nn.functional.pad(x, (0, 0, 0, -x.size(1) % factor))
                x, _ = lstm(x.reshape(B, -1, factor * x.size(2)))
        lstms.zero_grad(set_to_none=True)
        x.sum().backward()

    return step
