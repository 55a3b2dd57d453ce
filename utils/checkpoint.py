"""Checkpoint files: written atomically, read without unpickling code, and turned into models."""

import logging
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.las import LAS
from utils.checkpoint_content import ModelContent, check_content
from utils.errors import UserError
from utils.features import FeatureConfig, FeatureFormat, parse_feature_config
from utils.files import atomic_write
from utils.logging import printable
from utils.vocabulary import KAGGLE, Vocabulary, describe_vocabulary, parse_vocabulary

logger = logging.getLogger(f"las.{__name__}")


def save_checkpoint(path: Path, checkpoint: dict, keep_previous: bool = False) -> None:
    """Writes a checkpoint; whatever happens, `path` is the old checkpoint or the new one, never half of one.

    Args:
        path: of the file.
        checkpoint: what torch.save takes.
        keep_previous: whether the old one is kept under the name that `previous` gives.

    Raises:
        OSError: the file cannot be written.
    """
    keep = keep_previous and path.exists() and _damage(path) is None  # a damaged one must not push out a good one
    with atomic_write(path, previous(path) if keep else None) as temporary, temporary.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # raised by torch in place of the disk's error
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def read_file(path: str | Path, missing: str) -> object:
    """What `torch.save` wrote, on the CPU, without running code from it.

    Args:
        path: of the file.
        missing: the message on a file that is not there, after "found".

    Raises:
        UserError: the file is missing, damaged, or holds something else than tensors and plain values.
    """
    try:
        damage = _damage(path)
        if damage is not None:
            raise damage
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: found {missing}") from None
    except pickle.UnpicklingError:  # torch's message tells how to run code from the file
        raise UserError(
            f"{path}: found more than tensors and plain values, which is not read: it could run code"
        ) from None
    except Exception as error:  # a damaged file can fail in any way; none of them runs code
        reason = str(error) if isinstance(error, ValueError | zipfile.BadZipFile | OSError) else type(error).__name__
        reason = printable("".join(letter for letter in reason if letter.isprintable()))
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason}); it is damaged or not one") from None


def _damage(path: str | Path) -> Exception | None:
    """What is wrong with the file itself: torch.load does not look at the checksums that torch.save writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive can fail in any way
        return error
    return ValueError(f"the checksum of {damaged} is wrong") if damaged else None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this project, on the CPU.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint of this project, or its vocabulary is none.
    """
    path = Path(path)
    others = sorted(best.parent.name for best in path.parent.parent.glob(f"*/{path.name}") if path.name == "best.pt")
    there = f"runs that have one: {', '.join(others[:10])} (run.name=...)" if others else "train first: python train.py"
    checkpoint = read_file(path, f"no checkpoint; {there}")
    check_content(path, checkpoint, ModelContent, "a checkpoint that train.py wrote")
    assert isinstance(checkpoint, dict)
    contents: dict[str, Any] = checkpoint
    vocabulary_of(contents, path)
    return contents


def check_finite(source: str, weights: dict[str, Any]) -> None:
    """Raises UserError if some of the weights of a model are not finite."""
    bad = [name for name, value in weights.items() if torch.is_tensor(value) and not torch.isfinite(value).all()]
    if bad:
        named = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise UserError(f"{source}: found weights that are not finite ({named}); expected numbers: this model is lost")


def differences(found: dict, expected: dict) -> str:
    """The first few differences between two models' weights by name: missing, unknown, or of other shapes."""
    lines = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        theirs, ours = (getattr(weights.get(name), "shape", None) for weights in (found, expected))
        if theirs != ours:
            lines.append(f"{name}: found {_shape(theirs)}, expected {_shape(ours)}")
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


def _shape(shape: Sequence[int] | None) -> str:
    return "none" if shape is None else str(tuple(shape))


def feature_differences(found: dict, expected: dict) -> str:
    """Differences between two feature formats, in words."""
    return ", ".join(f"{key} {found[key]}, expected {expected[key]}" for key in found if found[key] != expected[key])


