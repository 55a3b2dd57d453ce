"""Command lines of train.py, tune.py and test.py; imports nothing heavy, so that --help answers at once."""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from config import DEFAULTS, OF_THE_RUN, TRAINED, TUNED, Config, help_on_keys, known_keys, load_config
from utils.cli import CommandParser, is_override
from utils.errors import UserError
from utils.files import flatten

# Keys that decoding reads, the first words of their names; all others are the model's, or of its training.
READING = ("data.root", "data.skip_bad", "data.cache", "data.half_precision", "training.device", "training.precision")


def command_parser(docstring: str, matter: tuple[str, ...] = ()) -> CommandParser:
    """A parser whose help lists, after all options, the keys that begin with one of `matter`: without any, all keys."""
    return CommandParser(docstring, lambda: help_on_keys(matter))


def _add_settings(parser: CommandParser, example: str) -> None:
    """What all commands share, below a command's own options."""
    settings = parser.add_argument_group("settings")
    settings.add_argument(
        "--config", default=str(DEFAULTS), metavar="FILE", help="YAML file whose values override config.yaml's"
    )
    settings.add_argument("overrides", nargs="*", metavar="key=value", help=f"override keys: {example}")


class TrainingArguments(NamedTuple):
    """A command line of train.py: the configuration, and the file or command line that set each key."""

    config: Config
    sources: dict[str, str]


def parse_training_arguments(docstring: str) -> TrainingArguments:
    """The configuration that train.py's command line asks for."""
    parser = command_parser(docstring)
    _add_settings(parser, "training.epochs=3")
    flags, sources = _parse(parser), dict[str, str]()
    return TrainingArguments(load_config(flags.config, flags.overrides, sources=sources), sources)


def _parse(parser: CommandParser) -> argparse.Namespace:
    for argument in sys.argv[1:]:
        key, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and "." in key and (equals or key in known_keys()):
            parser.error(f"found {argument}, expected {key}={value or 'VALUE'}: keys are set without dashes")
    return parser.parse_intermixed_args()


def _no_run(folder: Path) -> str:
    """The message on an argument that is neither an override nor a folder."""
    if folder.is_file():
        flag = "--config" if folder.suffix in (".yaml", ".yml") else "--checkpoint"
        return f"{folder}: found a file, expected the folder of a run, or key=value; a file is named by {flag} {folder}"
    runs = sorted(str(path.parent) for path in folder.parent.glob(f"*/{TRAINED}"))
    listed = f"; runs that are there: {', '.join(runs[:12])}" if runs else ""
    return f"{folder}: found no such folder, expected that of a run, or key=value{listed}"


class DecodingArguments(NamedTuple):
    """A command line of test.py or tune.py: its flags, the configuration, the checkpoints to decode with, and the file
    or command line that set each key."""

    flags: argparse.Namespace
    config: Config
    checkpoints: list[Path]
    sources: dict[str, str]


def parse_decoding_arguments(parser: CommandParser) -> DecodingArguments:
    """Parses what test.py and tune.py share, besides the flags that `parser` has already.

    They start from the settings that the run was trained with. Which run: run.name, a folder among the arguments, or
    that of a single checkpoint. A file given by --config, tuned weights and the command line come after, in this order.
    """
    named = "or folders of runs (default: best.pt of the run)"
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="FILE", help=named)
    _add_settings(parser, "run.name=demo; runs/demo, the folder of a run, names it too")
    flags, sources = _parse(parser), dict[str, str]()
    # --checkpoint and --audio take all that follows them: what looks like key=value there is an override.
    more: list[str] = []
    for name in ("checkpoint", "audio"):
        given = getattr(flags, name, [])
        more += filter(is_override, given)
        setattr(flags, name, [argument for argument in given if not is_override(argument)])
    overrides = [*flags.overrides, *more]
    flags.checkpoint = [str(path / "best.pt" if path.is_dir() else path) for path in map(Path, flags.checkpoint)]
    folders = [Path(text) for text in overrides if not is_override(text) and Path(text).is_dir()]
    for text in overrides:
        if "=" not in text and text not in known_keys() and not Path(text).is_dir():
            raise UserError(_no_run(Path(text)))
    if len(folders) > 1:
        models = " ".join(str(folder / "best.pt") for folder in folders)
        raise UserError(f"found {len(folders)} runs, expected one; several as an ensemble: --checkpoint {models}")
    if folders:  # test.py runs/demo
        (folder,) = folders
        overrides.remove(str(folder) if str(folder) in overrides else next(t for t in overrides if Path(t) == folder))
        overrides += [f"run.dir={folder.absolute().parent}", f"run.name={folder.absolute().name}"]
    flags.named = any(text.startswith("run.") for text in overrides)
    if len(flags.checkpoint) == 1 and not flags.named and Path(flags.checkpoint[0]).with_name(TRAINED).exists():
        folder = Path(flags.checkpoint[0]).parent.absolute()
        overrides += [f"run.dir={folder.parent}", f"run.name={folder.name}"]
    folder = load_config(flags.config, overrides).run.path
    trained = folder / TRAINED
    if len(flags.checkpoint) > 1 and not flags.named:  # of no single run: the data is that of the first
        trained = Path(flags.checkpoint[0]).with_name(TRAINED)
    config = load_config(flags.config, overrides, folder / TUNED, trained, sources)
    flags.changes = ""
    if flags.config != str(DEFAULTS) and trained.exists():
        before = flatten(load_config(DEFAULTS, overrides, folder / TUNED, trained).model_dump())
        now = flatten(config.model_dump())
        differ = [key for key in now if key.startswith(OF_THE_RUN) and now[key] != before[key]]
        flags.changes = ", ".join(f"{key} {before[key]} -> {now[key]}" for key in differ)
    checkpoints = [Path(text) for text in flags.checkpoint] or [folder / "best.pt"]
    return DecodingArguments(flags, config, checkpoints, sources)
