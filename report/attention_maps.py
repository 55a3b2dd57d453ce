"""Pictures of attention: characters down, seconds across. A model that reads along shows a diagonal."""

import base64
import io
import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from report.fonts import lettering
from training.evaluate import AttentionMap
from utils.files import atomic_write
from utils.logging import printable

INCHES_PER_CHARACTER, POINTS = 0.115, 7
WIDE = 1.4  # times as large are letters with many strokes, such as Hangul
SCALE = PowerNorm(0.5, 0, 1)  # one for all maps; square root, so that weights spread over many steps are not all black
TICKS = (0, 0.05, 0.2, 0.5, 1)


def _draw(axes, attention: AttentionMap, title: str) -> None:
    U = len(attention.characters)
    axes.imshow(
        attention.weights,
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        norm=SCALE,
        extent=(0, attention.seconds, U - 0.5, -0.5),
    )
    fonts = lettering([*attention.characters, title])
    labels = [fonts.label(character) for character in attention.characters]
    axes.set_yticks(range(U), labels, fontsize=POINTS * _enlarged([attention]), family=fonts.families)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.set_xlabel("seconds")
    axes.set_title(fonts.text(printable(title)), fontsize=9, family=fonts.families[1:], parse_math=False)


def _enlarged(maps: Sequence[AttentionMap]) -> float:
    letters = "".join(letter for attention in maps for letter in attention.characters)
    return WIDE if any(unicodedata.east_asian_width(letter) in "WF" for letter in letters) else 1.0


