"""Pictures of transcribed recordings: words, features and attention over one time axis."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from decoding.recordings import Recording
from utils.errors import UserError
from utils.features import FeatureConfig

INCHES_PER_SECOND, NARROWEST, WIDEST = 1.1, 7.0, 22.0
INCHES_PER_CHARACTER, LOWEST, HIGHEST = 0.06, 2.5, 9.0
LEVELS = 3  # heights at which words stand in turn, so that long ones do not overlap

logger = logging.getLogger(f"las.{__name__}")


def draw_recordings(recordings: Sequence[Recording], target: Path, feature_config: FeatureConfig) -> None:
    """Draws a picture of each piece of each recording.

    Args:
        recordings: that were transcribed.
        target: a file NAME.png for a single recording, else a folder.
        feature_config: how features were computed.

    Raises:
        UserError: `target` cannot be written, or is a file for several recordings.
    """
    single = target.suffix.lower() == ".png"
    if single and len(recordings) > 1:
        raise UserError(f"--plot: found {target} for {len(recordings)} recordings, expected a folder")
    stems = [recording.path.stem for recording in recordings]
    try:
        (target.parent if single else target).mkdir(parents=True, exist_ok=True)
        for number, (recording, stem) in enumerate(zip(recordings, stems, strict=True), 1):
            name = (
                target.with_suffix("") if single else target / (stem if stems.count(stem) == 1 else f"{number}-{stem}")
            )
            for index, piece in enumerate(recording.pieces, 1):
                part = f"-{index:02d}" if len(recording.pieces) > 1 else ""
                path = name.with_name(f"{name.name}{part}.png")
                span = (piece.start, piece.end)
                title = f"{recording.path.name}, {piece.start:.1f} to {piece.end:.1f} s"
                save_timeline(path, title, span, piece.words, piece.features, piece.attention, feature_config)
                logger.info(f"{path}: {title}")
    except OSError as error:
        raise UserError(f"--plot: cannot write into {target} ({error})") from None


def save_timeline(
    path: Path,
    title: str,
    span: tuple[float, float],
    words: Sequence[tuple[str, float, float, slice]],
    features: np.ndarray,
    attention: np.ndarray,
    feature_config: FeatureConfig,
) -> None:
    """Draws a piece of a recording as PNG.

    Args:
        path: of the file.
        title: of the picture.
        span: start and end of the piece, in seconds.
        words: text, start and end in seconds, and rows of the attention, of each word.
        features: `(T, D)`.
        attention: `(U, S)`, heads averaged.
        feature_config: how features were computed.
    """
    width = min(max(NARROWEST, (span[1] - span[0]) * INCHES_PER_SECOND), WIDEST)
    height = min(max(LOWEST, len(attention) * INCHES_PER_CHARACTER), HIGHEST)
    figure = Figure(figsize=(width, 2.8 + height), dpi=100, layout="constrained")
    said, heard, attended = figure.subplots(3, 1, sharex=True, height_ratios=(0.6, 2.0, height))

    for number, (text, start, end, _) in enumerate(words):
        level = LEVELS - number % LEVELS
        said.hlines(level - 0.45, start, end, color="tab:orange", linewidth=2)
        said.text((start + end) / 2, level, text, ha="center", va="center", fontsize=8)
        for axes in (heard, attended):
            axes.axvline(start, color="white", linewidth=0.4, alpha=0.5)
    said.set_ylim(0.3, LEVELS + 0.5)
    said.axis("off")
    said.set_title(title, fontsize=10)

    D = features.shape[1]
    half = feature_config.hop_length / feature_config.sample_rate / 2  # frames are centred on multiples of the hop
    low, high = np.percentile(features, [1, 99.5])
    frames = (span[0] - half, span[0] - half + len(features) * 2 * half)
    heard.imshow(
        features.T, aspect="auto", origin="lower", cmap="magma", vmin=low, vmax=high, extent=(*frames, -0.5, D - 0.5)
    )
    heard.set_ylabel("cepstrum" if feature_config.n_mfcc else "mel band")

    U = len(attention)
    attended.imshow(
        attention, aspect="auto", interpolation="nearest", cmap="magma", vmin=0, extent=(*span, U - 0.5, -0.5)
    )
    middles = [(rows.start + rows.stop - 1) / 2 for *_, rows in words]
    attended.set_yticks([*middles, U - 1], [*(text for text, *_ in words), "<eos>"], fontsize=7)
    attended.tick_params(axis="y", length=0, pad=2)
    attended.set_xlabel("seconds")
    attended.set_xlim(*span)
    figure.savefig(path)
