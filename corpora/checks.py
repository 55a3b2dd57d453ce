"""What must hold for the files of a corpus together, once each has been read by itself."""

from collections import Counter
from collections.abc import Callable, Sequence
from operator import eq
from pathlib import Path

import numpy as np

from utils.corpus import Contents, FeatureFormat, Files, complaint
from utils.errors import UserError

LISTED = 100  # findings shown on screen; all of them are in the report's file


def infer_format(shapes: np.ndarray, normalize: str) -> FeatureFormat:
    """The axis on which the files' shapes `(N, 2)` agree is the feature axis; where both do, the shorter one."""
    rows, columns = (Counter(shapes[:, axis].tolist()).most_common(1)[0] for axis in (0, 1))
    time_first = columns[1] > rows[1] or (columns[1] == rows[1] and columns[0] <= rows[0])
    return FeatureFormat((columns if time_first else rows)[0], time_first, normalize)


def check_shapes(contents: Contents, features: Files, expected: FeatureFormat) -> None:
    """Adds a finding where the feature dimension is not the expected one. Raises UserError where it never is."""
    axis = 1 if expected.time_first else 0
    shape = f"(T, {expected.dim})" if expected.time_first else f"({expected.dim}, T)"
    wrong = np.flatnonzero(contents.readable & (contents.shapes[:, axis] != expected.dim)).tolist()
    if len(wrong) == len(features):
        raise UserError(
            f"{features[0].parent}: found {len(wrong)} arrays of shapes such as {tuple(contents.shapes[0].tolist())}, "
            f"expected {shape}, as the model or the training partitions have: these are features of another kind"
        )
    for index in wrong:
        found = f"shape {tuple(contents.shapes[index].tolist())}"
        wanted = f"shape {shape}, as the model or the other files have"
        contents.add(index, complaint(features[index], found, wanted))


def check_lengths(
    contents: Contents, transcripts: Files, expected: FeatureFormat, character_limit: Callable[[int], int]
) -> None:
    """Adds a finding where a text is too long for its frames."""
    frames = contents.shapes[:, 0 if expected.time_first else 1].tolist()
    for index, text in enumerate(contents.texts):
        if not (text and frames[index]):
            continue
        doubled = sum(map(eq, text, text[1:]))
        limit = character_limit(frames[index])
        if len(text) + doubled > limit:
            found = f"a transcript of {len(text)} characters ({doubled} doubled) for {frames[index]} frames"
            wanted = f"at most {limit}, all that the model can align to so few frames"
            contents.add(index, complaint(transcripts[index], found, wanted))


def list_findings(findings: list[str], name: str, total: int, report: Path | None) -> str:
    """The findings as text, the first of them; all of them in the file `report`."""
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("\n".join(findings) + "\n", encoding="utf-8")
    return f"{name}: {len(findings)} findings in {total} utterances:\n{first_findings(findings, report)}"


def first_findings(findings: Sequence[str], report: Path | None) -> str:
    """The first `LISTED` lines of a list, how many more there are, and in which file."""
    lines = list(findings[:LISTED])
    if len(findings) > LISTED:
        lines.append(f"  ... and {len(findings) - LISTED} more" + (f", all in {report}" if report else ""))
    return "\n".join(lines)