def model_from(checkpoint: dict) -> LAS:
    """The model of a checkpoint with its weights; no memory is taken but theirs, whatever the settings claim.

    Raises:
        UserError: weights and settings do not belong together.
    """
    try:
        with torch.device("meta"):
            model = LAS(checkpoint["features"]["dim"], len(checkpoint["vocabulary"]), **checkpoint["model_settings"])
        differ = differences(checkpoint["model"], model.state_dict())
        if differ:
            raise ValueError(differ)
        model.load_state_dict(checkpoint["model"], assign=True)
        return model.float()
    except Exception as error:  # settings of another make can fail in any way
        reason = str(error).splitlines()[0][:400] if str(error) else type(error).__name__
        raise UserError(f"the checkpoint's weights do not fit its settings: {reason}") from None


class LoadedModels(NamedTuple):
    """Models of one ensemble, and the features that they must be given."""

    models: list[LAS]
    features: FeatureFormat
    feature_config: FeatureConfig | None  # None if one of them does not know how its features are computed
    p95_frames: int | None  # 95 % of their training utterances were no longer than that; None: unknown
    vocabulary: Vocabulary = KAGGLE  # that all of them write


def load_models(paths: Sequence[Path]) -> LoadedModels:
    """The models of the checkpoints, as one ensemble, on the CPU.

    Raises:
        UserError: a checkpoint cannot be used, or their features or vocabularies differ.
    """
    checkpoints = [load_checkpoint(path) for path in paths]
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        logger.info(f"decoding with {path}, epoch {checkpoint['epoch']}")
    expected = checkpoints[0]["features"]
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        if checkpoint["features"] != expected:
            differ = feature_differences(checkpoint["features"], expected)
            raise UserError(f"{path}: found features of {differ}, as in {paths[0]}")
        theirs, ours = vocabulary_of(checkpoint, path), vocabulary_of(checkpoints[0], paths[0])
        if theirs.tokens != ours.tokens:
            raise UserError(f"{path}: found a vocabulary of {theirs}, expected {ours}, as in {paths[0]}")
        if theirs != ours:
            raise UserError(f"{path}: found texts of {theirs.form}, expected {ours.form}, as in {paths[0]}")
        check_finite(str(path), checkpoint["model"])
    feature_configs = [feature_config_of(checkpoint, path) for path, checkpoint in zip(paths, checkpoints, strict=True)]
    for path, feature_config in zip(paths, feature_configs, strict=True):
        if None not in feature_configs and feature_config != feature_configs[0]:
            raise UserError(
                f"{path}: found features of {feature_config}, expected {feature_configs[0]}, as in {paths[0]}"
            )
    lengths = (checkpoint.get("p95_frames", checkpoint.get("usual_frames")) for checkpoint in checkpoints)
    return LoadedModels(
        [model_from(checkpoint) for checkpoint in checkpoints],
        FeatureFormat(**expected),
        None if None in feature_configs else feature_configs[0],
        min((frames for frames in lengths if isinstance(frames, int) and frames > 0), default=None),
        vocabulary_of(checkpoints[0], paths[0]),
    )


def describe_model(
    model_kwargs: dict[str, Any],
    features: FeatureFormat,
    feature_config: FeatureConfig | None,
    p95_frames: int,
    vocabulary: Vocabulary = KAGGLE,
) -> dict[str, Any]:
    """What a checkpoint holds, beside the weights, for the model to be built and given the right features."""
    return {
        "model_settings": model_kwargs,
        "features": vars(features),
        "feature_config": feature_config and asdict(feature_config),
        "p95_frames": p95_frames,
        **describe_vocabulary(vocabulary),
    }


def vocabulary_of(checkpoint: dict[str, Any], path: str | Path) -> Vocabulary:
    """What the model of a checkpoint writes."""
    return parse_vocabulary(checkpoint["vocabulary"], checkpoint.get("text_form"), str(path))


def feature_config_of(checkpoint: dict[str, Any], path: str | Path) -> FeatureConfig | None:
    """How the features of a checkpoint are computed from speech; None if that is unknown, as of the competition's."""
    found = checkpoint.get("feature_config", checkpoint.get("recipe"))  # "recipe" in older checkpoints
    return None if found is None else parse_feature_config(found, f"{path}: feature_config")
