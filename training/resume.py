"""A run's checkpoints: where it stands, resuming it, and beginning a new run with another model's weights."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import nn

from training.optimizer import parameters_of
from training.progress import PartialEpoch
from training.step import TrainStep
from utils.checkpoint import (
    check_finite,
    differences,
    feature_differences,
    load_checkpoint,
    previous,
    save_checkpoint,
    vocabulary_of,
)
from utils.checkpoint_content import RunContent, check_content, check_optimizer
from utils.errors import UserError
from utils.files import parse_yaml
from utils.metrics import best_epoch
from utils.vocabulary import KAGGLE, TextForm, Vocabulary

# A resumed run may differ from what it started as in keys that begin so, and in no others.
FREE_TO_CHANGE = (
    *("run.", "data.root", "data.test", "data.workers", "data.cache", "data.skip_bad"),
    *("data.accept_changes",),
    *("training.epochs", "training.max_minutes", "training.device", "training.accumulate"),
    *("training.checkpoint_minutes", "decoding.", "wandb.", "test."),
)
BEFORE_VOCABULARIES = {  # what runs were trained with that have no such keys
    "data.vocabulary": "kaggle",
    "data.units": "character",
    "data.text.case": "keep",
    "data.text.punctuation": "keep",
}
STATE = ("history", "config", "wandb_run_id", "weights", "averaged_steps", "optimizer")  # beside the model itself

logger = logging.getLogger(f"las.{__name__}")


@dataclass
class TrainState:
    """Where a run stands, besides its weights and its optimiser."""

    history: list[dict[str, Any]] = field(default_factory=list)  # a row of metrics per finished epoch
    partial: PartialEpoch | None = None  # of the epoch after those; it may have all its batches and lack evaluation
    wandb_run_id: str | None = None

    @property
    def epoch(self) -> int:
        """The epoch that is trained next, or has been begun; from 1."""
        return len(self.history) + 1

    @property
    def next_batch(self) -> int:
        return self.partial["batch"] if self.partial else 0

    def finish_epoch(self, row: dict[str, Any]) -> None:
        """Adds the metrics of the epoch that has been trained and evaluated."""
        self.history.append(row)
        self.partial = None

    def best(self, ctc_epochs: int) -> dict[str, Any]:
        """The row of the best epoch so far, see `best_epoch`."""
        return best_epoch(self.history, ctc_epochs)

    def __str__(self) -> str:
        batches = f" and {self.next_batch} batches" if self.partial else ""
        return f"epoch {len(self.history)}{batches}"


class Checkpointer:
    """Writes `last.pt` and `best.pt` of a run, and restores a run from what they hold.

    Args:
        folder: of the run.
        constant: what a checkpoint holds that does not change during a run: see `describe_model`, and the settings.
        minutes: after which a checkpoint within an epoch is due.
        data: digests of the training utterances by name.
    """

    def __init__(
        self, folder: Path, constant: dict[str, Any], minutes: float, data: Mapping[str, int] = MappingProxyType({})
    ):
        self.folder, self.constant, self.seconds = folder, constant, 60 * minutes
        self.data = {"names": "\n".join(data), "digests": torch.tensor(list(data.values()), dtype=torch.long)}
        self.saved = time.perf_counter()

    @property
    def due(self) -> bool:
        return time.perf_counter() - self.saved > self.seconds

    def restore(self, found: dict[str, Any] | None, step: TrainStep) -> TrainState:
        """Loads weights and optimiser of the checkpoint `found` into `step`; None is a new run.

        Raises:
            UserError: the checkpoint is of another model, or was trained on other features.
        """
        if found is None:
            return TrainState()
        differ = feature_differences(self.constant["features"], found["features"])
        if differ:
            raise UserError(f"data.root: found features of {differ}, as {self.folder} was trained on")
        differ = differences(found["weights"], step.model.state_dict())
        if differ:
            raise UserError(f"{self.folder / 'last.pt'}: its model is another one than these settings make: {differ}")
        check_optimizer(
            self.folder / "last.pt", found["optimizer"], parameters_of(step.optimizer, step.model, found["optimizer"])
        )
        step.load_state_dict(found["model"], found)
        return TrainState(found["history"], found.get("partial"), found["wandb_run_id"])

    def save(self, step: TrainStep, state: TrainState, is_best: bool) -> None:
        """Writes `last.pt`, keeping the one before, and first `best.pt` if the last epoch is the best.

        Raises:
            OSError: a file cannot be written; the checkpoints there before are untouched.
        """
        checkpoint = {
            "model": step.ema_model.state_dict(),
            **self.constant,
            "epoch": len(state.history),
            "history": state.history,
            "wandb_run_id": state.wandb_run_id,
        }
        if is_best:
            save_checkpoint(self.folder / "best.pt", checkpoint)
        resumable = {**checkpoint, **step.state_dict(), "partial": state.partial, "data": self.data}
        save_checkpoint(self.folder / "last.pt", resumable, keep_previous=True)
        self.saved = time.perf_counter()


def load_last(folder: Path) -> dict[str, Any] | None:
    """The newest usable checkpoint of the run in `folder`: `last.pt`, or the one before it; None for a new run.

    Raises:
        UserError: checkpoints are there, but none can be resumed from.
    """
    last = folder / "last.pt"
    if not last.exists() and not previous(last).exists():
        return None
    try:
        return _load_resumable(last)
    except UserError as error:
        if not previous(last).exists():
            raise
        try:
            found = _load_resumable(previous(last))
        except UserError as error_before:
            raise UserError(f"{error}; neither can the one before be used: {error_before}") from None
        batches = f" and {found['partial']['batch']} batches" if found.get("partial") else ""
        epochs = "1 epoch" if found["epoch"] == 1 else f"{found['epoch']} epochs"
        kept = f"{epochs}{batches} are kept, what came after is lost"
        logger.warning(f"{error}; going on from {previous(last)}: {kept}")
        return found


def _load_resumable(path: Path) -> dict[str, Any]:
    """A checkpoint with all that training needs to go on."""
    checkpoint = load_checkpoint(path)
    missing = [key for key in STATE if key not in checkpoint]
    if missing:
        raise UserError(
            f"{path}: found a checkpoint without {', '.join(missing)}, expected one to go on from; a model alone "
            "begins a new run: training.start_from"
        )
    check_content(path, checkpoint, RunContent, "a run's checkpoint")
    for weights in (checkpoint["model"], checkpoint["weights"]):
        check_finite(str(path), weights)
    return checkpoint


def check_same_run(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Compares the settings of a resumed run, dotted keys, with those it was started with.

    Logs what differs if it may, and keys that did not exist then.

    Raises:
        UserError: a key differs that would make it another run.
    """
    old = {**BEFORE_VOCABULARIES, **old}
    changed = [key for key in new if key in old and old[key] != new[key]]
    fixed = [key for key in changed if not key.startswith(FREE_TO_CHANGE)]
    if fixed:
        lines = "\n".join(f"  {key}: was {old[key]!r}, is now {new[key]!r}" for key in fixed)
        raise UserError(
            f"{folder} was trained with other settings:\n{lines}\n"
            f"Choose another run.name, or remove {folder} to start over."
        )
    if changed:
        logger.info("changed since: " + ", ".join(f"{key} {old[key]!r} -> {new[key]!r}" for key in changed))
    added = [key for key in new if key not in old]
    if added:
        logger.info("settings that did not exist then: " + ", ".join(f"{key} {new[key]!r}" for key in added))


