"""How the time of the Listener grows with the number of frames and of utterances: a table and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.measure import Contestant, interleave, quartiles
from benchmarks.shapes import Lengths, random_batch
from benchmarks.training_steps import Step


def measure_scaling(
    step: Step,
    feature_dim: int,
    frames: Sequence[int],
    batch_sizes: Sequence[int],
    rounds: int,
    seconds: float,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Times `step` on batches without padding, of every combination of sizes.

    Args:
        step: what is timed.
        feature_dim: `D`.
        frames: values of `T`.
        batch_sizes: values of `B`.
        rounds: per size.
        seconds: time limit per size.
        device: of the batches.

    Returns:
        One row per size.
    """

    def contestant(B: int, T: int) -> Contestant:
        lengths = Lengths(np.full(B, T), np.full(B, 3))
        return Contestant(f"{B} x {T}", lambda _: random_batch(lengths, range(B), feature_dim, device), step)

    sizes = [(B, T) for B in batch_sizes for T in frames]
    measurements = interleave([contestant(B, T) for B, T in sizes], rounds, seconds, device)
    rows = []
    for B, T in sizes:
        times = measurements[f"{B} x {T}"].seconds
        rows.append(
            {
                "utterances": B,
                "frames": T,
                "rounds": len(times),
                "ms": quartiles([1e3 * value for value in times]),
                "µs per frame": quartiles([1e6 * value / (B * T) for value in times]),
            }
        )
    return rows


def plot_scaling(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Plots total time and time per frame against frames, with a line per batch size; all axes are logarithmic.

    Args:
        path: of the image.
        rows: as `measure_scaling` returned them.
        title: of the figure.
    """
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    panels = dict(zip(("ms", "µs per frame"), figure.subplots(1, 2), strict=True))
    for B in sorted({row["utterances"] for row in rows}):
        own = [row for row in rows if row["utterances"] == B]
        for column, axes in panels.items():
            lower, median, upper = zip(*(row[column] for row in own), strict=True)
            frames = [row["frames"] for row in own]
            axes.plot(frames, median, marker="o", label=f"B = {B}")
            axes.fill_between(frames, lower, upper, alpha=0.2)
    ticks = sorted({row["frames"] for row in rows})
    for column, axes in panels.items():
        axes.set(xlabel="frames per utterance", ylabel=column, xscale="log", yscale="log")
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    panels["ms"].legend()
    figure.suptitle(f"{title}, B utterances", fontsize=10)
    figure.savefig(path)
