"""decodings.csv: every decoding of a run with its settings and its scores, a line each."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import format_csv, read_csv
from utils.metrics import Score

FILE = "decodings.csv"  # in the folder of a run
SEARCH = ("mode", "beam_size", "rank", "ctc_weight", "lm_weight", "length_reward")  # keys of `decoding`
COLUMNS = (
    *("time", "command", "split", "utterances", "checkpoints", *SEARCH),
    *("distance", "cer", "wer", "seconds", "submission"),
)
MEASURED = ("distance", "cer", "wer", "seconds")  # empty where they were not
OF_A_BEAM = ("beam_size", "rank", "length_reward")  # empty where the search is greedy

logger = logging.getLogger(f"las.{__name__}")


def describe_checkpoints(checkpoints: Sequence[Path], folder: Path) -> str:
    """The checkpoints of a decoding; those in the run's own folder by their file names."""
    own = folder.resolve()
    return " + ".join(path.name if path.resolve().parent == own else str(path) for path in checkpoints)


def make_row(
    command: str,
    split: str,
    utterances: int,
    checkpoints: str,
    search: Mapping[str, object],
    score: Score | None,
    seconds: float | None,
    submission: str = "",
) -> dict[str, str]:
    """A row of the table, its cells as text; what does not apply is empty.

    Args:
        command: that decoded, such as test.py.
        split: the partition.
        utterances: how many it has.
        checkpoints: see `describe_checkpoints`.
        search: the settings, see SEARCH; further ones are passed over.
        score: None without transcripts; a WER of NaN was not measured.
        seconds: that it took, or None.
        submission: the file that was written for the competition, if one was.
    """
    cells: dict[str, object] = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "command": command, "split": split}
    cells |= {"utterances": utterances, "checkpoints": checkpoints}
    cells |= {key: "" if search["mode"] == "greedy" and key in OF_A_BEAM else search[key] for key in SEARCH}
    measured = score._asdict() if score else {}
    cells |= {key: f"{value:.6g}" for key, value in measured.items() if value == value}
    cells |= {"seconds": "" if seconds is None else f"{seconds:.1f}", "submission": submission}
    return {name: str(cells.get(name, "")) for name in COLUMNS}


def add_decoding(folder: Path, row: Mapping[str, str]) -> None:
    """Appends a row to the table of the run in `folder`. A table of other columns is set aside.

    Raises:
        UserError: the file cannot be written.
    """
    path = folder / FILE
    header, line = format_csv(COLUMNS, [[row[name] for name in COLUMNS]])
    try:
        with path.open("a+", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.seek(0)
            content = file.read()
            known = not content or content.removeprefix("\ufeff").partition("\n")[0].strip() == header.strip()
            if known:  # written in one go: partitions may be decoded at the same time
                opening = header if not content else "" if content.endswith("\n") else "\n"
                file.write(opening + line)
        if not known:
            aside = path.with_name(f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}.csv")
            path.rename(aside)
            logger.warning(f"{path}: found other columns than {','.join(COLUMNS)}: kept as {aside}, begun anew")
            path.write_text(header + line, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def read_decodings(folder: Path) -> list[dict[str, str]]:
    """The rows of the table of the run in `folder`, the oldest first; those that are damaged are left out."""
    path = folder / FILE
    rows = read_csv(path) if path.exists() else []
    whole = [row for row in rows if set(COLUMNS) <= set(row) and row["split"]]
    return [row for row in whole if all(_is_measured(row[name]) for name in MEASURED)]


def _is_measured(cell: str) -> bool:
    try:
        return not cell or float(cell) >= 0
    except ValueError:
        return False


def describe_search(row: Mapping[str, str]) -> str:
    """The settings of a row in words: `beam 8, CTC 0.5, language model 0.3, length 0.8`."""
    words = [f"beam {row['beam_size']}" if row["mode"] == "beam" else row["mode"]]
    for key, name in (("ctc_weight", "CTC"), ("lm_weight", "language model"), ("length_reward", "length")):
        if row[key] not in ("", "0.0", "0"):
            words.append(f"{name} {row[key].removesuffix('.0')}")
    words += [row["rank"]] if row["rank"] not in ("", "likelihood") else []
    checkpoints = row["checkpoints"]
    return ", ".join(words + ([checkpoints] if checkpoints != "best.pt" else []))


def describe_replaced(path: Path, before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """For the end of a log line: of which decoding `path` is that is about to be overwritten; empty if of the same.

    Args:
        path: of the file.
        before: row of the decoding that wrote it; None: not known.
        now: row of the decoding that writes it.
    """
    if not path.exists():
        return ""
    if before is None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        return f"; in place of the one of {since}"
    if all(before[key] == now[key] for key in ("checkpoints", "distance", *SEARCH)):
        return ""
    distance = f", distance {float(before['distance']):.3f}" if before["distance"] else ""
    return f"; in place of that of {before['time'][:16]} ({describe_search(before)}{distance})"


def last_of(rows: Sequence[Mapping[str, str]], split: str, command: str = "test.py") -> Mapping[str, str] | None:
    """The newest row of a partition that `command` wrote."""
    return next((row for row in reversed(rows) if (row["split"], row["command"]) == (split, command)), None)


def best_of(rows: Sequence[Mapping[str, str]], split: str) -> Mapping[str, str] | None:
    """The row of a partition with the least distance; of equals, one that has a WER; None if none was scored."""
    scored = [row for row in rows if row["split"] == split and row["distance"]]
    return min(scored, key=lambda row: (float(row["distance"]), not row["wer"]), default=None)
