"""What the three commands share: their arguments, their tables, and the same figures as JSON."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from benchmarks.measure import Range
from benchmarks.reference.speechbrain_las import why_missing
from benchmarks.shapes import Shape, parse_shape
from config import Config, load_config
from utils.device import choose_device, environment
from utils.errors import UserError

HOME = Path(__file__).parents[1]


class Arguments(NamedTuple):
    """What was asked for, checked. only: the contestants' names."""

    shape: Shape
    config: Config
    device: torch.device
    rounds: int
    seconds: float
    only: tuple[str, ...]
    json: Path | None
    given: argparse.Namespace  # as it was given, and what a command adds


def command_parser(description: str, contestants: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="kaggle", help="kaggle, an4, or B,T,D,U: batch, frames, features, tokens")
    parser.add_argument("--config", metavar="FILE", help="model and settings (default: configs/seed.yaml, or an4.yaml)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5, help="goes of each contestant (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each contestant (default: %(default)s)")
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of the contestants {', '.join(contestants)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def read_arguments(parser: argparse.ArgumentParser, contestants: Sequence[str]) -> Arguments:
    """Raises UserError that names the argument, what was found and what was expected."""
    given = parser.parse_args()
    only = tuple(contestants) if given.only is None else tuple(name.strip() for name in given.only.split(","))
    unknown = [name for name in only if name not in contestants]
    if unknown:
        raise UserError(f"--only: found {', '.join(map(repr, unknown))}, expected some of {', '.join(contestants)}")
    if given.rounds < 1:
        raise UserError(f"--rounds: found {given.rounds}, expected 1 or more")
    if not given.seconds > 0:
        raise UserError(f"--seconds: found {given.seconds}, expected a time above 0")
    check_writable("--json", given.json)
    shape = parse_shape(given.shape)
    config = load_config(given.config or HOME / shape.config)
    device = choose_device(given.device, "--device")
    return Arguments(shape, config, device, given.rounds, given.seconds, only, given.json, given)


def without_missing(arguments: Arguments) -> Arguments:
    """The same without SpeechBrain where it cannot be used, which is said."""
    missing = why_missing() if any(name.startswith("speechbrain") for name in arguments.only) else None
    if missing is None:
        return arguments
    print(missing)
    only = tuple(name for name in arguments.only if not name.startswith("speechbrain"))
    if not only:
        raise UserError("--only: found nothing else to measure")
    return arguments._replace(only=only)


def check_writable(argument: str, path: Path | None) -> None:
    """Before an hour of measuring, not after it."""
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.is_dir()):
        raise UserError(f"{argument}: {path}: cannot be written; expected a file in a folder that exists")


def machine(device: torch.device) -> dict[str, str | int]:
    """Commit, versions and hardware: what figures may depend on."""
    about = environment(device)
    found = {**about, "device": device.type, "hardware": about["device"]}
    return {**found, "cores": os.cpu_count() or 1, "threads": torch.get_num_threads()}


def introduce(arguments: Arguments, *lines: str) -> None:
    """What is measured, where and how, above the tables."""
    about = machine(arguments.device)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    shape = arguments.shape
    sizes = f"shape {shape.name}: {shape.feature_dim} features, {shape.batch_size} utterances a batch"
    print(sizes, *lines, sep="\n", flush=True)


def print_table(title: str, rows: Sequence[dict]) -> None:
    """Numbers as they are, (lower, median, upper) as median and quartiles, what cannot be told as -."""
    cells = [{column: _cell(value) for column, value in row.items()} for row in rows]
    print(f"\n{title}\n{pd.DataFrame(cells).fillna('-').to_string(index=False)}", flush=True)


def _cell(value: str | float | Range | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        lower, median, upper = map(_number, value)
        return f"{median} [{lower}, {upper}]"
    return _number(value)


def _number(value: float) -> str:
    if isinstance(value, int) or value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def write_json(arguments: Arguments, command: str, tables: dict) -> None:
    """The figures where they were asked for; a range becomes lower, median, upper."""
    write_tables(arguments.json, arguments.given, command, arguments.device, tables)


def write_tables(
    path: Path | None, given: argparse.Namespace, command: str, device: torch.device, tables: dict
) -> None:
    """The same of a command with arguments of its own."""
    if path is None:
        return
    named = {name: str(value) for name, value in vars(given).items() if value is not None}
    found = {"command": command, "arguments": named, "machine": machine(device), **_plain(tables)}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}: the same figures")


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return dict(zip(("lower", "median", "upper"), value, strict=True))
    return [_plain(item) for item in value] if isinstance(value, list) else value
