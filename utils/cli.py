"""What all commands share: how they end, how they are asked to stop, and the text of --help."""

import argparse
import logging
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType, TracebackType
from typing import NamedTuple, TypeVar

import yaml

from utils.errors import Interrupted, UserError, name_source
from utils.failures import explain
from utils.logging import NO_LABEL, setup_logging

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
HELP_WIDTH, KEY_WIDTH = 80, 36  # columns of --help, and of what stands before a key's meaning
T = TypeVar("T")

logger = logging.getLogger(f"las.{__name__}")


def prepare_command() -> None:
    """Logs to the console, and says in one line what happens outside of `run_command`, such as Ctrl-C in an import."""
    setup_logging()
    sys.excepthook = _outside_of_commands


def run_command(main: Callable[[], T], sources: Mapping[str, str] = MappingProxyType({})) -> T:
    """Calls `main` and turns every expected failure into one logged message and an exit code.

    The exit code is 2 after a `UserError`, a disk error or a killed DataLoader worker, and 128 plus the signal's number
    after Ctrl-C or SIGTERM. Any other exception is a bug: it goes on to Python, and with its traceback to the log file.

    Args:
        main: the command.
        sources: the file or command line that set each key; a message on a key names it.

    Returns:
        What `main` returns.

    Raises:
        SystemExit: `main` failed in an expected way.
    """
    prepare_command()
    try:
        return main()
    except (Exception, KeyboardInterrupt) as error:
        code = _say(error, sources)
        if code is None:
            logger.critical(f"this is a bug, its traceback follows: {type(error).__name__}: {error}", exc_info=True)
        # Python keeps a traceback until its exit, and with it a DataLoader whose workers it would wait for.
        traceback.clear_frames(error.__traceback__)
        if code is None:
            raise
    sys.exit(code)  # only here, where nothing refers to the exception any more


def _say(error: BaseException, sources: Mapping[str, str] = MappingProxyType({})) -> int | None:
    """Logs an expected failure in one message and returns the exit code; None for a bug, of which nothing is said."""
    if isinstance(error, KeyboardInterrupt):
        logger.error("\ninterrupted", extra=NO_LABEL)
        return 128 + signal.SIGINT
    if isinstance(error, Interrupted):
        logger.error(str(error), extra=NO_LABEL)
        return error.exit_code
    # Raised in a DataLoader worker, a UserError arrives with the worker's traceback before it.
    message = (
        str(error).rpartition(f"{UserError.__name__}: ")[2].strip() if isinstance(error, UserError) else explain(error)
    )
    if message is None:
        return None
    logger.error(name_source(message, sources))
    return 2


def _outside_of_commands(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What happens between a command's parts, such as while PyTorch is imported, is one line as well."""
    code = _say(error)
    if code is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sys.exit(code)


class WaitingEnded(Exception):
    """A signal has come while the command was waiting, see `GracefulShutdown.waiting`."""


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
        self._waiting = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context that waits for what may never come and that nothing depends on, such as a batch from a stuck disk.

        Raises:
            WaitingEnded: a signal has come, before or meanwhile.
        """
        self._waiting = True
        try:
            if self.signum:
                raise WaitingEnded
            yield
        finally:
            self._waiting = False

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
        if self._waiting:
            self._waiting = False
            raise WaitingEnded


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
