"""How features were computed from speech: kept beside a corpus, carried into checkpoints, needed to hear recordings."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from utils.errors import UserError
from utils.files import replacing

FILE = "features.json"  # in a corpus's folder


@dataclass(frozen=True)
class Recipe:
    """Log mel energies, or cepstra of them (MFCC); the defaults are the competition's: 28 bands, 25 ms every 10 ms.

    bands: mel bands from `lowest` to `highest` Hz.   cepstra: how many of them are kept; 0: the bands themselves.
    rate: samples a second, to which all speech is resampled.   window, hop, fft: in samples.
    """

    bands: int = 28
    cepstra: int = 0
    lowest: float = 0.0
    highest: float = 8000.0
    rate: int = 16_000
    window: int = 400
    hop: int = 160
    fft: int = 400

    @property
    def dim(self) -> int:
        return self.cepstra or self.bands

    def __str__(self) -> str:
        kind = f"{self.cepstra} cepstra of {self.bands} mel bands" if self.cepstra else f"{self.bands} log mel bands"
        milliseconds = (1000 * samples / self.rate for samples in (self.window, self.hop))
        window, hop = (f"{length:g} ms" for length in milliseconds)
        return f"{kind}, {self.lowest:g} to {self.highest:g} Hz, {window} windows every {hop}, at {self.rate:,} Hz"


def parse_recipe(found: object, source: str) -> Recipe:
    """A recipe from what JSON or a checkpoint holds. Raises UserError that names `source` and the entry."""
    if not isinstance(found, dict):
        raise UserError(f"{source}: found {str(found)[:80]!r}, expected a feature recipe: names and numbers")
    # Before there were cepstra the kind had a name of its own.
    entries = {name: value for name, value in found.items() if (name, value) != ("kind", "log mel")}
    known = {field.name: field.type for field in fields(Recipe)}
    for name, value in entries.items():
        if name not in known:
            raise UserError(f"{source}: found {name!r}, expected a recipe of {', '.join(known)}")
        whole = known[name] is int
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        least = 0 if name in ("cepstra", "lowest") else 1
        if not fits or not least <= value <= 1_000_000:
            kind = "a whole number" if whole else "a number"
            raise UserError(f"{source}: {name}: found {str(value)[:40]!r}, expected {kind} from {least} to 1,000,000")
    recipe = Recipe(**{name: known[name](value) for name, value in entries.items()})
    in_order = recipe.lowest < recipe.highest <= recipe.rate / 2 and recipe.cepstra <= recipe.bands
    if not in_order or not recipe.hop <= recipe.window <= recipe.fft <= 8192 or recipe.bands > recipe.fft:
        raise UserError(
            f"{source}: found {recipe}, expected lowest < highest <= rate / 2, cepstra <= bands <= fft and "
            "hop <= window <= fft"
        )
    return recipe


def read_recipe(root: str | Path) -> Recipe | None:
    """The recipe of the corpus in folder `root`; None where it has none, as the competition's data."""
    path = Path(root) / FILE
    try:
        return parse_recipe(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a feature recipe ({error}); expected JSON") from None


def keep_recipe(root: Path, recipe: Recipe) -> None:
    """Writes the recipe of a corpus that is being made. Raises UserError where `root` holds features of another."""
    before = read_recipe(root)
    if before == recipe:
        return
    if before is not None:
        was, now = asdict(before), asdict(recipe)
        differ = "; ".join(f"{name}: was {was[name]:g}, is now {now[name]:g}" for name in now if was[name] != now[name])
        raise UserError(f"{root / FILE}: the features there are of another recipe ({differ}); choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    with replacing(root / FILE) as beside:
        beside.write_text(json.dumps(asdict(recipe)) + "\n", encoding="utf-8")


def recipe_to_train_on(root: str | Path, dim: int, before: Recipe | None) -> Recipe | None:
    """The recipe of corpus `root`, whose files have `dim` features; None where it is unknown.

    before: of the run that is resumed. Raises UserError where one is not that of the other.
    """
    recipe, path = read_recipe(root), Path(root) / FILE
    if recipe and recipe.dim != dim:
        raise UserError(
            f"{path}: found {recipe}, expected {dim} features a frame, as the files beside it have; remove it if "
            "it is not theirs"
        )
    if recipe and before and recipe != before:
        raise UserError(f"{path}: found {recipe}, expected {before}, which the run was trained on so far")
    return recipe or before


@dataclass(frozen=True)
class FeatureFormat:
    """What a model must know of its features; it travels in the checkpoint."""

    dim: int
    time_first: bool  # stored as (T, D); else as (D, T), the way F24 ships them
    normalize: str  # none, mean, mean_variance
