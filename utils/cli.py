"""What all commands share: how they end, how they are asked to stop, and the text of --help."""

import argparse
import errno
import logging
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import NamedTuple, TypeVar

import yaml

from utils.errors import Interrupted, UserError
from utils.logging import NO_LABEL, setup_logging

# A disk that is full, read-only, taken away or worn out, or a machine without memory or open files to spare.
DISK_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EFBIG", "ENXIO"),
        *("ENODEV", "ENOMEDIUM", "EREMOTEIO", "EHOSTDOWN", "EHOSTUNREACH", "EUCLEAN", "ENOMEM", "EMFILE", "ENFILE"),
    )
    if hasattr(errno, name)  # Windows and macOS lack some
)
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
HELP_WIDTH, KEY_WIDTH = 80, 36  # columns of --help, and of what stands before a key's meaning
T = TypeVar("T")

logger = logging.getLogger(f"las.{__name__}")


def run_command(main: Callable[[], T]) -> T:
    """Calls `main` and turns every expected failure into one logged message and an exit code.

    The exit code is 2 after a `UserError`, a disk error or a killed DataLoader worker, and 128 plus the signal's number
    after Ctrl-C or SIGTERM. Any other exception is a bug: it goes on to Python, and with its traceback to the log file.

    Returns:
        What `main` returns.

    Raises:
        SystemExit: `main` failed in an expected way.
    """
    setup_logging()
    sys.excepthook = _quiet_interrupt
    try:
        return main()
    except UserError as error:
        # Raised in a DataLoader worker, it arrives with the worker's traceback before it.
        logger.error(str(error).rpartition(f"{UserError.__name__}: ")[2].strip())
        sys.exit(2)
    except Interrupted as interrupted:
        logger.error(str(interrupted), extra=NO_LABEL)
        sys.exit(interrupted.exit_code)
    except KeyboardInterrupt:
        logger.error("\ninterrupted", extra=NO_LABEL)
        sys.exit(128 + signal.SIGINT)
    except ConnectionResetError as error:
        _log_dead_worker(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            _log_bug(error)
            raise
        logger.error(f"{error}; what was written is whole: make room or mend that, run it again")
        _release_workers(error)
        sys.exit(2)
    except Exception as error:
        if not (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)):
            _log_bug(error)
            raise
        _log_dead_worker(error)
        sys.exit(2)


def _quiet_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C between a command's parts, such as while PyTorch is imported, is one line."""
    if issubclass(kind, KeyboardInterrupt):
        logger.error("\ninterrupted", extra=NO_LABEL)
    else:
        sys.__excepthook__(kind, error, trace)


def _log_dead_worker(error: Exception) -> None:
    """`error` is what torch raises, or, where it has not noticed yet, what the pipe from the worker does."""
    reason = (str(error) or type(error).__name__).splitlines()[0].strip()
    logger.error(
        f"a process that prepares batches ended ({reason}): mostly the machine has no memory left, where "
        "data.cache=mmap or fewer data.workers help. What was written is whole: the same command continues"
    )


def _log_bug(error: Exception) -> None:
    logger.critical(f"this is a bug, its traceback follows: {type(error).__name__}: {error}", exc_info=True)
    _release_workers(error)


def _release_workers(error: Exception) -> None:
    """Python keeps a traceback until its exit, and with it a DataLoader whose workers it would wait for."""
    traceback.clear_frames(error.__traceback__)


class GracefulShutdown:
    """Context in which Ctrl-C, SIGTERM and SIGHUP (a lost terminal) are noted instead of ending the process.

    The command looks at `signum` between batches, saves, and raises `Interrupted`. A second signal ends the process at
    once, as without this context.

    Attributes:
        signum: the signal that has come, 0 if none has.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._handlers: dict[int, Callable | int | None] = {}

    def __enter__(self) -> "GracefulShutdown":
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self.__exit__()


# --------------------------------------------------------------------------------------------------------------- help


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose --help ends with text that is made only when somebody asks for it.

    Args:
        docstring: of the command's module; its examples, `command   # comment`, are set one below the other.
        epilog: makes the last part of the help.
    """

    def __init__(self, docstring: str, epilog: Callable[[], str]):
        super().__init__(
            description=describe_command(docstring),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=HELP_WIDTH),
        )
        self._make_epilog = epilog

    def format_help(self) -> str:
        self.epilog = self._make_epilog()
        return super().format_help()


class DescribedKey(NamedTuple):
    """A configuration key as the YAML file shows it."""

    default: str  # in YAML's flow style
    meaning: str  # the comment on its line; empty if there is none


def read_key_comments(text: str, is_section: Callable[[str], bool]) -> dict[str, DescribedKey]:
    """Default and comment of every dotted key in the YAML document `text`, whatever its style and order.

    Args:
        text: a valid YAML mapping.
        is_section: whether a dotted key holds other keys; everything else is a value, also if it is a mapping.
    """
    lines, described = text.splitlines(), {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for name, value in node.value:
            key = f"{prefix}{name.value}"
            if is_section(key):
                walk(value, f"{key}.")
                continue
            on_key_line = value.start_mark.line == value.end_mark.line == name.start_mark.line
            end = value.end_mark if on_key_line else name.end_mark
            comment = lines[end.line][end.column :].partition("#")[2].strip()
            described[key] = DescribedKey(_flow_style(value), comment)

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return described


def _flow_style(node: yaml.Node) -> str:
    """A YAML value on one line: `[a, {b: 1}]`."""
    if isinstance(node, yaml.SequenceNode):
        return "[" + ", ".join(map(_flow_style, node.value)) + "]"
    if isinstance(node, yaml.MappingNode):
        return "{" + ", ".join(f"{name.value}: {_flow_style(value)}" for name, value in node.value) + "}"
    return str(node.value)


def describe_keys(keys: Iterable[str], described: dict[str, DescribedKey]) -> str:
    """The help's part on configuration keys: each with default and meaning, grouped by section."""
    lines, section = ["keys, with their defaults in config.yaml:"], ""
    for key in keys:
        if not key.startswith(f"{section}."):
            section = key.partition(".")[0]
            lines += ["", f"{section}:"]
        default, meaning = described.get(key, DescribedKey("", "(missing in config.yaml)"))
        setting = f"  {key}={default}"
        if len(setting) < KEY_WIDTH:
            lines += _wrap(meaning, setting.ljust(KEY_WIDTH)) or [setting]
        else:
            lines += [setting, *_wrap(meaning, " " * KEY_WIDTH)]
    return "\n".join(lines)


def _wrap(text: str, opening: str) -> list[str]:
    return textwrap.wrap(text, HELP_WIDTH, initial_indent=opening, subsequent_indent=" " * len(opening))


def describe_command(docstring: str) -> str:
    """A command's docstring for a terminal: its examples, `command   # comment`, one below the other."""
    lines = []
    for line in docstring.splitlines():
        command, mark, comment = line.partition("  # ")
        lines += [f"  {command.rstrip()}", *_wrap(comment.strip(), "      ")] if mark else _wrap(line, "") or [""]
    return "\n".join(lines)


def is_override(argument: str) -> bool:
    """Whether a command-line argument has the form key=value."""
    return re.match(r"[a-z_.]+=", argument) is not None
