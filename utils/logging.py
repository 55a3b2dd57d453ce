"""What a run says: on screen, and in its train.log."""

import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

CODES = {"green": "32", "yellow": "33", "red": "31"}


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """`text` as it is to be written to `stream`: in colour on a terminal, unless NO_COLOR is set (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\033[{CODES[colour]}m{text}\033[0m"


def showable(line: str, encoding: str = "utf-8") -> str:
    """A file's name may be no text, or none that the screen can show."""
    return line.encode(encoding, "backslashreplace").decode(encoding)


class _BesideProgressBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        line = showable(self.format(record), sys.stdout.encoding or "utf-8")
        tqdm.write(_highlight(line), file=sys.stdout)
        sys.stdout.flush()


def _highlight(line: str) -> str:
    """Warnings, and the `best` at the end of an epoch's line, in colour where the screen has colours."""
    if line.startswith(("warning", "not aligned", "no <eos>", "loops")):
        return coloured(line, "yellow", sys.stdout)
    head, comma, last = line.rpartition(", ")
    return head + comma + coloured(last, "green", sys.stdout) if last == "best" else line


def make_logger(path: Path | None = None) -> logging.Logger:
    """A logger to the screen, and appending to the file `path` with the time of day."""
    logger = logging.getLogger("las")
    logger.handlers.clear()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_BesideProgressBar())
    if path is not None:
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        file.handleError = lambda record: None  # on a full disk the screen has the line
        file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(file)
    return logger


def silence(line: str) -> None:
    """What processes other than the first one say."""
