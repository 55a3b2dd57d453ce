"""How features are computed from speech (`FeatureConfig`) and how they are stored (`FeatureFormat`).

A corpus that this project made carries its feature configuration in `features.json`; checkpoints trained on it carry it
on, because recordings can only be transcribed with the features that the model was trained on.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.failures import SHORTAGES
from utils.files import atomic_write

FILE = "features.json"  # in a corpus's folder
LARGEST = 1_000_000  # of any entry
LARGEST_FFT = 8192
OLD_NAMES = {  # in files and checkpoints written before these had the names of torchaudio's arguments
    "bands": "n_mels",
    "cepstra": "n_mfcc",
    "lowest": "f_min",
    "highest": "f_max",
    "rate": "sample_rate",
    "window": "win_length",
    "hop": "hop_length",
    "fft": "n_fft",
}


@dataclass(frozen=True)
class FeatureConfig:
    """Log mel energies, or cepstral coefficients of them (MFCC). The names are those of torchaudio's transforms.

    The defaults are the competition's features: 28 log mel bands in windows of 25 ms every 10 ms.
    """

    n_mels: int = 28
    n_mfcc: int = 0  # coefficients that are kept; 0: the log mel energies themselves
    f_min: float = 0.0  # Hz, lower edge of the lowest band
    f_max: float = 8000.0  # Hz, upper edge of the highest band
    sample_rate: int = 16_000  # Hz, to which all speech is resampled
    win_length: int = 400  # samples
    hop_length: int = 160  # samples
    n_fft: int = 400  # samples, the window padded

    @property
    def dim(self) -> int:
        """Feature dimension `D`."""
        return self.n_mfcc or self.n_mels

    def __str__(self) -> str:
        kind = f"{self.n_mfcc} cepstra of {self.n_mels} mel bands" if self.n_mfcc else f"{self.n_mels} log mel bands"
        window, hop = (f"{1000 * samples / self.sample_rate:g} ms" for samples in (self.win_length, self.hop_length))
        return f"{kind}, {self.f_min:g} to {self.f_max:g} Hz, {window} windows every {hop}, at {self.sample_rate:,} Hz"


@dataclass(frozen=True)
class FeatureFormat:
    """How a corpus stores its features and how they are normalised: what a model must be given."""

    dim: int
    time_first: bool  # stored as (T, D); else as (D, T), as F24 ships them
    normalize: str  # none, mean, mean_variance


def parse_feature_config(found: object, source: str) -> FeatureConfig:
    """A feature configuration from what a JSON file or a checkpoint holds; entries left out have their defaults.

    Args:
        found: a mapping of names to numbers, by today's names or by those of OLD_NAMES.
        source: where it was found, for messages.

    Raises:
        UserError: names `source`, the entry, what was found and what was expected.
    """
    if not isinstance(found, dict):
        raise UserError(f"{source}: found {str(found)[:80]!r}, expected a feature configuration: names and numbers")
    # Before there were cepstra the kind was an entry of its own.
    entries = {
        OLD_NAMES.get(str(name), str(name)): value
        for name, value in found.items()
        if (name, value) != ("kind", "log mel")
    }
    known: dict[str, Callable[[Any], Any]] = {field.name: type(field.default) for field in fields(FeatureConfig)}
    for name, value in entries.items():
        if name not in known:
            raise UserError(f"{source}: found {name!r}, expected a feature configuration of {', '.join(known)}")
        integral = known[name] is int
        fits = isinstance(value, int if integral else (int, float)) and not isinstance(value, bool)
        least = 0 if name in ("n_mfcc", "f_min") else 1
        if not fits or not least <= value <= LARGEST:
            kind = "an integer" if integral else "a number"
            raise UserError(f"{source}: {name}: found {str(value)[:40]!r}, expected {kind} from {least} to {LARGEST:,}")
    config = FeatureConfig(**{name: known[name](value) for name, value in entries.items()})
    frequencies_fit = config.f_min < config.f_max <= config.sample_rate / 2 and config.n_mfcc <= config.n_mels
    lengths_fit = config.hop_length <= config.win_length <= config.n_fft <= LARGEST_FFT
    if not frequencies_fit or not lengths_fit or config.n_mels > config.n_fft:
        raise UserError(
            f"{source}: found {config}, expected f_min < f_max <= sample_rate / 2, n_mfcc <= n_mels <= n_fft and "
            "hop_length <= win_length <= n_fft"
        )
    return config


def read_feature_config(root: str | Path) -> FeatureConfig | None:
    """The feature configuration of the corpus in folder `root`; None if it has none, as the competition's data.

    Raises:
        UserError: the file is there but cannot be used.
    """
    path = Path(root) / FILE
    try:
        return parse_feature_config(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno in SHORTAGES:  # the file is not to blame
            raise
        raise UserError(f"{path}: cannot be read as a feature configuration ({error}); expected JSON") from None


def write_feature_config(root: Path, config: FeatureConfig) -> None:
    """Writes the feature configuration of a corpus that is being made in folder `root`.

    Raises:
        UserError: `root` already holds features of another configuration.
    """
    before = read_feature_config(root)
    if before == config:
        return
    if before is not None:
        was, now = asdict(before), asdict(config)
        differ = "; ".join(f"{name}: was {was[name]:g}, is now {now[name]:g}" for name in now if was[name] != now[name])
        raise UserError(
            f"{root / FILE}: the features there were computed differently ({differ}); choose another folder"
        )
    root.mkdir(parents=True, exist_ok=True)
    with atomic_write(root / FILE) as temporary:
        temporary.write_text(json.dumps(asdict(config)) + "\n", encoding="utf-8")


def training_feature_config(root: str | Path, dim: int, before: FeatureConfig | None) -> FeatureConfig | None:
    """The feature configuration to train with; None if it is unknown.

    Args:
        root: folder of the corpus.
        dim: feature dimension of the corpus's files.
        before: the feature configuration of the run that is resumed, if any.

    Raises:
        UserError: the corpus's configuration contradicts its files or the resumed run.
    """
    config, path = read_feature_config(root), Path(root) / FILE
    if config and config.dim != dim:
        raise UserError(
            f"{path}: found {config}, expected {dim} features per frame, as the files beside it have; remove it if it "
            "does not belong to them"
        )
    if config and before and config != before:
        raise UserError(f"{path}: found {config}, expected {before}, which the run was trained on so far")
    return config or before
