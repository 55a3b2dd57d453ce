"""Files that are complete or absent, never half written; settings as YAML."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file to write to, renamed to `path` at the end of the context.

    The new content is flushed to the disk before the old file is replaced. If writing fails, the old file stays and
    the temporary one is removed.

    Yields:
        The path of the temporary file, in the same folder as `path`.

    Raises:
        OSError: the file cannot be written; `filename` is set even where the system call did not tell it.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as the number it is (YAML 1.1 takes it for text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def to_yaml(settings: dict[str, Any]) -> str:
    return yaml.dump(settings, sort_keys=False, default_flow_style=None, allow_unicode=True)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
