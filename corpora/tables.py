"""Tables of what is said in recordings, as people have them: their encoding, their separator, their columns."""

import codecs
import csv
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError

EXPECTED = "expected text in UTF-8: a path, a tab, what is said"
PATHS = ("path", "file", "filename", "file_name", "audio", "audio_path", "audio_file", "wav", "wav_filename", "파일")
TEXTS = ("text", "transcript", "transcription", "sentence", "label", "said", "문장", "전사", "텍스트")
OTHERS = ("speaker", "speaker_id", "client_id", "id", "duration", "화자")
KOREAN = 0.9  # share of the characters beyond ASCII that are common syllables, from which on a text is cp949
ZEROS = 0.2  # share of zero bytes from which on a text is UTF-16 without a mark
TRIED = 200  # lines that tell which column is which

logger = logging.getLogger(f"las.{__name__}")


class Line(NamedTuple):
    """A line of a table."""

    number: int  # from 1
    path: str
    text: str
    speaker: str  # empty where nobody asked for it


class Table(NamedTuple):
    """The lines of a table, and a finding for each that is none."""

    lines: list[Line]
    findings: dict[int, str]  # by number of the line


def read_table(path: Path, is_audio: Callable[[str], bool], speakers: str | None = None) -> Table:
    """Reads a table of a path, a tab and a text in every line, and what is common instead of that.

    A header, commas or semicolons for tabs, columns in another order, UTF-16 and Korean's cp949 are recognised; what
    was is logged, a line each.

    Args:
        path: of the table.
        is_audio: whether a cell names a recording.
        speakers: column of the speakers: its name in the header, or its number from 1; None: it is not wanted.

    Raises:
        UserError: the file cannot be read, or its columns cannot be told apart.
    """
    text, encoding = decode_table(path)
    if encoding:
        logger.info(f"{path}: found {encoding}, expected UTF-8: read as that")
    lines = [line for line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line[1].strip()]
    separator = _separator([line for _, line in lines])
    if separator != "\t":
        logger.info(f"{path}: found {separator!r} between the columns, expected tabs: read as that")
    quoted = separator != "\t" or (bool(encoding) and _quoted_by_a_spreadsheet([line for _, line in lines]))
    if quoted and separator == "\t":
        logger.info(f"{path}: found cells in quotes, as a spreadsheet writes them: read without")
    findings: dict[int, str] = {}
    rows = []
    for number, line in lines:
        try:
            rows.append((number, line, _cells(line, separator, quoted)))
        except csv.Error as error:
            findings[number] = f"{path}:{number}: found {line[:200]!r}, expected cells, {separator!r} between ({error})"
    header: list[str] = []
    if rows and _is_header(rows[0][2], is_audio):
        header = [cell.casefold() for cell in rows.pop(0)[2]]
        logger.info(f"{path}: line {lines[0][0]} names the columns ({', '.join(header)}): no utterance")
    sample = [cells for *_, cells in rows[:TRIED]]
    count = len(header) or _count(sample, separator)
    speaker = None if speakers is None else _named(path, speakers, header, count)
    wanted = _columns(path, sample, header, count, speaker, is_audio)
    if wanted[0] > wanted[1] and not header:
        logger.info(f"{path}: found the text before the path, expected the path first: read as that")

    found = []
    for number, line, cells in rows:
        if separator != "\t" and len(cells) > count == wanted[1] + 1 and '"' not in line:  # commas in a text at the end
            cells = [cell.strip() for cell in line.split(separator, count - 1)]
        if len(cells) != count or not (cells[wanted[0]] and cells[wanted[1]]):
            what = f"{count} columns" if count > 2 else "a path, a tab and a text"
            findings[number] = f"{path}:{number}: found {line[:200]!r}, expected {what}"
        else:
            said_by = "" if speaker is None else cells[speaker]
            found.append(Line(number, cells[wanted[0]], cells[wanted[1]], said_by))
    return Table(found, findings)


