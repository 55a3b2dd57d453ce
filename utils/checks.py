"""What must hold for the files of a corpus together, once each has been read by itself."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.corpus import FeatureFormat, Record

LISTED = 100  # findings shown on screen; all of them are in the report's file


def infer_format(shapes: Sequence[tuple[int, int]], normalize: str) -> FeatureFormat:
    """The axis on which the files agree is the feature axis; where they agree on both, the shorter one."""
    rows, columns = (Counter(shape[axis] for shape in shapes).most_common(1)[0] for axis in (0, 1))
    time_first = columns[1] > rows[1] or (columns[1] == rows[1] and columns[0] <= rows[0])
    return FeatureFormat((columns if time_first else rows)[0], time_first, normalize)


def check_shape(record: Record, path: Path, expected: FeatureFormat) -> None:
    axis = 1 if expected.time_first else 0
    if record.shape[axis] != expected.dim:
        shape = f"(T, {expected.dim})" if expected.time_first else f"({expected.dim}, T)"
        record.complain(path, f"shape {record.shape}", f"shape {shape}, as the model or the other files have")


def check_length(record: Record, path: Path, expected: FeatureFormat, character_limit: Callable[[int], int]) -> None:
    frames = record.shape[0 if expected.time_first else 1]
    doubled = sum(a == b for a, b in zip(record.text, record.text[1:], strict=False))
    limit = character_limit(frames)
    if len(record.text) + doubled > limit:
        found = f"a transcript of {len(record.text)} characters ({doubled} doubled) for {frames} frames"
        record.complain(path, found, f"at most {limit}, all that the model can align to so few frames")


def list_findings(findings: list[str], name: str, total: int, report: Path | None) -> str:
    """The findings as text, the first `LISTED` of them; all of them in the file `report`."""
    lines = [f"{name}: {len(findings)} findings in {total} utterances:", *findings[:LISTED]]
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("\n".join(findings) + "\n", encoding="utf-8")
    if len(findings) > LISTED:
        lines.append(f"  ... and {len(findings) - LISTED} more" + (f", all in {report}" if report else ""))
    return "\n".join(lines)
