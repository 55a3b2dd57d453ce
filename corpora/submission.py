"""The competition's CSV: which header it wants, which rows, and cells that Kaggle accepts."""

import io
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from corpora.layout import Partition
from utils.errors import UserError
from utils.files import atomic_write, format_csv, read_csv, write_csv

SUBMISSION = "submission.csv"  # in the folder of a run
TEMPLATE = "sample_submission.csv"  # in the data root, in any spelling of its case, with or without "_"
FALLBACK = "E"  # the most frequent letter of English, for a test set of which nothing could be decoded
NAMED = 10  # files named in a warning

logger = logging.getLogger(f"las.{__name__}")


class SubmissionFormat(NamedTuple):
    """Header and rows that the competition wants."""

    columns: tuple[str, str]  # of the ids and of the texts
    ids: list[str]  # of each row
    files: list[str]  # stem of each row's feature file
    reason: str  # where the header comes from, in words


def find_format(root: Path, partition: Partition, columns: Sequence[str] | None) -> SubmissionFormat:
    """The format of the submission for `partition`.

    The header comes from `columns` (the key test.columns), else from a sample_submission.csv in the data root, else
    from the semester's layout. A template in a folder of transcripts is not trusted: F22's has another header than its
    competition wanted. The ids and the order of rows come from sample_submission.csv if its ids are file names.

    Raises:
        UserError: sample_submission.csv cannot be read, has other than two columns, or its rows are not the test set's.
    """
    stems = [path.stem for path in partition.features]
    layout = partition.layout
    header, reason = layout.columns, f"as in {layout.semester}"
    if layout.semester in ("F24", "S25"):
        reason += (
            "; F24 and S25 have the same folders but for text-for-LM: test.columns=[Index,Labels] or [id,transcription]"
        )
    else:
        reason += "; test.columns=[ID,TEXT] sets another"
    ids, files = [str(index) for index in range(len(stems))], stems
    template = _find_template(root)
    if template is not None:
        rows = read_csv(template)
        names = list(rows[0]) if rows else []
        if len(names) != 2 or None in names:
            raise UserError(f"{template}: found columns {names}, expected two: ids and texts; or set test.columns")
        header, reason = (names[0], names[1]), f"as in {template}"
        ids, files = _rows_of(template, [row[names[0]] for row in rows], stems)
    if columns is not None:
        header, reason = (columns[0], columns[1]), "as test.columns says"
    return SubmissionFormat(header, ids, files, reason)


def _find_template(root: Path) -> Path | None:
    plain = TEMPLATE.replace("_", "")
    found = (path for path in root.iterdir() if path.name.lower().replace("_", "") == plain and path.is_file())
    return min(found, default=None)


def _rows_of(template: Path, ids: list[str], stems: list[str]) -> tuple[list[str], list[str]]:
    """Ids and files of the rows, in the template's order if its ids are file names."""
    by_name = {name: stem for stem in stems for name in (stem, f"{stem}.npy")}
    if any(identity in by_name for identity in ids):
        strange = [identity for identity in ids if identity not in by_name]
        missing = sorted(set(stems) - {by_name.get(identity) for identity in ids})
        if strange or missing or len(ids) != len(stems):
            differ = ", ".join((strange + missing)[:5]) or "a file named twice"
            raise UserError(f"{template}: found other files than those of the test set ({differ}); mend or remove it")
        return ids, [by_name[identity] for identity in ids]
    if len(ids) != len(stems):
        raise UserError(
            f"{template}: found {len(ids)} rows, expected {len(stems)}, one for each file of the test set; mend or "
            "remove it"
        )
    if all(identity.isdecimal() for identity in ids) and (numbers := list(map(int, ids))) != sorted(set(numbers)):
        row = next(row for row in range(1, len(ids)) if numbers[row] <= numbers[row - 1])
        raise UserError(
            f"{template}: found row {ids[row]} after row {ids[row - 1]}, expected ascending numbers, in "
            "the order of the test set's files; mend or remove it"
        )
    return ids, stems


def write_submission(path: Path, form: SubmissionFormat, texts: Mapping[str, str]) -> None:
    """Writes the submission and logs its header; no cell is empty or read as missing, which Kaggle refuses.

    Args:
        path: of the file.
        form: header and rows.
        texts: by stem of the feature file; a file without a text, or with a blank one, gets the most frequent letter.

    Raises:
        UserError: the file cannot be written.
    """
    letters = Counter(letter for text in texts.values() for letter in text if not letter.isspace())
    letter = letters.most_common(1)[0][0] if letters else FALLBACK
    unread = [file for file in form.files if file not in texts]
    blank = [file for file in form.files if file in texts and not texts[file].strip()]
    cells = [texts[file] if texts.get(file, "").strip() else letter for file in form.files]
    for files, what in ((unread, "could not be read"), (blank, "gave no text")):
        if files:
            named = ", ".join(files[:NAMED]) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")
            logger.warning(f"{path}: {len(files)} of {len(cells)} files {what}; their rows say {letter!r}: {named}")
    for row in _missing_cells(form, cells):
        logger.warning(
            f"{path}: row {form.ids[row]}: the text {cells[row]!r} would be read as a missing value, and the file "
            "refused; a space after it lets it survive, and costs one character of distance"
        )
        cells[row] += " "
    write_csv(path, form.columns, zip(form.ids, cells, strict=True))
    logger.info(f"{path}: {len(cells)} rows, header {','.join(form.columns)} ({form.reason})")


def copy_submission(path: Path, copy: Path) -> bool:
    """Copies a submission to where somebody wants it; whether that is another place.

    Raises:
        UserError: it cannot be written there.
    """
    if copy.resolve() == path.resolve():
        return False
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(copy) as temporary:
            shutil.copyfile(path, temporary)
    except OSError as error:
        raise UserError(f"test.submission: cannot write {copy} ({error}); {path} is written") from None
    return True


def _missing_cells(form: SubmissionFormat, cells: Sequence[str]) -> list[int]:
    """Positions of the cells that pandas, and so Kaggle, reads as missing: NA, NULL and the like."""
    content = "".join(format_csv(form.columns, zip(form.ids, cells, strict=True)))
    table = pd.read_csv(io.StringIO(content), dtype=str)
    return [row for row, missing in enumerate(table.iloc[:, 1].isna()) if missing]
