"""A run's report: runs/NAME/report.html, one file that opens from disk and needs no network.

python -m report runs/NAME                 # draws it again, from what is in the folder
"""

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import Levenshtein
import pandas as pd
import yaml

from decoding.history import best_of, describe_search, last_of, read_decodings
from report.attention_maps import draw_epoch, first_and_best, keep_maps, kept_maps, picture_of
from report.sounds import LISTED, add_sounds
from training.diagnosis import PATIENCE, diagnose
from training.evaluate import Evaluation
from training.schedules import ALIGNED
from utils.errors import UserError
from utils.files import atomic_write, write_csv
from utils.metrics import best_epoch, score

PAGE = Path(__file__).parent / "page"
SCRIPTS = (
    *("base.js", "sounds.js", "chart.js", "curves.js"),
    *("maps.js", "decodings.js", "texts.js", "errors.js", "overview.js"),
)
MAP_BYTES = 6_000_000  # of attention maps; with sounds and all else the page stays below 10 MB
DECODINGS = 40  # rows of decodings.csv listed
ROWS = 3000  # utterances listed of a partition: those with the largest distance
BEST_TEXTS = "dev-best.csv"
COLUMNS = ["id", "reference", "hypothesis", "distance"]

logger = logging.getLogger(f"las.{__name__}")


class RunReport:
    """The pictures and the page of the run in `folder`, drawn anew after every epoch."""

    def __init__(self, folder: Path):
        self.folder = folder

    def picture(self, epoch: int) -> Path:
        """Where the attention maps of an epoch are drawn."""
        return picture_of(self.folder / "attention", epoch)

    @property
    def first_and_best(self) -> Path:
        """Where the first epoch's attention is drawn beside the best one's."""
        return first_and_best(self.folder / "attention")

    def add_epoch(self, row: dict[str, Any], evaluation: Evaluation, is_best: bool) -> None:
        """Draws the attention maps of an epoch, keeps what the page shows of it, and writes the page.

        If the page's part fails, training goes on and a warning says so.

        Args:
            row: metrics of the epoch.
            evaluation: on dev, after that epoch.
            is_best: whether no epoch was better so far.
        """
        distances = {predicted.id: predicted.distance for predicted in evaluation.predictions}
        draw_epoch(self.folder / "attention", row["epoch"], evaluation.maps, row, is_best, distances)
        try:
            keep_maps(self.folder / "attention", row["epoch"], evaluation.maps, distances)
            if is_best:
                write_csv(self.folder / BEST_TEXTS, COLUMNS, evaluation.predictions)
        except Exception as error:
            logger.warning(f"report.html: cannot keep epoch {row['epoch']} for it ({_in_a_line(error)})", exc_info=True)
            return
        write_report(self.folder, listed=0)

    def complete(self) -> None:
        """Writes the page with the sound of utterances in its tables too: too slow for every epoch."""
        write_report(self.folder)


