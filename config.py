"""Typed, frozen configuration.

`config.yaml` holds every key with its value and its meaning; the classes below hold the types. Another YAML file
(`--config`) and `key=value` arguments override values one by one; anything unknown or of a wrong type is refused.
Only the commands, and decoding.transcriber for Python, import this module: they hand plain values on. It imports
nothing heavy, so that --help and a misspelt key answer at once.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from utils.cli import describe_keys, read_key_comments
from utils.errors import UserError, explain_validation_error, nearest_key
from utils.files import NAME_RULE, flatten, is_name, parse_yaml

TUNED = "decoding.yaml"  # in a run's folder: the decoding weights that tune.py found
TRAINED = "config.yaml"  # in a run's folder: the settings that it was trained with
OF_THE_RUN = ("data.", "decoding.", "wandb.", "test.")  # what decoding takes from them: not the device
PACKS = "packed"  # in run.dir: the folder of packed features
DEFAULTS = Path(__file__).with_name("config.yaml")
# Bounds are what the code can honour. A model that memory has no room for is refused when its features are known.
Count = Annotated[int, Field(ge=0, le=10**6)]
Positive = Annotated[int, Field(ge=1, le=10**6)]
Size = Annotated[int, Field(ge=1, le=8192)]  # of a layer
Layers = Annotated[int, Field(ge=0, le=32)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, le=10**6)]
PositiveAmount = Annotated[float, Field(gt=0, le=10**6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]


def _check_name(name: str) -> str:
    if not is_name(name):
        raise ValueError(NAME_RULE)
    return name


def _check_run_name(name: str) -> str:
    if name.lower() == PACKS:
        raise ValueError(f"another name: {PACKS} holds the packed features of all runs")
    return name


def _check_columns(columns: Any) -> Any:
    names = columns if isinstance(columns, list) else []
    if columns != "auto" and (len(names) != 2 or not all(isinstance(name, str) and name for name in names)):
        raise ValueError("auto, or the names of two columns, such as [id, label]")
    return columns


Name = Annotated[str, AfterValidator(_check_name)]
Names = Annotated[
    list[Name], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RunConfig(Section):
    name: Annotated[Name, AfterValidator(_check_run_name)]
    dir: Text

    @property
    def path(self) -> Path:
        return Path(self.dir) / self.name

    @property
    def packs(self) -> Path:
        """Where `data.cache=mmap` keeps what all runs share."""
        return Path(self.dir) / PACKS


class TextConfig(Section):
    case: Literal["keep", "upper", "lower"]
    punctuation: Literal["keep", "remove"]


class DataConfig(Section):
    root: Text
    train: Names
    dev: Name
    test: Name
    vocabulary: Text
    units: Literal["character", "jamo"]
    text: TextConfig
    normalize: Literal["none", "mean", "mean_variance"]
    skip_bad: bool
    accept_changes: bool
    cache: Annotated[Literal["ram", "mmap", "off"], BeforeValidator(lambda value: "off" if value is False else value)]
    half_precision: bool
    workers: Annotated[int, Field(ge=0, le=256)]

    @model_validator(mode="after")
    def _partitions_differ(self) -> "DataConfig":
        twice = sorted({name for name in self.train if self.train.count(name) > 1})
        if twice:
            raise ValueError(f"data.train to name each partition once; found {', '.join(twice)} again")
        return self

    @model_validator(mode="after")
    def _kaggle_has_no_jamo(self) -> "DataConfig":
        if self.units == "jamo" and self.vocabulary == "kaggle":
            raise ValueError("data.vocabulary=auto, or a file, where data.units is jamo")
        return self

    @property
    def text_form(self) -> dict[str, str]:
        """Keyword arguments of `TextForm`."""
        return {"units": self.units, **self.text.model_dump()}


class AugmentConfig(Section):
    speed: Annotated[float, Field(ge=0, le=0.5)]
    vocal_tract: Annotated[float, Field(ge=0, le=0.5)]
    concatenate: Fraction
    from_epoch: Positive
    frequency_masks: Count
    frequency_width: Count
    time_masks: Count
    time_width: Count
    time_fraction: Fraction

    @property
    def utterance_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `Augmentation`: all but what the sampler draws."""
        return self.model_dump(exclude={"speed", "concatenate"})


class ConvConfig(Section):
    channels: Size
    kernel: Literal[1, 3, 5, 7, 9, 11]  # odd: the window is centred, and output lengths are exact
    stride: Annotated[int, Field(ge=1, le=16)]


class ListenerConfig(Section):
    conv: Annotated[list[ConvConfig], Field(max_length=16)]
    blstm_layers: Layers
    pblstm_layers: Annotated[int, Field(ge=0, le=8)]
    hidden: Size
    dropout: DropoutRate