def decode_table(path: Path) -> tuple[str, str]:
    """A file's text, and its encoding in words where that is not UTF-8.

    Raises:
        UserError: it cannot be read, or in no encoding that is known for sure.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}), {EXPECTED}") from None
    try:
        if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # before UTF-16, whose mark it begins with
            return content.decode("utf-32"), "UTF-32"
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return content.decode("utf-16"), "UTF-16"
        if content.count(0) > ZEROS * len(content):
            little = content[1::2].count(0) > content[::2].count(0)
            return content.decode("utf-16-le" if little else "utf-16-be"), "UTF-16 without a byte order mark"
        if content.startswith(b"\xef\xbb\xbf"):
            return content.decode("utf-8-sig"), "a byte order mark"
        return content.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        reason = error
    try:
        text = content.decode("cp949")
    except UnicodeDecodeError:
        text = ""
    beyond = [each for each in text if ord(each) > 127]
    # Other encodings, read as cp949, give rare syllables, for which EUC-KR has no two bytes, or Chinese characters.
    syllables = [each for each in beyond if "가" <= each <= "힣" and len(each.encode("euc-kr", "ignore")) == 2]
    if beyond and len(syllables) >= KOREAN * len(beyond):
        return text, f"cp949 (Korean, such as {''.join(syllables[:8])})"
    raise UserError(f"{path}: cannot be read ({reason}), {EXPECTED}: save it as that")


def _separator(lines: Sequence[str]) -> str:
    """Tab, unless no line has one and most have another."""
    if not any("\t" in line for line in lines):
        for separator in ",;":
            if sum(separator in line for line in lines) > len(lines) / 2:
                return separator
    return "\t"


def _quoted_by_a_spreadsheet(lines: Sequence[str]) -> bool:
    """Whether all cells with a comma or a quote are in quotes, their own quotes doubled, as Excel's "Unicode Text" has.

    Such tables come in UTF-16 or the system's encoding. In others, and where one such cell is bare, quotes are text.
    """
    cells = [cell.strip() for line in lines for cell in line.split("\t") if '"' in cell or "," in cell]
    whole = [re.fullmatch(r'"(?:[^"]|"")*"', cell) and ("," in cell or '""' in cell[1:-1]) for cell in cells]
    return bool(cells) and all(whole)


def _cells(line: str, separator: str, quoted: bool) -> list[str]:
    """Cells of a line; `quoted`: quotes around one are no part of it."""
    if not quoted:
        return [cell.strip() for cell in line.split(separator)]
    (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    return [cell.strip() for cell in cells]


def _is_header(cells: Sequence[str], is_audio: Callable[[str], bool]) -> bool:
    known = sum(cell.casefold() in (*PATHS, *TEXTS, *OTHERS) for cell in cells)
    named = any(is_audio(cell) or re.search(r"\.\w{2,4}$", cell) for cell in cells)
    return len(cells) > 1 and known >= min(2, len(cells) - 1) and not named


def _count(sample: Sequence[Sequence[str]], separator: str) -> int:
    """How many columns there are: as in most lines, or two where commas may be in a text as well."""
    counts = Counter(map(len, sample))
    usual = 2 if not sample or (separator != "\t" and counts[2]) else counts.most_common(1)[0][0]
    return max(2, usual)


def _named(path: Path, name: str, header: Sequence[str], count: int) -> int:
    """The position of a column by its name or its number."""
    if name.casefold() in header:
        return list(header).index(name.casefold())
    if name.isdecimal() and 1 <= int(name) <= count:
        return int(name) - 1
    columns = ", ".join(header) if header else f"1 to {count}"
    raise UserError(f"--speakers: found {name!r}, expected a column of {path} ({columns}), folder or prefix")


def _columns(
    path: Path,
    sample: Sequence[Sequence[str]],
    header: Sequence[str],
    count: int,
    speaker: int | None,
    is_audio: Callable[[str], bool],
) -> tuple[int, int]:
    """The positions of path and text."""
    files = [sum(len(cells) > column and is_audio(cells[column]) for cells in sample) for column in range(count)]
    audio = max(range(count), key=lambda column: (files[column], column < len(header) and header[column] in PATHS))
    left = [column for column in range(count) if column not in (audio, speaker)]
    named = [column for column in left if column < len(header) and header[column] in TEXTS]
    if not left or (len(left) > 1 and not named):
        columns = ", ".join(header) if header else f"{count} columns"
        raise UserError(
            f"{path}: found {columns}, expected a path and a text; a first line that names the columns, such as path "
            "and text, tells which they are"
        )
    return audio, (named or left)[0]