def make_report(folder: Path, listed: int = LISTED) -> None:
    """Writes report.html from the files in `folder`, whichever of them are there.

    Args:
        folder: of the run.
        listed: rows of the tables that may have their sound, besides the attention maps.

    Raises:
        UserError: it cannot be written, or a file that it is made from cannot be read.
    """
    try:
        data = gather(folder)
        add_sounds(data, listed)
        page = fill_page(data)
        with atomic_write(folder / "report.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
    except Exception as error:
        raise UserError(f"report.html: cannot be written ({_in_a_line(error)})") from error


def write_report(folder: Path, listed: int = LISTED) -> bool:
    """As `make_report`, where something else matters more.

    Returns:
        Whether it could be written; if not, a warning says why.
    """
    try:
        make_report(folder, listed)
    except UserError as error:
        logger.warning(str(error), exc_info=error.__cause__)
        return False
    return True


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def fill_page(data: dict, page: str = "report.html", scripts: Sequence[str] = SCRIPTS) -> str:
    """A page with its style, its scripts and `data` in it; `data` stays JSON, nothing in it can become markup."""
    text = json.dumps(_finite(data), ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    read = {name: (PAGE / name).read_text(encoding="utf-8") for name in (page, "report.css", *scripts)}
    filled = read[page].replace("/* style */", read["report.css"])
    filled = filled.replace("/* script */", "\n".join(read[name] for name in scripts))
    return filled.replace("/* data */", text)


def _finite(value: object) -> object:
    """`value` with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ------------------------------------------------------------------------------------------------------------- gather


def gather(folder: Path) -> dict:
    """Everything that the page shows, from the files in the folder of a run."""
    data = summarise(folder)
    best = data["best"]
    maps = kept_maps(folder / "attention", MAP_BYTES, [best] if best else [])
    if (folder / BEST_TEXTS).exists():
        own = {name: distance for name, distance, *_ in data["splits"][-1]["rows"]}
        for kept in maps["epochs"]:
            if kept["epoch"] == best and None in kept["distance"]:  # kept by an older version
                kept["distance"] = [own.get(one["utterance"]) for one in maps["utterances"]]
    return {**data, "maps": maps}


def summarise(folder: Path) -> dict:
    """What `gather` returns, but for the attention maps: they are most of the work, and several runs show none."""
    rows = _read_table(folder / "metrics.csv")
    settings, environment = (_read_yaml(folder / name) for name in ("config.yaml", "environment.yaml"))
    training = settings.get("training", {})
    measured = [row for row in rows if "dev_distance" in row]
    best = int(best_epoch(measured, training.get("ctc_epochs", 0))["epoch"]) if measured else None
    decodings = read_decodings(folder)
    decoded = sorted(folder.glob("predictions-*.csv"), key=lambda path: path.stat().st_mtime, reverse=True)
    splits = [_split(path, path.stem.removeprefix("predictions-")) for path in decoded]
    for split in splits:
        last = last_of(decodings, split["name"])
        split["search"] = describe_search(last) if last else ""
        split["partition"] = split["name"]
    if (folder / BEST_TEXTS).exists():
        dev = settings.get("data", {}).get("dev", "dev")
        splits.append({**_split(folder / BEST_TEXTS, f"{dev}, greedy, epoch {best}"), "partition": dev})
    spelling = rows[-1]["epoch"] - training.get("ctc_epochs", 0) if rows else 0
    return {
        "name": folder.resolve().name,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "rows": rows,
        "best": best,
        "aligned": ALIGNED,
        "losses": why_train_loss_is_higher(rows, settings),
        "warnings": diagnose(rows[-1], rows[-1]["epoch"]) if spelling >= PATIENCE else [],
        "splits": splits,
        "decodings": _decodings(decodings),
        "settings": settings,
        "environment": environment,
    }


def _decodings(rows: Sequence[Mapping[str, str]]) -> list[dict]:
    """What the page shows of decodings.csv, the newest first: the best of each partition, and the newest of all."""
    best = [best_of(rows, split) for split in {row["split"] for row in rows}]
    newest = [row for number, row in enumerate(reversed(rows)) if number < DECODINGS or row in best]
    names = ("distance", "cer", "wer", "seconds")
    return [
        {
            **{key: row[key] for key in ("time", "command", "split", "submission")},
            **{key: float(row[key]) if row[key] else None for key in names},
            "search": describe_search(row),
            "best": row in best,
        }
        for row in newest
    ]


def _read_table(path: Path) -> list[dict]:
    """The rows of a CSV file, each without its empty cells, as rows of older versions have."""
    if not path.exists():
        return []
    rows = pd.read_csv(path).to_dict("records")
    return [{key: value for key, value in row.items() if not pd.isna(value)} for row in rows]


def _read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def _split(path: Path, name: str) -> dict:
    """What the page shows of a table of predictions: scores, differences, confusions, distance against length."""
    table = pd.read_csv(
        path, dtype=dict.fromkeys(COLUMNS[:3], str), keep_default_na=False, encoding_errors="surrogateescape"
    )
    pairs = list(zip(table["reference"], table["hypothesis"], strict=True))
    confused: Counter[tuple[str, str]] = Counter()
    spoken: Counter[str] = Counter()
    for reference, hypothesis in pairs:
        spoken.update(reference)
        for kind, i, j in Levenshtein.editops(reference, hypothesis):
            true = "" if kind == "insert" else reference[i]
            heard = "" if kind == "delete" else hypothesis[j]
            confused[true, heard] += 1
    result = score(*zip(*pairs, strict=True)) if pairs else None
    points = Counter(zip(map(len, table["reference"]), table["distance"].tolist(), strict=True))
    listed = table.sort_values("distance", ascending=False, kind="stable")[:ROWS]
    return {
        "name": name,
        "file": path.name,
        "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime)),
        "utterances": len(table),
        "score": result and result._asdict(),
        "rows": [
            [name, distance, len(reference), differences(reference, hypothesis)]
            for name, reference, hypothesis, distance in listed[COLUMNS].itertuples(index=False)
        ],
        "spoken": dict(spoken),
        "confused": [[true, heard, count] for (true, heard), count in confused.most_common()],
        "points": [[length, distance, count] for (length, distance), count in points.items()],
    }


def differences(reference: str, hypothesis: str) -> list:
    """Both texts aligned by word: what they share as strings, where they differ as pairs `[reference, hypothesis]`.

    A pair is one word and what was heard for it, or more where spaces were missed or made up.
    """
    parts: list = []
    i = j = 0
    for space, other in [*_shared_spaces(reference, hypothesis), (len(reference), len(hypothesis))]:
        parts += _of_words(reference[i:space], hypothesis[j:other])
        parts.append(reference[space : space + 1])
        i, j = space + 1, other + 1
    joined: list = []
    for part in filter(None, parts):
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _shared_spaces(reference: str, hypothesis: str) -> list[tuple[int, int]]:
    """Positions in both texts of the spaces that the alignment of their characters puts onto each other."""
    return [
        (i + k, j + k)
        for kind, i, to, j, _ in Levenshtein.opcodes(reference, hypothesis)
        if kind == "equal"
        for k in range(to - i)
        if reference[i + k] == " "
    ]


def _of_words(said: str, heard: str) -> list:
    """`differences` of texts in which no space is shared: whole words that both begin or end with, and the rest."""
    words, others = said.split(" "), heard.split(" ")
    first = _shared(words, others)
    last = _shared(words[first:][::-1], others[first:][::-1])
    opening, closing = " ".join(words[:first]), " ".join(words[len(words) - last :])
    rest = [text[len(opening) : len(text) - len(closing)] for text in (said, heard)]
    return [opening, rest if any(rest) else "", closing]


def _shared(some: Sequence[str], others: Sequence[str]) -> int:
    """How many words two lists begin with alike."""
    return next((k for k, (a, b) in enumerate(zip(some, others, strict=False)) if a != b), min(len(some), len(others)))


# ----------------------------------------------------------------------------------------------------------- sentences


def why_train_loss_is_higher(rows: Sequence[dict], settings: dict) -> str:
    """A sentence on a training loss above dev loss, with what makes it so; empty if it is not above."""
    last = rows[-1] if rows else {}
    if not last.get("train_loss", 0) > last.get("dev_loss", math.inf):
        return ""
    training, augment = settings.get("training", {}), settings.get("augment", {})
    model = settings.get("model", {})
    smoothing, ctc = training.get("label_smoothing"), training.get("ctc_weight")
    masked = last["epoch"] >= augment.get("from_epoch", math.inf) and (
        augment.get("frequency_masks") or augment.get("time_masks")
    )
    augmented = [word for word, on in (("speed", augment.get("speed")), ("masks", masked)) if on]
    dropout = any(model.get(part, {}).get("dropout") for part in ("listener", "speller"))
    reasons = [
        f"label smoothing ({smoothing:g})" if smoothing else "",
        f"a share of {ctc:g} of the CTC loss" if ctc else "",
        f"augmented speech ({', '.join(augmented)})" if augmented else "",
        "dropout" if dropout else "",
    ]
    named = [reason for reason in reasons if reason]
    if not named:
        return ""
    return (
        f"Training loss lies above dev loss here, and that is no fault: it is measured with {', '.join(named)}, and "
        "while the weights still change; dev loss is the Speller's alone, on clean speech, with averaged weights."
    )