class AttentionConfig(Section):
    kind: Literal["auto", "dot", "relative", "location"]
    heads: Size
    dim: Size

    @model_validator(mode="after")
    def _heads_share_dim(self) -> "AttentionConfig":
        if self.dim % self.heads:
            raise ValueError(f"model.attention.dim to be a multiple of model.attention.heads ({self.heads})")
        return self


class SpellerConfig(Section):
    embedding: Size
    hidden: Size
    layers: Annotated[int, Field(ge=1, le=32)]
    input_feeding: bool
    dropout: DropoutRate


class ModelConfig(Section):
    listener: ListenerConfig
    attention: AttentionConfig
    speller: SpellerConfig

    @model_validator(mode="after")
    def _attention_and_speller_fit(self) -> "ModelConfig":
        if self.attention.kind == "location" and not self.speller.input_feeding:
            raise ValueError("model.speller.input_feeding to be true where model.attention.kind is location")
        if self.attention.kind == "relative" and self.speller.input_feeding:
            raise ValueError("model.speller.input_feeding to be false where model.attention.kind is relative")
        return self


class StageConfig(Section):
    from_epoch: Positive
    factor: Fraction
    floor: Fraction


class TeacherForcingConfig(Section):
    start: Fraction
    stages: list[StageConfig]


class TrainingConfig(Section):
    epochs: Positive
    start_from: Text | None
    max_minutes: PositiveAmount | None
    batch_size: Positive
    accumulate: Positive
    checkpoint_minutes: PositiveAmount
    seed: Seed
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "float32", "bf16", "fp16"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    schedule: Literal["cosine", "plateau", "constant"]
    warmup_epochs: Amount
    plateau_patience: Positive
    clip_norm: PositiveAmount
    average_epochs: Amount
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    ctc_weight: Annotated[float, Field(ge=0, lt=1)]
    ctc_epochs: Count
    guided_attention: Amount
    expected_distance: Fraction
    teacher_forcing: TeacherForcingConfig

    @model_validator(mode="after")
    def _ctc_epochs_need_a_branch(self) -> "TrainingConfig":
        if self.ctc_epochs and not self.ctc_weight:
            raise ValueError(f"training.ctc_weight above 0 where training.ctc_epochs is {self.ctc_epochs}")
        return self


class DecodingConfig(Section):
    mode: Literal["greedy", "beam"]
    beam_size: Annotated[int, Field(ge=1, le=1024)]
    rank: Literal["likelihood", "mbr"]
    ctc_weight: Fraction
    lm_weight: Amount
    length_reward: Amount


class WandbConfig(Section):
    mode: Literal["auto", "online", "offline", "disabled"]
    project: Text
    group: Text | None


class TestConfig(Section):
    submission: Text
    columns: Annotated[Any, AfterValidator(_check_columns)]

    @property
    def header(self) -> list[str] | None:
        """The submission's columns; None: found in the data."""
        return None if self.columns == "auto" else list(self.columns)


class Config(Section):
    run: RunConfig
    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig
    training: TrainingConfig
    decoding: DecodingConfig
    wandb: WandbConfig
    test: TestConfig

    @model_validator(mode="after")
    def _relative_attention_is_aligned_by_ctc(self) -> "Config":
        if self.model.attention.kind == "relative" and not self.training.ctc_weight:
            raise ValueError("training.ctc_weight above 0 where model.attention.kind is relative")
        return self

    @property
    def model_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `LAS`, but for the feature dimension and the vocabulary's size."""
        settings, ctc = self.model.model_dump(), self.training.ctc_weight > 0
        if self.model.attention.kind == "auto":
            settings["attention"]["kind"] = "relative" if ctc and not self.model.speller.input_feeding else "dot"
        return {**settings, "ctc": ctc}

    @property
    def loading_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `load_corpus`: how features are read and cached."""
        data = self.data
        cache = {"cache": data.cache, "cache_folder": self.run.packs, "half": data.half_precision}
        return {**cache, "skip_bad": data.skip_bad}


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> dict[str, Any]:
    """Every dotted key with its type, sections left out."""
    keys: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys |= known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field.annotation
    return keys


def _is_section(key: str, keys: Collection[str]) -> bool:
    return any(known.startswith(f"{key}.") for known in keys)


def _check_keys(tree: Any, source: str, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values of a nested mapping. Raises UserError for a key that does not exist."""
    keys = known_keys()
    if not isinstance(tree, dict):
        inside = prefix.rstrip(".") or "the file"
        raise UserError(f"{source}: {inside}: found {tree!r}, expected a section of keys and values")
    flat: dict[str, Any] = {}
    problems = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in keys:
            flat[key] = value
        elif _is_section(key, keys):
            try:
                flat |= _check_keys(value, source, f"{key}.")
            except UserError as error:
                problems.append(str(error))
        else:
            problems.append(f"{source}: unknown key {key}{nearest_key(key, keys)}")
    if problems:
        raise UserError("\n       ".join(problems))
    return flat


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        there = sorted(str(each) for each in (*Path().glob("[!.]*.yaml"), *Path().glob("configs/*.yaml")))
        listed = f"; files that are there: {', '.join(there[:12])}" if there else ""
        raise UserError(f"{path}: found no such configuration file{listed}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration file ({error})") from None


