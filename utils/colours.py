"""Colours on terminals, and nowhere else."""

import os
from typing import TextIO

CODES = {"green": "32", "yellow": "33", "red": "31"}


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """`text` as it is to be written to `stream`: in colour on a terminal, unless NO_COLOR is set (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\033[{CODES[colour]}m{text}\033[0m"
