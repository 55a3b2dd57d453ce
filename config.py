"""Typed, frozen configuration.

`config.yaml` holds every key with its value and its meaning; the classes below hold the types. Another YAML file
(`--config`) and `key=value` arguments override values one by one; anything unknown or of a wrong type is refused.
Only the commands import this module: they hand plain values on.
"""

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from utils.cli import HELP_WIDTH, describe_command, describe_keys
from utils.errors import UserError

TUNED = "decoding.yaml"  # in a run's folder: the decoding weights that tune.py found
OVERRIDE = r"^[a-z_.]+="
DEFAULTS = Path(__file__).with_name("config.yaml")

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
OneOrMany = Annotated[
    list[Text], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    dir: Text

    @property
    def path(self) -> Path:
        return Path(self.dir) / self.name

    @property
    def packs(self) -> Path:
        """Where `data.cache=mmap` keeps what all runs share."""
        return Path(self.dir) / "packed"


class Data(Section):
    root: Text
    train: OneOrMany
    dev: Text
    test: Text
    normalize: Literal["none", "mean", "mean_variance"]
    skip_bad: bool
    cache: Annotated[Literal["ram", "mmap", "off"], BeforeValidator(lambda value: "off" if value is False else value)]
    half_precision: bool
    workers: Count


class Augment(Section):
    speed: Annotated[float, Field(ge=0, le=0.5)]
    vocal_tract: Annotated[float, Field(ge=0, le=0.5)]
    from_epoch: Positive
    frequency_masks: Count
    frequency_width: Count
    time_masks: Count
    time_width: Count
    time_fraction: Fraction

    @property
    def of_utterances(self) -> dict[str, float]:
        """All but the speed, which the sampler draws."""
        return self.model_dump(exclude={"speed"})


class Conv(Section):
    channels: Positive
    kernel: Literal[1, 3, 5, 7, 9, 11]  # odd: the window is centred, and output lengths are exact
    stride: Positive


class Listener(Section):
    conv: list[Conv]
    blstm_layers: Count
    pblstm_layers: Count
    hidden: Positive
    dropout: DropoutRate


class Attention(Section):
    kind: Literal["dot", "location"]
    heads: Positive
    dim: Positive

    @model_validator(mode="after")
    def _heads_share_dim(self) -> "Attention":
        if self.dim % self.heads:
            raise ValueError(f"model.attention.dim to be a multiple of model.attention.heads ({self.heads})")
        return self


class Speller(Section):
    embedding: Positive
    hidden: Positive
    layers: Positive
    input_feeding: bool
    dropout: DropoutRate


class Model(Section):
    listener: Listener
    attention: Attention
    speller: Speller

    @model_validator(mode="after")
    def _location_needs_the_step_before(self) -> "Model":
        if self.attention.kind == "location" and not self.speller.input_feeding:
            raise ValueError("model.attention.kind to be dot where model.speller.input_feeding is false")
        return self


class Stage(Section):
    from_epoch: Positive
    factor: Fraction
    floor: Fraction


class TeacherForcing(Section):
    start: Fraction
    stages: list[Stage]


class Training(Section):
    epochs: Positive
    start_from: Text | None
    max_minutes: Annotated[float, Field(gt=0)] | None
    batch_size: Positive
    accumulate: Positive
    checkpoint_minutes: Annotated[float, Field(gt=0)]
    seed: Count
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bf16"]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "plateau", "constant"]
    warmup_epochs: Annotated[float, Field(ge=0)]
    plateau_patience: Positive
    clip_norm: Annotated[float, Field(gt=0)]
    average_epochs: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    ctc_weight: Annotated[float, Field(ge=0, lt=1)]
    ctc_epochs: Count
    guided_attention: Annotated[float, Field(ge=0)]
    teacher_forcing: TeacherForcing

    @model_validator(mode="after")
    def _ctc_epochs_need_a_branch(self) -> "Training":
        if self.ctc_epochs and not self.ctc_weight:
            raise ValueError(f"training.ctc_weight above 0 where training.ctc_epochs is {self.ctc_epochs}")
        return self


class Decoding(Section):
    mode: Literal["greedy", "beam"]
    beam_size: Positive
    rank: Literal["likelihood", "mbr"]
    ctc_weight: Fraction
    lm_weight: Annotated[float, Field(ge=0)]
    length_reward: Annotated[float, Field(ge=0)]


class Wandb(Section):
    mode: Literal["auto", "online", "offline", "disabled"]
    project: Text
    group: Text | None


class Test(Section):
    submission: Text


class Config(Section):
    run: Run
    data: Data
    augment: Augment
    model: Model
    training: Training
    decoding: Decoding
    wandb: Wandb
    test: Test

    @property
    def reading(self) -> dict[str, Any]:
        """How features are read and kept, as `load_corpus` takes it."""
        data = self.data
        cache = {"cache": data.cache, "cache_folder": self.run.packs, "half": data.half_precision}
        return {**cache, "skip_bad": data.skip_bad}


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as the number it is (YAML 1.1 takes it for text)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def to_yaml(settings: dict) -> str:
    return yaml.dump(settings, sort_keys=False, default_flow_style=None, allow_unicode=True)


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> dict[str, Any]:
    """Every dotted key with its type, sections left out."""
    keys = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys |= known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field.annotation
    return keys


def _check_keys(tree: Any, source: str, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values of a nested mapping. Raises UserError for a key that does not exist."""
    keys = known_keys()
    if not isinstance(tree, dict):
        inside = f"{prefix.rstrip('.')}" if prefix else "the file"
        raise UserError(f"{source}: {inside}: found {tree!r}, expected a section of keys and values")
    flat = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in keys:
            flat[key] = value
        elif any(known.startswith(key + ".") for known in keys):
            flat |= _check_keys(value, source, key + ".")
        else:
            raise UserError(f"{source}: unknown key {key}{_nearest(key, keys)}")
    return flat


def _nearest(key: str, keys: Sequence[str]) -> str:
    """The known key most like `key`: by its whole name, else by its last part."""
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if not nearest:
        by_leaf = {known.rsplit(".", 1)[-1]: known for known in keys}
        leaves = difflib.get_close_matches(key.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.6)
        nearest = [by_leaf[leaf] for leaf in leaves]
    return f"; did you mean {nearest[0]}?" if nearest else "; python train.py --help lists all keys"


def _read_file(path: str | Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration file ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return _check_keys(tree or {}, str(path))


def _read_override(argument: str) -> dict[str, Any]:
    """`key=value`, the value in YAML; a whole section takes a mapping: `model.speller={hidden: 64, layers: 1}`."""
    key, equals, text = argument.partition("=")
    key = key.strip()
    if not equals:
        raise UserError(f"argument {argument!r}: expected key=value, such as training.epochs=3")
    try:
        tree = text if known_keys().get(key) is str else parse_yaml(text)
    except yaml.YAMLError:
        raise UserError(f"command line: {key}: found {text!r}, expected a value in YAML, such as [a, b]") from None
    for name in reversed(key.split(".")):
        tree = {name: tree}
    return _check_keys(tree, "command line")


def load_config(path: str | Path = DEFAULTS, overrides: Sequence[str] = (), tuned: Path | None = None) -> Config:
    """`config.yaml`, overridden by `path`, by `tuned` where there is such a file, and by `key=value` arguments.

    Raises UserError that names the source, the key, what was found and what was expected.
    """
    layers = [(str(DEFAULTS.name), _read_file(DEFAULTS))]
    if Path(path).resolve() != DEFAULTS:
        layers.append((str(path), _read_file(path)))
    if tuned is not None and tuned.exists():
        layers.append((str(tuned), _read_file(tuned)))
    layers += [("command line", _read_override(argument)) for argument in overrides]

    values, sources = {}, {}
    for source, flat in layers:
        values |= flat
        sources |= dict.fromkeys(flat, source)

    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n       ".join(_explain(problem, sources) for problem in error.errors())) from None


def _explain(problem: dict[str, Any], sources: dict[str, str]) -> str:
    key = ".".join(map(str, problem["loc"]))
    source = next((sources[known] for known in sources if key == known or key.startswith(known + ".")), DEFAULTS.name)
    if problem["type"] == "missing":
        return f"{source}: {key} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{source}: unknown key {key}"
    expected = problem["msg"]
    for opening in ("Input should be ", "a valid ", "Value error, "):
        expected = expected.removeprefix(opening)
    found = "" if isinstance(problem["input"], dict) else f"found {problem['input']!r}, "
    return f"{source}: {key}: {found}expected {expected}"


def command_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that train.py and test.py share."""
    parser = argparse.ArgumentParser(
        description=describe_command(description),
        epilog=describe_keys(DEFAULTS),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=HELP_WIDTH),
    )
    parser.add_argument(
        "--config", default=str(DEFAULTS), metavar="FILE", help="YAML file whose values override config.yaml's"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override keys: training.epochs=3")
    return parser


def check_data_root(config: Config) -> None:
    """Raises UserError where the data is not there, but was elsewhere when the run was trained."""
    trained, now = config.run.path / "config.yaml", config.data.root
    if Path(now).is_dir() or not trained.exists():
        return
    before = parse_yaml(trained.read_text(encoding="utf-8"))["data"]["root"]
    if before != now:
        raise UserError(
            f"data.root: found no folder {now}; {config.run.path} was trained with data.root={before}: repeat the "
            "--config and the keys of its training"
        )


def parse_decoding_arguments(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Config, list[Path]]:
    """What test.py and tune.py share: the arguments, the configuration and the checkpoints to decode with."""
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="FILE", help="default: best.pt of the run")
    args = parser.parse_intermixed_args()
    # --checkpoint and --audio take all that follows them: what looks like key=value there is an override.
    more = []
    for name in ("checkpoint", "audio"):
        given = getattr(args, name, [])
        more += [text for text in given if re.match(OVERRIDE, text)]
        setattr(args, name, [text for text in given if not re.match(OVERRIDE, text)])
    overrides = [*args.overrides, *more]
    folder = load_config(args.config, overrides).run.path
    config = load_config(args.config, overrides, tuned=folder / TUNED)
    return args, config, [Path(text) for text in args.checkpoint] or [folder / "best.pt"]
