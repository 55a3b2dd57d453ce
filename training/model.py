"""The model that a run begins with, built once it is clear that memory has room to train it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from corpora.loading import Corpus
from models.las import LAS
from training.resume import start_from
from utils.errors import UserError

COPIES = 5  # of the weights: themselves, their average, the gradient, and AdamW's two moments
# Bytes that the Listener keeps for the backward pass per unit of each layer's output: 60 to 70 measured on a CPU in
# bf16, 80 to 90 in float32 (docs/performance.md); on CUDA its LSTMs' four gates in 16 bits, at the very least.
KEPT_BYTES = {"cpu": 60, "cuda": 8}
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def make_model(
    corpus: Corpus,
    model_kwargs: Mapping[str, Any],
    seed: int,
    utterances: int,
    checkpoint: str | None,
    device: torch.device,
) -> LAS:
    """A new model on `device`.

    Args:
        corpus: to train on.
        model_kwargs: keyword arguments of `LAS`.
        seed: of its weights.
        utterances: that are computed at a time.
        checkpoint: whose Listener, Speller and CTC branch it begins with, where they fit, or None.
        device: of the model.

    Raises:
        UserError: training it would take more memory than there is, or no part of the checkpoint fits.
    """
    with torch.device("meta"):
        sizes = LAS(corpus.format.dim, len(corpus.vocabulary), **model_kwargs)
    needed, there = least_memory(sizes, corpus, utterances, device), total_memory(device)
    if there is not None and needed > there:
        raise UserError(
            f"model: training its {sizes.parameter_count:,} parameters in batches of {utterances} utterances takes "
            f"{needed / 1e9:,.1f} GB at least, found {there / 1e9:,.1f} GB of memory; expected a smaller model, a "
            "smaller training.batch_size or a larger training.accumulate"
        )
    torch.manual_seed(seed)
    model = LAS(corpus.format.dim, len(corpus.vocabulary), **model_kwargs).to(device)
    if checkpoint is not None:
        start_from(checkpoint, model, corpus.vocabulary)
    return model


def least_memory(model: LAS, corpus: Corpus, utterances: int, device: torch.device) -> int:
    """Bytes that training takes at least: copies of the weights, and what the backward pass of a batch needs.

    Of the activations only the largest are counted: what the Listener keeps, the gates and outputs of the Speller in
    half precision, and on a CPU, which does not recompute it, the hidden layer of location attention.
    """
    frames, characters = corpus.p95_frames, max(map(corpus.vocabulary.count, corpus.transcripts))
    listener, speller = model.listener, model.speller
    steps, kept = frames, characters * speller.hidden * 12
    for stride, dim in zip(listener.strides, listener.dims, strict=True):
        steps = -(-steps // stride)
        kept += steps * dim * KEPT_BYTES.get(device.type, KEPT_BYTES["cuda"])
    if speller.attention.sees_past and device.type == "cpu":
        kept += characters * steps * speller.attention.dim * 4
    return model.parameter_count * 4 * COPIES + utterances * kept


def total_memory(device: torch.device) -> int | None:
    """Bytes of the GPU, or of this machine or container; None if the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for path in map(Path, CGROUP_LIMITS):
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total