def _figure(panels: int, maps: Sequence[AttentionMap]) -> tuple[Figure, Sequence]:
    characters = max(len(attention.characters) for attention in maps)
    height = min(max(3.0, characters * INCHES_PER_CHARACTER * _enlarged(maps) + 1.0), 24.0)
    figure = Figure(figsize=(4.8 * panels, height), dpi=100, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _finish(path: Path, figure: Figure, axes: Sequence, title: str) -> None:
    """Adds the colour bar of all panels and the title, and writes the picture."""
    bar = figure.colorbar(axes[0].images[0], ax=list(axes), fraction=0.03, pad=0.02, aspect=30, ticks=TICKS)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("attention weight", fontsize=8)
    fonts = lettering([title])
    figure.suptitle(fonts.text(printable(title)), fontsize=10, family=fonts.families[1:], parse_math=False)
    figure.savefig(path)


def save_attention_maps(path: Path, maps: Sequence[AttentionMap], title: str) -> None:
    """Draws one panel per utterance, side by side, as PNG."""
    figure, axes = _figure(len(maps), maps)
    for panel, attention in zip(axes, maps, strict=True):
        _draw(panel, attention, attention.utterance)
    _finish(path, figure, axes, title)


def save_first_and_best(path: Path, first: AttentionMap, best: AttentionMap, titles: Sequence[str]) -> None:
    """Draws the same utterance after the first epoch and after the best one, as PNG."""
    figure, axes = _figure(2, [best])
    for panel, attention, title in zip(axes, (first, best), titles, strict=True):
        _draw(panel, attention, title)
    _finish(path, figure, axes, best.utterance)


def picture_of(folder: Path, epoch: int) -> Path:
    """Path of the picture that `draw_epoch` draws of an epoch."""
    return folder / f"epoch-{epoch:03d}.png"


def first_and_best(folder: Path) -> Path:
    """Path of the picture that `draw_epoch` draws of the first epoch and the best."""
    return folder / "first-and-best.png"


def draw_epoch(
    folder: Path, epoch: int, maps: Sequence[AttentionMap], row: dict, is_best: bool, distances: Mapping[str, int]
) -> None:
    """Draws the maps of one epoch, and of the first and the best epoch side by side.

    Args:
        folder: for the pictures.
        epoch: from 1.
        maps: attention of the utterances that are drawn every epoch.
        row: metrics of the epoch.
        is_best: whether no epoch was better so far.
        distances: of the utterances, each its own, in that epoch.
    """
    folder.mkdir(exist_ok=True)
    title = f"epoch {epoch}: distance {row['dev_distance']:.2f}, monotonicity {row['dev_monotonicity']:.2f}"
    save_attention_maps(picture_of(folder, epoch), maps, title)
    middle, first = maps[len(maps) // 2], folder / "first-epoch.npz"
    own = distances[middle.utterance]
    if epoch == 1:
        np.savez_compressed(first, weights=middle.weights, own_distance=own)
    if is_best and first.exists():
        with np.load(first, allow_pickle=False) as kept:
            before = AttentionMap(middle.utterance, middle.characters, kept["weights"], middle.seconds)
            # Older versions kept the mean over dev instead.
            then = f", distance {int(kept['own_distance'])}" if "own_distance" in kept else ""
        titles = [f"epoch 1{then}", f"epoch {epoch}, distance {own}"]
        save_first_and_best(first_and_best(folder), before, middle, titles)


LEVELS = 64  # of grey: as many as the eye tells apart, and half the bytes of 256
WIDEST = 500  # cells across that are kept; neighbours become one, the larger


def keep_maps(folder: Path, epoch: int, maps: Sequence[AttentionMap], distances: Mapping[str, int]) -> None:
    """Stores the maps of an epoch for the page: epoch-007.json, with a small grey PNG, in base64, for each."""
    folder.mkdir(exist_ok=True)
    kept = [
        {
            "utterance": drawn.utterance,
            "characters": list(drawn.characters),
            "seconds": drawn.seconds,
            "distance": distances[drawn.utterance],
            "png": base64.b64encode(_to_png(np.asarray(drawn.weights))).decode(),
        }
        for drawn in maps
    ]
    with atomic_write(folder / f"epoch-{epoch:03d}.json") as temporary:
        temporary.write_text(json.dumps({"maps": kept}), encoding="utf-8")


def _to_png(weights: np.ndarray) -> bytes:
    """A PNG with a pixel per cell; grey is the square root of the weight, so that a flat map is grey and not black."""
    U, S = weights.shape
    joined = -(-S // WIDEST)
    weights = np.pad(weights, ((0, 0), (0, -S % joined))).reshape(U, -1, joined).max(2)
    grey = np.round(np.sqrt(weights.clip(0, 1)) * (LEVELS - 1)) * (255 / (LEVELS - 1))
    file = io.BytesIO()
    Image.fromarray(np.round(grey).astype(np.uint8)).save(file, "PNG", optimize=True)
    return file.getvalue()


def kept_maps(folder: Path, budget: int, always: Collection[int] = ()) -> dict:
    """The maps in `folder` of as many epochs as `budget` bytes have room for, evenly spread.

    always: epochs that are not left out.   Returns `{"utterances": [{"utterance", "characters", "seconds"}],
    "epochs": [{"epoch", "png": [...], "distance": [...]}], "of": epochs there are}`, of the utterances that were drawn
    last. A distance is that of the utterance in the epoch, or None where an older version has not kept it.
    """
    files = {int(path.stem.removeprefix("epoch-")): path for path in folder.glob("epoch-*.json")}
    epochs = sorted(files)
    every, sizes = 1, {epoch: files[epoch].stat().st_size for epoch in epochs}
    while True:
        chosen = {*epochs[::every], *epochs[-1:], *(epoch for epoch in always if epoch in files)}
        if every >= len(epochs) or sum(sizes[epoch] for epoch in chosen) <= budget:
            break
        every += 1
    utterances: list[dict] = []
    kept = []
    for epoch in sorted(chosen, reverse=True):
        maps = json.loads(files[epoch].read_text(encoding="utf-8"))["maps"]
        described = [{key: drawn[key] for key in ("utterance", "characters", "seconds")} for drawn in maps]
        utterances = utterances or described
        if described == utterances:  # a resumed run may have another dev partition
            own = [drawn.get("distance") for drawn in maps]
            kept.append({"epoch": epoch, "png": [drawn["png"] for drawn in maps], "distance": own})
    return {"utterances": utterances, "epochs": kept[::-1], "of": len(epochs)}
