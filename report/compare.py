"""Runs beside each other: one page with their curves, what differs in their settings, and their results."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report.build import fill_page, summarise
from utils.files import atomic_write, flatten

SCRIPTS = ("base.js", "chart.js", "compare.js")
KEYS = (  # of a row of metrics that the page draws
    *("epoch", "train_loss", "dev_loss", "dev_distance", "dev_ctc_distance", "dev_cer", "dev_monotonicity"),
    *("learning_rate", "gradient_norm", "seconds"),
)
OF_A_PLACE = ("run.", "wandb.", "data.root", "data.workers", "data.cache")  # differ without making another result


def write_comparison(folders: Sequence[Path], path: Path) -> None:
    """Writes a page on several runs, which needs no network and no other file.

    Args:
        folders: of the runs, in the order in which they stand on the page.
        path: of the page.

    Raises:
        OSError: it cannot be written.
    """
    page = fill_page(compare(folders, path.parent), "compare.html", SCRIPTS)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def compare(folders: Sequence[Path], beside: Path = Path()) -> dict:
    """What the page shows; `beside` is its folder, from which it links to the runs' own reports."""
    runs = [summarise(folder) for folder in folders]
    names = unique_names(folders)
    return {
        "runs": [_run(*each, beside) for each in zip(folders, names, runs, strict=True)],
        "differ": differing([run["settings"] for run in runs]),
        "machines": differing([run["environment"] for run in runs]),
        "written": runs[0]["written"],
    }


def _run(folder: Path, name: str, run: dict, beside: Path) -> dict:
    page = folder / "report.html"
    best = next((row for row in run["rows"] if row["epoch"] == run["best"]), None)
    return {
        "name": name,
        "report": Path(os.path.relpath(page, beside)).as_posix() if page.exists() else None,
        "rows": [{key: row[key] for key in KEYS if key in row} for row in run["rows"]],
        "best": best,
        "decoded": _decoded(run),
    }


def _decoded(run: dict) -> list[dict]:
    """The best decoding of each partition with its settings; of an older run, which has no decodings.csv, its texts."""
    best = [row for row in run["decodings"] if row["best"] and row["distance"] is not None]
    listed = {row["split"] for row in best}
    texts = [
        {"split": split["partition"], "search": "", **split["score"]}
        for split in run["splits"]
        if split["file"].startswith("predictions-") and split["score"]
    ]
    keys = ("split", "search", "distance", "cer", "wer")
    found = [{key: row[key] for key in keys} for row in best] + [one for one in texts if one["split"] not in listed]
    return sorted(found, key=lambda one: one["split"])


def unique_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the folders' paths, as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(some[-count:]) for some in parts]
        if len(set(names)) == len(names):
            break
    return names


def differing(settings: Sequence[dict[str, Any]]) -> list[list]:
    """Dotted keys whose values differ: rows of a key and each run's value as text, None where it has no such key."""
    flat = [flatten(tree) for tree in settings]
    keys = dict.fromkeys(key for some in flat for key in some if not key.startswith(OF_A_PLACE))
    rows = [[key, *(_text(some[key]) if key in some else None for some in flat)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)