def _read_file(path: str | Path) -> dict[str, Any]:
    text = _read_text(path)
    tab = next((number for number, line in enumerate(text.splitlines(), 1) if re.match(r" *\t", line)), None)
    try:
        tree = parse_yaml(text)
    except yaml.YAMLError as error:
        if tab is not None:
            raise UserError(f"{path}: line {tab}: found a tab before the text, expected spaces, as in YAML") from None
        reason = str(error).replace('in "<unicode string>", ', "in ")
        raise UserError(f"{path}: not valid YAML: {' '.join(reason.split())}") from None
    return _check_keys(tree or {}, str(path))


def _read_trained(path: Path) -> dict[str, Any]:
    """What a run was trained with, as far as its decoding wants it; keys of other versions are passed over."""
    try:
        tree = parse_yaml(_read_text(path))
        flat = {key: value for key, value in flatten(tree).items() if key.startswith(OF_THE_RUN)}
    except (yaml.YAMLError, AttributeError, TypeError):
        raise UserError(f"{path}: found no settings of a run, expected what train.py wrote there") from None
    flat = {key: value for key, value in flat.items() if key in known_keys()}
    submission = Path(str(flat.get("test.submission", "")))
    if submission.is_absolute() or ".." in submission.parts:  # the run may come from elsewhere
        del flat["test.submission"]
    return flat


def _read_override(argument: str) -> dict[str, Any]:
    """`key=value`, the value in YAML; a whole section takes a mapping: `model.speller={hidden: 64, layers: 1}`."""
    key, equals, text = argument.partition("=")
    key = key.strip()
    if not equals:
        named = f"; a file is named by --config {argument}" if argument.endswith((".yaml", ".yml")) else ""
        raise UserError(f"argument {argument!r}: expected key=value, such as training.epochs=3{named}")
    if get_origin(known_keys().get(key)) is list and "," in text and not text.strip().startswith("["):
        raise UserError(f"command line: {key}: found {text}, expected a list: {key}=[{text}]")
    try:
        tree = text if known_keys().get(key) is str else parse_yaml(text)
    except yaml.YAMLError:
        raise UserError(f"command line: {key}: found {text!r}, expected a value in YAML, such as [a, b]") from None
    for name in reversed(key.split(".")):
        tree = {name: tree}
    return _check_keys(tree, "command line")


def load_config(
    path: str | Path = DEFAULTS,
    overrides: Sequence[str] = (),
    tuned: Path | None = None,
    trained: Path | None = None,
    sources: dict[str, str] | None = None,
) -> Config:
    """`config.yaml`, overridden by `trained`, `path`, `tuned`, if there are such files, and by `key=value` arguments.

    Args:
        path: of a file with settings.
        overrides: from the command line.
        tuned: file with the decoding weights of a run.
        trained: file with the settings that a run was trained with; those that matter to its decoding are taken.
        sources: is filled with the file or command line that set each key, those that override others last.

    Raises:
        UserError: names the source, the key, what was found and what was expected.
    """
    layers, problems = [(str(DEFAULTS.name), _read_file(DEFAULTS))], []
    if trained is not None and trained.exists():
        layers.append((str(trained), _read_trained(trained)))
    if Path(path).resolve() != DEFAULTS:
        try:
            layers.append((str(path), _read_file(path)))
        except UserError as error:  # those of the command line are told with it
            problems.append(str(error))
    if tuned is not None and tuned.exists():
        weights = _read_file(tuned)
        others = [key for key in weights if not key.startswith("decoding.")]
        if others:
            raise UserError(
                f"{tuned}: found {', '.join(others[:5])}, expected keys of decoding alone, as tune.py writes"
            )
        layers.append((str(tuned), weights))
    for argument in overrides:
        try:
            layers.append(("command line", _read_override(argument)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n       ".join(problems))

    values: dict[str, Any] = {}
    sources = {} if sources is None else sources
    for source, flat in layers:
        values |= flat
        for key in flat:
            sources.pop(key, None)
            sources[key] = source

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
        raise UserError(
            "\n       ".join(explain_validation_error(problem, sources, DEFAULTS.name) for problem in error.errors())
        ) from None


def help_on_keys(matter: tuple[str, ...] = ()) -> str:
    """Keys with their defaults and meanings, for --help: all, or those that begin with one of `matter`."""
    _read_file(DEFAULTS)  # the message where it is no valid configuration
    keys = known_keys()
    described = read_key_comments(_read_text(DEFAULTS), lambda key: _is_section(key, keys))
    if not matter:
        return describe_keys(keys, described)
    chosen = [key for key in keys if key.startswith(matter)]
    return f"{describe_keys(chosen, described)}\n\npython train.py --help lists all keys"
