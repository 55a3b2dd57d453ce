"""Files that are complete or absent, never half written; tables as CSV, settings as YAML; names of files."""

import csv
import io
import itertools
import os
import re
import socket
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError

LONGEST_NAME = 150  # bytes: file names have at most 255, and those of results have more than the name in them
NAME_RULE = (
    "a name of letters, digits, spaces and _ . + - that begins with a letter, a digit or _ and ends in no dot and no "
    f"space; no path, at most {LONGEST_NAME} bytes"
)


@contextmanager
def atomic_write(path: Path, keep_old: Path | None = None) -> Iterator[Path]:
    """A temporary file to write to, renamed to `path` at the end of the context.

    The new content is flushed to the disk before the old file is replaced. If writing fails, the old file stays and
    the temporary one is removed.

    Args:
        path: of the file.
        keep_old: new name of the old file, if there is one.

    Yields:
        The path of the temporary file, in the same folder as `path`.

    Raises:
        OSError: the file cannot be written; `filename` is set even where the system call did not tell it.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if keep_old is None or not path.exists():
            os.replace(temporary, path)
        else:
            os.replace(path, keep_old)
            try:
                os.replace(temporary, path)
            except OSError:
                os.replace(keep_old, path)
                raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """Where this process writes what will be `path`: no other process, on this or another machine, writes there."""
    process = zlib.crc32(f"{socket.gethostname()} {os.getpid()}".encode())
    return path.with_name(f"{path.name}.{process:08x}.tmp")


def sweep_temporaries(folder: Path) -> None:
    """Removes what killed processes have left half written in and below a folder that nobody else writes to."""
    for path in list(folder.rglob("*.????????.tmp")):
        path.unlink(missing_ok=True)


def make_folders(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns those that were not there before, the deepest first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


@contextmanager
def taken_back(made: Sequence[Path], *names: str) -> Iterator[None]:
    """Context of a start: if bad input or Ctrl-C ends it, folders that it made go, unless there is a result in them.

    Args:
        made: from `make_folders`.
        names: of files in the first of them that are no results, besides hidden ones.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        there = [path for folder in made[:1] for path in folder.iterdir()]
        if all(path.name in names or path.name.startswith(".") for path in there):
            with suppress(OSError):
                for path in there:
                    path.unlink()
                for folder in made:
                    folder.rmdir()
        raise


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as the number it is (YAML 1.1 takes it for text)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Refuses a key that stands twice, of which YAML would silently take the last."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", key_node.start_mark)
            seen.add(key) if isinstance(key, str) else None
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as a number."""


# YAML 1.1 also takes on and off for true and false, as in `wandb.mode: off`: here they are text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfFyYnN"))
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def to_yaml(settings: dict[str, Any]) -> str:
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


# What operating systems and notebooks leave beside people's files: never an utterance.
LEFTOVERS = ("thumbs.db", "desktop.ini", "__macosx")


def is_leftover(name: str) -> bool:
    """Whether a file or folder was left by a system (`._a.npy`, `.DS_Store`, `Thumbs.db`) or is hidden."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def read_lines(path: Path) -> list[str]:
    """Lines of a text in UTF-8, with or without a byte order mark; only line breaks end a line, no other separator.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def format_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    r"""Lines of a table that any CSV reader reads back equal, whatever its cells hold.

    Cells are quoted only if they need it; lines end in "\n" on every system.
    """
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\r\n")  # so that cells with "\r" or "\n" are quoted
    for row in itertools.chain([columns], rows):
        writer.writerow(row)
        yield line.getvalue().removesuffix("\r\n") + "\n"
        line.seek(0)
        line.truncate()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table; a cell that is no valid UTF-8, such as a file's name, becomes the bytes that it is on disk.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            file.writelines(format_csv(columns, rows))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; UTF-8 with or without a byte order mark, or else Latin-1.

    Cells that a short row lacks are empty.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}), expected a CSV file") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), restval=""))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read ({error}), expected a CSV file") from None


def is_name(name: str) -> bool:
    """Whether `name`, of a run or a partition, can be a folder and a part of file names: see NAME_RULE."""
    length = len(name.encode("utf-8", "surrogateescape"))
    return length <= LONGEST_NAME and re.fullmatch(r"\w([\w .+-]*[\w+-])?", name) is not None
