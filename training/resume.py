"""Going on: with a run where it stands, or with another model's weights."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from utils.checkpoint import differences, load_checkpoint, previous
from utils.errors import UserError

# A resumed run may differ from what it started as in these sections' keys, and in nothing else.
FREE_TO_CHANGE = ("run.", "data.root", "data.dev", "data.test", "data.workers", "data.cache", "data.skip_bad")
FREE_TO_CHANGE += ("training.epochs", "training.max_minutes", "training.device", "training.accumulate")
FREE_TO_CHANGE += ("training.checkpoint_minutes", "decoding.", "wandb.", "test.")
STATE = ("history", "config", "wandb_run_id", "weights", "averaged_steps", "optimizer")


def load_last(folder: Path, say: Callable[[str], None]) -> dict | None:
    """Where the run in `folder` stands: `last.pt`, or what was there before it where it is damaged; None: nowhere."""
    last = folder / "last.pt"
    if not last.exists() and not previous(last).exists():
        return None
    try:
        return _load_state(last)
    except UserError as error:
        if not previous(last).exists():
            raise
        found = _load_state(previous(last))
        batches = f" and {found['partial']['batch']} batches" if found.get("partial") else ""
        lost = f"{found['epoch']} epochs{batches} are kept, what came after is lost"
        say(f"warning: {error}; going on from {previous(last)}: {lost}")
        return found


def _load_state(path: Path) -> dict:
    """A checkpoint that training can go on from."""
    checkpoint = load_checkpoint(path)
    missing = [key for key in STATE if key not in checkpoint]
    if missing:
        raise UserError(
            f"{path}: found a checkpoint without {', '.join(missing)}, expected one to go on from; a model alone "
            "begins a new run: training.start_from"
        )
    return checkpoint


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
    taken, new, differ = [], [], []
    for name, module in model.named_children():
        weights = {key.removeprefix(f"{name}."): value for key, value in before.items() if key.startswith(f"{name}.")}
        difference = differences(weights, module.state_dict())
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
    say(f"starting from {path}: {', '.join(taken)}" + (f"; new: {', '.join(new)}" if new else ""))
