"""What a checkpoint has to hold, checked before any of it is used: files come from elsewhere."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from torch import Tensor

from utils.errors import UserError, explain_validation_error

M = TypeVar("M", bound="Content")


def _of_numbers(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or not tensor.dtype.is_floating_point:
        raise ValueError(f"a dense tensor of floats, not {tensor.layout} of {tensor.dtype}".replace("torch.", ""))
    return tensor


def _few_layers(settings: dict[str, Any]) -> dict[str, Any]:
    """Building a model takes a time for every layer: nobody has more of them than this."""
    for section in ("listener", "attention", "speller"):
        if not isinstance(settings.get(section), dict):
            raise ValueError(f"a mapping {section}")
    listener, speller = settings["listener"], settings["speller"]
    counts = [listener.get("blstm_layers"), listener.get("pblstm_layers"), speller.get("layers")]
    counts.append(len(listener["conv"]) if isinstance(listener.get("conv"), list) else None)
    if not all(isinstance(count, int) and 0 <= count <= MOST_LAYERS for count in counts):
        raise ValueError(f"at most {MOST_LAYERS} layers of each kind")
    return settings


MOST_LAYERS = 32
Weights = dict[str, Annotated[Tensor, AfterValidator(_of_numbers)]]


class Content(BaseModel):
    """Base of the classes below: types are not converted, and further keys do no harm."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True, extra="allow", protected_namespaces=())


class Features(Content):
    model_config = ConfigDict(strict=True, extra="forbid")
    dim: Annotated[int, Field(ge=1, le=8192)]
    time_first: bool
    normalize: Literal["none", "mean", "mean_variance"]


class ModelContent(Content):
    """A model that can be decoded with."""

    model: Weights
    model_settings: Annotated[dict[str, Any], AfterValidator(_few_layers)]
    features: Features
    vocabulary: list[str]
    epoch: NonNegativeInt


class Partial(Content):
    batch: NonNegativeInt
    totals: Tensor
    characters: NonNegativeInt
    seconds: float


class Optimizer(Content):
    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class Data(Content):
    names: str
    digests: Tensor


class RunContent(ModelContent):
    """A run that can go on. Keys that older runs lack have defaults."""

    history: list[dict[str, float | int]]
    config: dict[str, Any]
    wandb_run_id: str | None
    weights: Weights
    averaged_steps: NonNegativeInt
    optimizer: Optimizer
    partial: Partial | None = None
    data: Data | None = None
    environment: dict[str, str] = {}


class LanguageModelContent(Content):
    log_probs: Annotated[Tensor, AfterValidator(_of_numbers)]
    following: Tensor
    vocabulary: list[str]


def check_content(path: str | Path, found: object, expected: type[M], what: str) -> None:
    """Compares what a file holds with what it should hold.

    Args:
        path: of the file, for the message.
        found: what was read from it.
        expected: the class that describes it.
        what: it should be, as a noun phrase.

    Raises:
        UserError: with what is wrong first.
    """
    if not isinstance(found, dict) or not any(key in found for key in expected.model_fields):
        keys = ", ".join(map(repr, list(found)[:8])) if isinstance(found, dict) else f"a {type(found).__name__}"
        raise UserError(f"{path}: found something else ({keys}), expected {what}")
    try:
        expected.model_validate(found)
    except ValidationError as error:
        problems = error.errors()
        missing = [
            str(problem["loc"][0]) for problem in problems if problem["type"] == "missing" and len(problem["loc"]) == 1
        ]
        if missing:
            keys = ", ".join(map(repr, list(found)[:8]))
            raise UserError(
                f"{path}: found something else ({keys}), expected {what}; missing: {', '.join(missing)}"
            ) from None
        raise UserError(explain_validation_error(problems[0], {}, str(path)) + f", as in {what}") from None


def check_optimizer(path: str | Path, found: Mapping[str, Any], parameters: Iterable[Tensor]) -> None:
    """Compares the optimiser's state with the parameters that it is for: the fused optimiser trusts its sizes.

    Raises:
        UserError: a moment is of another shape or not finite, or is for a parameter that is not there.
    """
    expected = list(parameters)
    groups = found["param_groups"]
    count = sum(len(group["params"]) if isinstance(group.get("params"), list) else -1 for group in groups)
    if count != len(expected):
        raise UserError(f"{path}: optimizer: found {count} parameters, expected {len(expected)}, as the model has")
    for index, state in found["state"].items():
        for name, value in state.items():
            if not torch.is_tensor(value):
                raise UserError(f"{path}: optimizer: found {name} of a {type(value).__name__}, expected a tensor")
            shape = () if name == "step" else tuple(expected[index].shape) if index < len(expected) else None
            if tuple(value.shape) != shape:
                found_shape = f"{name} of shape {tuple(value.shape)} for parameter {index}"
                raise UserError(f"{path}: optimizer: found {found_shape}, expected {shape}")
            _check_number(path, name, value)


def _check_number(path: str | Path, name: str, value: Tensor) -> None:
    try:
        _of_numbers(value)
    except ValueError as error:
        raise UserError(f"{path}: optimizer: {name}: expected {error}") from None
    if not value.isfinite().all():
        raise UserError(f"{path}: optimizer: found {name} that is not finite, expected numbers: this run is lost")
