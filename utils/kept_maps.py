"""The attention maps of every epoch, small enough to keep them all: for the run's report.

attention/epoch-007.json: {"maps": [{"utterance", "characters", "seconds", "png"}, ...]}; the PNG, in base64, has a grey
pixel a cell, as many down as characters, as many across as encoder steps.
"""

import base64
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from utils.files import replacing
from utils.visualization import AttentionMap

LEVELS = 64  # of grey: as many as the eye tells apart, and half the bytes of 256
WIDEST = 500  # cells across that are kept; neighbours become one, the larger


def keep_maps(folder: Path, epoch: int, maps: Sequence[AttentionMap]) -> None:
    folder.mkdir(exist_ok=True)
    kept = [
        {
            "utterance": drawn.utterance,
            "characters": list(drawn.characters),
            "seconds": drawn.seconds,
            "png": base64.b64encode(_to_png(np.asarray(drawn.weights))).decode(),
        }
        for drawn in maps
    ]
    with replacing(folder / f"epoch-{epoch:03d}.json") as beside:
        beside.write_text(json.dumps({"maps": kept}), encoding="utf-8")


def _to_png(weights: np.ndarray) -> bytes:
    """Grey is the square root of the weight, so that a flat map is a faint grey and not black."""
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
    "epochs": [{"epoch", "png": [...]}], "of": epochs there are}`, of the utterances that were drawn last.
    """
    files = {int(path.stem.removeprefix("epoch-")): path for path in folder.glob("epoch-*.json")}
    epochs = sorted(files)
    every, sizes = 1, {epoch: files[epoch].stat().st_size for epoch in epochs}
    while True:
        chosen = {*epochs[::every], *epochs[-1:], *(epoch for epoch in always if epoch in files)}
        if every >= len(epochs) or sum(sizes[epoch] for epoch in chosen) <= budget:
            break
        every += 1
    utterances, kept = [], []
    for epoch in sorted(chosen, reverse=True):
        maps = json.loads(files[epoch].read_text(encoding="utf-8"))["maps"]
        described = [{key: drawn[key] for key in ("utterance", "characters", "seconds")} for drawn in maps]
        utterances = utterances or described
        if described == utterances:  # a resumed run may have another dev partition
            kept.append({"epoch": epoch, "png": [drawn["png"] for drawn in maps]})
    return {"utterances": utterances, "epochs": kept[::-1], "of": len(epochs)}