def check_same_data(folder: Path, found: dict[str, Any], now: Mapping[str, int], accept: bool) -> None:
    """Compares the training utterances of a resumed run with those of the run before.

    Args:
        folder: of the run.
        found: its checkpoint; an older one does not tell, which is logged.
        now: digests of the training utterances by name.
        accept: whether the run may go on with other data: the epoch that has been begun then starts anew.

    Raises:
        UserError: utterances were added, removed or changed, unless that is accepted.
    """
    if "data" not in found:
        logger.info(f"{folder}: its checkpoint does not tell what it was trained on; see that data.train is the same")
        return
    names = found["data"]["names"].split("\n")
    before = dict(zip(names, found["data"]["digests"].tolist(), strict=True))
    if before == dict(now) and names == list(now):
        return
    kinds = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
        "changed": [name for name in now if name in before and now[name] != before[name]],
    }
    lines = [
        f"{len(some)} {kind} ({', '.join(some[:3])}{', ...' if len(some) > 3 else ''})"
        for kind, some in kinds.items()
        if some
    ]
    differ = ", ".join(lines) or "another order"
    if not accept:
        raise UserError(
            f"{folder} was trained on other data: of {len(before):,} utterances {differ}. Put the data back, choose "
            "another run.name, or go on with data.accept_changes=true"
        )
    logger.warning(f"going on with other data than before (data.accept_changes=true): {differ}")
    found["partial"] = None


