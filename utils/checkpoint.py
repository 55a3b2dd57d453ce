"""Checkpoints: written beside and renamed, read without unpickling code."""

import os
from pathlib import Path

import torch

from models.las import LAS
from utils.errors import UserError
from utils.vocabulary import VOCABULARY

KEYS = {"model", "model_settings", "features", "vocabulary", "epoch"}


def save_checkpoint(path: Path, checkpoint: dict) -> None:
    """Atomic: whatever happens, `path` is the old checkpoint or the new one, never half of one."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def load_checkpoint(path: str | Path) -> dict:
    """A checkpoint of this project, on the CPU. Raises UserError for anything else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: found no checkpoint; train first: python train.py") from None
    except Exception as error:  # a damaged pickle can fail in any way; none of them runs code
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason}); it is damaged or not one") from None
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= KEYS:
        raise UserError(f"{path}: found something else, expected a checkpoint that train.py wrote")
    if tuple(checkpoint["vocabulary"]) != VOCABULARY:
        raise UserError(
            f"{path}: found a model of {len(checkpoint['vocabulary'])} tokens, expected one of this project's "
            f"{len(VOCABULARY)}"
        )
    return checkpoint


def model_from(checkpoint: dict) -> LAS:
    """The model of a checkpoint, with its weights."""
    try:
        model = LAS(checkpoint["features"]["dim"], len(VOCABULARY), **checkpoint["model_settings"])
        model.load_state_dict(checkpoint["model"])
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"the checkpoint's weights do not fit its settings: {str(error).splitlines()[0]}") from None
    return model
