"""The text of --help, for terminals of 80 columns."""

import re
import textwrap
from pathlib import Path

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