def describe_changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between the environments of a run and of its continuation; empty if nothing does."""
    changed = [key for key in now if key in before and before[key] != now[key]]
    return ", ".join(f"{key} {before[key]} -> {now[key]}" for key in changed)


def vocabulary_to_train(
    wanted: Vocabulary | TextForm, found: dict[str, Any] | None, folder: Path
) -> Vocabulary | TextForm:
    """The vocabulary of a run: what the settings want; of a run that is resumed, the one that it has.

    Raises:
        UserError: the resumed run has another one than the settings name.
    """
    if found is None:
        return wanted
    before = vocabulary_of(found, folder / "last.pt")
    if isinstance(wanted, Vocabulary) and wanted != before:
        raise UserError(
            f"data.vocabulary: found {wanted}, expected {before}, as {folder} was trained with; choose another run.name"
        )
    return before


def start_from(path: str, model: nn.Module, vocabulary: Vocabulary = KAGGLE) -> None:
    """Loads Listener, Speller and CTC branch of a checkpoint into `model`, each if its sizes agree.

    Of a checkpoint with another vocabulary only the Listener is taken: the others' outputs mean other characters.

    Raises:
        UserError: none of them fits.
    """
    checkpoint = load_checkpoint(path)
    before, theirs = checkpoint["model"], vocabulary_of(checkpoint, path)
    check_finite(f"training.start_from: {path}", before)
    taken: list[str] = []
    new: list[str] = []
    differ = []
    for name, module in model.named_children():
        weights = {key.removeprefix(f"{name}."): value for key, value in before.items() if key.startswith(f"{name}.")}
        difference = differences(weights, module.state_dict())
        if theirs.tokens != vocabulary.tokens and name != "listener":
            difference = f"found a vocabulary of {theirs}, expected {vocabulary}"
        (new if difference else taken).append(name)
        if difference:
            differ.append(f"  {name}: {difference}")
        else:
            module.load_state_dict(weights)
    if not taken:
        raise UserError(
            f"training.start_from: {path}: found a model of other sizes, expected a part that fits this one\n"
            + "\n".join(differ)
        )
    logger.info(f"starting from {path}: {', '.join(taken)}" + (f"; new: {', '.join(new)}" if new else ""))
    if theirs.tokens != vocabulary.tokens:
        logger.info(f"its vocabulary is another, {theirs}, here {vocabulary}: of it, the Listener alone fits")


def check_data_root(folder: Path, root: str) -> None:
    """Raises UserError if there is no data in `root`, but the run in `folder` was trained on data elsewhere."""
    trained = folder / "config.yaml"
    if Path(root).is_dir() or not trained.exists():
        return
    try:
        before = parse_yaml(trained.read_text(encoding="utf-8"))["data"]["root"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        raise UserError(f"{trained}: cannot be read as the settings of a run; expected what train.py wrote") from None
    if before != root:
        raise UserError(
            f"data.root: found no folder {root}; {folder} was trained with data.root={before}: repeat the "
            "--config and the keys of its training"
        )
