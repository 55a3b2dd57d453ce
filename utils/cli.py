"""What all commands share: how they end, how they are asked to stop, and the text of --help."""

import errno
import re
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from utils.errors import Stopped, UserError
from utils.logging import coloured

# A disk that is full, read-only, taken away or worn out.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
HELP_WIDTH, KEY_WIDTH = 80, 36  # columns of --help, and of what stands before a key's meaning


def describe_keys(path: Path) -> str:
    """Every key with its default and its meaning, read from the comments of a configuration file."""
    described, sections = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"^( *)(\w+):\s*(.*?)\s*(?:#\s*(.*))?$", line)
        if not match:
            item = re.match(r"^\s*- (\{.*\})$", line)
            if item:
                described[-1][1].append(item[1])
            continue
        indent, name, value, meaning = match.groups()
        sections = [*sections[: len(indent) // 2], name]
        if meaning is not None:
            described.append((".".join(sections), value or [], meaning))
    lines, section = ["keys, with their defaults in config.yaml:"], ""
    for key, value, meaning in described:
        if not key.startswith(f"{section}."):
            section = key.partition(".")[0]
            lines += ["", f"{section}:"]
        setting = f"  {key}={value if isinstance(value, str) else '[' + ', '.join(value) + ']'}"
        if len(setting) < KEY_WIDTH:
            lines += _wrap(meaning, setting.ljust(KEY_WIDTH))
        else:
            lines += [setting, *_wrap(meaning, " " * KEY_WIDTH)]
    return "\n".join(lines)


def _wrap(text: str, opening: str) -> list[str]:
    return textwrap.wrap(text, HELP_WIDTH, initial_indent=opening, subsequent_indent=" " * len(opening))


def describe_command(docstring: str) -> str:
    """A command's docstring for a terminal: its examples, `command   # comment`, below one another."""
    lines = []
    for line in docstring.splitlines():
        command, mark, comment = line.partition("  # ")
        lines += [f"  {command.rstrip()}", *_wrap(comment.strip(), "      ")] if mark else _wrap(line, "") or [""]
    return "\n".join(lines)


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's `main`; a `UserError` becomes one message and exit code 2, Ctrl-C and SIGTERM 130 and 143."""
    label = coloured("error:", "red", sys.stderr)
    try:
        main()
    except UserError as error:
        # From a worker of the DataLoader it comes with the worker's traceback before it.
        print(f"{label} {str(error).rpartition(f'{UserError.__name__}: ')[2].strip()}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0].strip()
        print(
            f"{label} a process that prepares batches ended ({reason}): mostly the machine has no memory left, where "
            "data.cache=mmap or fewer data.workers help. What was written is whole: the same command goes on",
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(f"{label} {error}; what was written is whole: make room or mend that, run it again", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


class StopRequest:
    """Within its context, `signum` is the signal that has come, 0 before. A second one stops the process at once."""

    def __init__(self):
        self.signum = 0
        self._before = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self.__exit__()
