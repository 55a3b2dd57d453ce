"""Logging of a command: lines on the console and, for a run, in its log file.

Every module logs to `logging.getLogger(f"las.{__name__}")`. Commands attach the handlers here to the parent logger
`las`; imported as a library, the project prints nothing below a warning.
"""

import io
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

CODES = {"green": "32", "yellow": "33", "red": "31"}
LABELS = {logging.WARNING: "warning: ", logging.ERROR: "error: ", logging.CRITICAL: "error: "}
NO_LABEL = {"label": ""}  # for `extra`: a line that is shown as it stands, whatever its level
ROOT = logging.getLogger("las")


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """`text` for `stream`: coloured on a terminal, unless NO_COLOR is set (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\033[{CODES[colour]}m{text}\033[0m"


def printable(line: str, encoding: str = "utf-8") -> str:
    """`line` with escapes for what `encoding` cannot express, such as file names that are not valid text."""
    return line.encode(encoding, "backslashreplace").decode(encoding)


class RankFilter(logging.Filter):
    """Passes the records of rank 0, and errors of every rank."""

    def __init__(self, rank: int):
        super().__init__()
        self.rank = rank

    def filter(self, record: logging.LogRecord) -> bool:
        return self.rank == 0 or record.levelno >= logging.ERROR


def _label(record: logging.LogRecord) -> str:
    return getattr(record, "label", LABELS.get(record.levelno, ""))


class ConsoleHandler(logging.Handler):
    """Writes errors to stderr and everything else to stdout, above a progress bar, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
            encoding = stream.encoding or "utf-8"
            line = self._decorate(record, printable(record.getMessage(), encoding), stream)
            tqdm.write(line + "\n", file=stream, end="")  # in one piece: other ranks write there as well
            stream.flush()
        except Exception:
            self.handleError(record)

    @staticmethod
    def _decorate(record: logging.LogRecord, line: str, stream: TextIO) -> str:
        label = _label(record)
        if record.levelno >= logging.ERROR:
            return (coloured(label.rstrip(), "red", stream) + " " if label else "") + line
        if record.levelno >= logging.WARNING:
            return coloured(label + line, "yellow", stream)
        highlight = getattr(record, "highlight", "")  # the end of the line that deserves attention
        if highlight and line.endswith(highlight):
            return line.removesuffix(highlight) + coloured(highlight, "green", stream)
        return line


class LossyStream:
    """stdout or stderr that may go away (a lost terminal, `| head`): what is written after that is dropped.

    A run goes on, and its log file has everything.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        if isinstance(error, UnicodeError):
            raise error
        with suppress(OSError, ValueError):  # so that Python's own flush at its end succeeds
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class LogFileFormatter(logging.Formatter):
    """Date, time and label before the message; the traceback of a caught exception after it."""

    def __init__(self):
        super().__init__("%(asctime)s  %(label)s%(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.label = _label(record)
        return super().format(record)


def setup_logging() -> None:
    """Sends the project's records to the console; called once per command, before anything is logged or printed.

    What the console's encoding cannot express is escaped, whoever writes it: argparse, tqdm, a traceback.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if stream is None:  # closed before the command began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):  # not one that a test or notebook put there
            setattr(sys, name, LossyStream(stream))
    _remove(logging.Handler)
    _attach(ConsoleHandler())


def add_log_file(path: Path) -> None:
    """Appends the project's records to the file `path` as well, and no longer to that of an earlier run.

    Raises:
        OSError: the file cannot be opened for writing.
    """
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # on a full disk the console has the line
    handler.setFormatter(LogFileFormatter())
    _remove(logging.FileHandler)
    _attach(handler)


def _remove(kind: type[logging.Handler]) -> None:
    for handler in ROOT.handlers[:]:
        if isinstance(handler, kind):
            ROOT.removeHandler(handler)
            with suppress(OSError):  # a full disk
                handler.close()


def _attach(handler: logging.Handler) -> None:
    ROOT.setLevel(logging.INFO)
    handler.addFilter(RankFilter(int(os.environ.get("RANK", "0"))))  # set by torchrun
    ROOT.addHandler(handler)
