"""What test.py and tune.py measured, in the summary of the wandb run that the training has."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from decoding.history import best_of, describe_search, last_of
from training.wandb_tracker import WandbTracker
from utils.errors import UserError
from utils.locking import sole_writer

logger = logging.getLogger(f"las.{__name__}")


def log_decodings(
    folder: Path, name: str, rows: Sequence[Mapping[str, str]], mode: str, project: str, group: str | None
) -> None:
    """Puts the best and the last decoding of every partition, with their settings, into the summary of the wandb run.

    A run that was not tracked stays so. A run that trains now is left alone: its wandb run has one writer.

    Args:
        folder: of the run.
        name: of the run.
        rows: of decodings.csv.
        mode: of wandb, as for the training.
        project: of the wandb run.
        group: of the wandb run.
    """
    run_id = find_run_id(folder / "wandb")
    if mode == "disabled" or run_id is None:
        return
    try:
        with sole_writer(folder, "train.py"):
            tracker = WandbTracker(folder, name, {}, run_id, mode, project, group)
            tracker.start()
            tracker.summarise(summary_of(rows))
            tracker.finish()
    except UserError:
        logger.info(f"wandb: another command is at work in {folder}; the next decoding takes this one there")


def find_run_id(folder: Path) -> str | None:
    """The id of the newest run in a folder of wandb: they are in `run-TIME-ID` and `offline-run-TIME-ID`."""
    found = max((path.name.split("run-")[-1] for path in folder.glob("*run-*-*") if path.is_dir()), default=None)
    return None if found is None else found.partition("-")[2]


def summary_of(rows: Sequence[Mapping[str, str]]) -> dict[str, dict]:
    """`{"decoded": {split: {"best": {...}, "last": {...}}}}`, scores as numbers and the settings in words."""
    decoded: dict[str, dict] = {}
    for split in sorted({row["split"] for row in rows}):
        chosen = {"best": best_of(rows, split), "last": last_of(rows, split)}
        decoded[split] = {which: _describe(row) for which, row in chosen.items() if row is not None}
    return {"decoded": decoded} if decoded else {}


def _describe(row: Mapping[str, str]) -> dict[str, object]:
    scores = {key: float(row[key]) for key in ("distance", "cer", "wer") if row[key]}
    return {**scores, "settings": describe_search(row), "command": row["command"], "time": row["time"]}
