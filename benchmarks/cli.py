"""What the benchmark commands share: command-line flags, printed tables, and the same figures as JSON."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from benchmarks.measure import Quartiles
from benchmarks.reference.speechbrain_las import why_missing
from benchmarks.shapes import Shape, parse_shape
from config import Config, load_config
from utils.device import choose_device, environment
from utils.errors import UserError

REPOSITORY = Path(__file__).parents[1]


class Arguments(NamedTuple):
    """A checked command line."""

    shape: Shape
    config: Config
    device: torch.device
    rounds: int  # per contestant
    seconds: float  # per contestant
    only: tuple[str, ...]  # names of the contestants to measure
    json: Path | None
    flags: argparse.Namespace  # all flags as they were given, those of a single command too


def command_parser(description: str | None, contestants: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of the flags that the commands share.

    Args:
        description: docstring of the command's module.
        contestants: names that `--only` may choose from.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="kaggle", help="kaggle, an4, or B,T,D,U: batch, frames, features, tokens")
    parser.add_argument("--config", metavar="FILE", help="model and settings (default: configs/seed.yaml, or an4.yaml)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5, help="rounds per contestant (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time per contestant (default: %(default)s)")
    parser.add_argument("--only", metavar="NAME,NAME", help=f"measure these alone, of {', '.join(contestants)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def parse_arguments(parser: argparse.ArgumentParser, contestants: Sequence[str]) -> Arguments:
    """Parses and checks the command line.

    Args:
        parser: from `command_parser`, with the flags of the command added.
        contestants: names that `--only` may choose from; all of them without that flag.

    Raises:
        UserError: names the flag, what was found and what was expected.
    """
    flags = parser.parse_args()
    only = tuple(contestants) if flags.only is None else tuple(name.strip() for name in flags.only.split(","))
    unknown = [name for name in only if name not in contestants]
    if unknown:
        raise UserError(f"--only: found {', '.join(map(repr, unknown))}, expected some of {', '.join(contestants)}")
    if flags.rounds < 1:
        raise UserError(f"--rounds: found {flags.rounds}, expected 1 or more")
    if not flags.seconds > 0:
        raise UserError(f"--seconds: found {flags.seconds}, expected a time above 0")
    check_writable("--json", flags.json)
    shape = parse_shape(flags.shape)
    config = load_config(flags.config or REPOSITORY / shape.config)
    device = choose_device(flags.device, "--device")
    return Arguments(shape, config, device, flags.rounds, flags.seconds, only, flags.json, flags)


def parse_sizes(flag: str, text: str) -> list[int]:
    """Positive numbers of a flag such as `--utterances 1000,50000`, in ascending order, each once.

    Raises:
        UserError: `text` is something else.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise UserError(f"{flag}: found {text!r}, expected numbers above 0 such as 250,500,1000")
    return sorted({int(part) for part in parts})


def check_writable(flag: str, path: Path | None) -> None:
    """Checks, before an hour of measuring rather than after it, that `path` can be written.

    Raises:
        UserError: it cannot.
    """
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.is_dir()):
        raise UserError(f"{flag}: found {path}, which cannot be written, expected a file in a folder that exists")


def skip_missing_speechbrain(arguments: Arguments) -> Arguments:
    """The arguments without SpeechBrain's contestants, and a line that says so, if it is not installed.

    Raises:
        UserError: there are no other contestants.
    """
    missing = why_missing() if any(name.startswith("speechbrain") for name in arguments.only) else None
    if missing is None:
        return arguments
    print(missing)
    only = tuple(name for name in arguments.only if not name.startswith("speechbrain"))
    if not only:
        raise UserError(
            "--only: found speechbrain alone, expected other contestants too, or SpeechBrain to be installed"
        )
    return arguments._replace(only=only)


def system_info(device: torch.device) -> dict[str, str | int]:
    """Commit, versions and hardware: what the figures may depend on."""
    versions = environment(device)
    info = {**versions, "device": device.type, "hardware": versions["device"]}
    return {**info, "cores": os.cpu_count() or 1, "threads": torch.get_num_threads()}


def print_setup(arguments: Arguments, *lines: str) -> None:
    """Prints the system and the shape, and then `lines`."""
    print(", ".join(f"{name} {value}" for name, value in system_info(arguments.device).items()))
    shape = arguments.shape
    sizes = f"shape {shape.name}: {shape.feature_dim} features, {shape.batch_size} utterances per batch"
    print(sizes, *lines, sep="\n", flush=True)


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table; quartiles read `median [lower, upper]`, and unknown values `-`."""
    cells = [{column: _cell(value) for column, value in row.items()} for row in rows]
    print(f"\n{title}\n{pd.DataFrame(cells).fillna('-').to_string(index=False)}", flush=True)


def _cell(value: str | float | Quartiles | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, Quartiles):
        return f"{_number(value.median)} [{_number(value.lower)}, {_number(value.upper)}]"
    return _number(value)


def _number(value: float) -> str:
    if isinstance(value, int) or value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def write_json(
    path: Path | None, flags: argparse.Namespace, command: str, device: torch.device, tables: Mapping[str, Any]
) -> None:
    """Writes the figures as JSON, with what is needed to reproduce them; quartiles become a mapping.

    Args:
        path: of the file; None writes nothing.
        flags: of the command line.
        command: the command's module.
        device: that was measured.
        tables: the figures by name of their table.
    """
    if path is None:
        return
    given = {name: str(value) for name, value in vars(flags).items() if value is not None}
    content = {"command": command, "arguments": given, "machine": system_info(device), **_jsonable(tables)}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}: the same figures")


def _jsonable(value: Any) -> Any:
    if isinstance(value, Quartiles):
        return value._asdict()
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, list) else value
