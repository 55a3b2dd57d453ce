"""Pictures of transcribed recordings: words, features and attention over one time axis."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from decoding.formats import names_of
from decoding.recordings import Recording
from report.fonts import lettering
from utils.errors import UserError
from utils.features import FeatureConfig

PICTURES = (".png", ".pdf", ".svg")
INCHES_PER_SECOND, NARROWEST, WIDEST = 1.1, 7.0, 22.0
INCHES_PER_CHARACTER, LOWEST, HIGHEST = 0.06, 2.5, 9.0
LEVELS = 3  # heights at which words stand in turn, so that long ones do not overlap

logger = logging.getLogger(f"las.{__name__}")


def draw_recordings(recordings: Sequence[Recording], target: Path, feature_config: FeatureConfig) -> None:
    """Draws a picture of each piece of each recording.

    Args:
        recordings: that were transcribed.
        target: a file of one of PICTURES for a single recording, else a folder. A PDF has a page for each piece.
        feature_config: how features were computed.

    Raises:
        UserError: `target` cannot be written, is a file for several recordings, or a picture of another kind.
    """
    kind = target.suffix.lower()
    single = kind in PICTURES
    if not single and kind.removeprefix(".") in FigureCanvasBase.get_supported_filetypes():
        raise UserError(f"--plot: found {target}, expected a file of {', '.join(PICTURES)}, or a folder")
    if single and len(recordings) > 1:
        raise UserError(f"--plot: found {target} for {len(recordings)} recordings, expected a folder")
    suffix = kind if single else ".png"
    try:
        (target.parent if single else target).mkdir(parents=True, exist_ok=True)
        for recording, stem in zip(recordings, names_of(recordings), strict=True):
            name = target.with_suffix("") if single else target / stem
            with ExitStack() as stack:
                pages = suffix == ".pdf" and recording.pieces and stack.enter_context(PdfPages(target))
                for index, piece in enumerate(recording.pieces, 1):
                    part = f"-{index:02d}" if len(recording.pieces) > 1 else ""
                    path = target if pages else name.with_name(f"{name.name}{part}{suffix}")
                    span = (piece.start, piece.end)
                    title = f"{recording.path.name}, {piece.start:.1f} to {piece.end:.1f} s"
                    shown = (piece.words, piece.features, piece.attention)
                    save_timeline(pages or path, title, span, *shown, feature_config)
                    logger.info(f"{path}: {title}")
    except OSError as error:
        raise UserError(f"--plot: cannot write into {target} ({error})") from None


def save_timeline(
    path: Path | PdfPages,
    title: str,
    span: tuple[float, float],
    words: Sequence[tuple[str, float, float, slice]],
    features: np.ndarray,
    attention: np.ndarray,
    feature_config: FeatureConfig,
) -> None:
    """Draws a piece of a recording.

    Args:
        path: of the file, of one of PICTURES, or a PDF that gets another page.
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

    fonts = lettering([title, *(text for text, *_ in words)])
    families = fonts.families[1:]
    for number, (text, start, end, _) in enumerate(words):
        level = LEVELS - number % LEVELS
        said.hlines(level - 0.45, start, end, color="tab:orange", linewidth=2)
        said.text((start + end) / 2, level, fonts.text(text), ha="center", va="center", fontsize=8, family=families)
        for axes in (heard, attended):
            axes.axvline(start, color="white", linewidth=0.4, alpha=0.5)
    said.set_ylim(0.3, LEVELS + 0.5)
    said.axis("off")
    said.set_title(fonts.text(title), fontsize=10, family=families)

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
    labels = [*(fonts.text(text) for text, *_ in words), "<eos>"]
    attended.set_yticks([*middles, U - 1], labels, fontsize=7, family=families)
    attended.tick_params(axis="y", length=0, pad=2)
    attended.set_xlabel("seconds")
    attended.set_xlim(*span)
    if isinstance(path, PdfPages):
        path.savefig(figure)
    else:
        figure.savefig(path)
