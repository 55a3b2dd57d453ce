"""Going on: with a run where it stands, or with another model's weights."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from utils.checkpoint import load_checkpoint, previous
from utils.errors import UserError

# A resumed run may differ from what it started as in these sections' keys, and in nothing else.
FREE_TO_CHANGE = ("run.", "data.root", "data.dev", "data.test", "data.workers", "data.cache", "data.skip_bad")
FREE_TO_CHANGE += ("training.epochs", "training.max_minutes", "training.device", "training.accumulate")
FREE_TO_CHANGE += ("training.checkpoint_minutes", "decoding.", "wandb.", "test.")


def load_last(folder: Path, say: Callable[[str], None]) -> dict | None:
    """Where the run in `folder` stands: `last.pt`, or what was there before it where it is damaged; None: nowhere."""
    last = folder / "last.pt"
    if not last.exists() and not previous(last).exists():
        return None
    try:
        return load_checkpoint(last)
    except UserError as error:
        if not previous(last).exists():
            raise
        found = load_checkpoint(previous(last))
        batches = f" and {found['partial']['batch']} batches" if found.get("partial") else ""
        lost = f"{found['epoch']} epochs{batches} are kept, what came after is lost"
        say(f"warning: {error}; going on from {previous(last)}: {lost}")
        return found


def check_same_run(folder: Path, old: dict, new: dict, say: Callable[[str], None]) -> None:
    """Says which dotted keys are set otherwise than before. Raises UserError where that would be another run.

    A key that did not exist then is no difference.
    """
    changed = [key for key in new if key in old and old[key] != new[key]]
    fixed = [key for key in changed if not key.startswith(FREE_TO_CHANGE)]
    if fixed:
        lines = "\n".join(f"  {key}: was {old[key]!r}, is now {new[key]!r}" for key in fixed)
        raise UserError(
            f"{folder} was trained with other settings:\n{lines}\n"
            f"Choose another run.name, or remove {folder} to start over."
        )
    if changed:
        say("changed since: " + ", ".join(f"{key} {old[key]!r} -> {new[key]!r}" for key in changed))


def start_from(path: str, model: nn.Module, say: Callable[[str], None]) -> None:
    """Takes over the Listener, the Speller and the CTC branch of a checkpoint, each where it is the same module."""
    before = load_checkpoint(path)["model"]
    taken, new = [], []
    for name, module in model.named_children():
        weights = {key.removeprefix(f"{name}."): value for key, value in before.items() if key.startswith(f"{name}.")}
        shapes = {key: value.shape for key, value in module.state_dict().items()}
        same = shapes == {key: value.shape for key, value in weights.items()}
        (taken if same else new).append(name)
        if same:
            module.load_state_dict(weights)
    if not taken:
        raise UserError(
            f"training.start_from: {path}: found a model of other sizes, expected a part that fits this one"
        )
    say(f"starting from {path}: {', '.join(taken)}" + (f"; new: {', '.join(new)}" if new else ""))
