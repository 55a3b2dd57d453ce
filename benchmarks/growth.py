"""How the Listener's cost grows with the length and the number of utterances: a table and a picture."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.measure import Contestant, interleave, spread
from benchmarks.shapes import Lengths, make_batch
from benchmarks.trainees import Step
from utils.errors import UserError


def parse_sizes(argument: str, text: str) -> list[int]:
    """`250,500,1000`. Raises UserError for anything else."""
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) for part in parts):
        raise UserError(f"{argument}: found {text!r}, expected numbers above 0 such as 250,500,1000")
    return sorted({int(part) for part in parts})


def measure_growth(
    step: Step,
    feature_dim: int,
    frames: Sequence[int],
    batches: Sequence[int],
    rounds: int,
    seconds: float,
    device: torch.device,
) -> list[dict]:
    """A row a size: milliseconds of `step` on `B` utterances of `T` frames each."""

    def contestant(B: int, T: int) -> Contestant:
        lengths = Lengths(*torch.tensor([[T] * B, [3] * B]).numpy())
        return Contestant(f"{B} x {T}", lambda _: make_batch(lengths, range(B), feature_dim, device), step)

    sizes = [(B, T) for B in batches for T in frames]
    records = interleave([contestant(B, T) for B, T in sizes], rounds, seconds, device)
    rows = []
    for B, T in sizes:
        found = records[f"{B} x {T}"].seconds
        row = {"utterances": B, "frames": T, "rounds": len(found), "ms": spread([1e3 * value for value in found])}
        rows.append({**row, "µs a frame": spread([1e6 * value / (B * T) for value in found])})
    return rows


def draw_growth(path: Path, rows: Sequence[dict], title: str) -> None:
    """Time against frames, a line a batch size, both axes logarithmic; beside it the time of one frame."""
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    whole, each = figure.subplots(1, 2)
    for B in sorted({row["utterances"] for row in rows}):
        own = [row for row in rows if row["utterances"] == B]
        for axes, column in ((whole, "ms"), (each, "µs a frame")):
            lower, median, upper = zip(*(row[column] for row in own), strict=True)
            frames = [row["frames"] for row in own]
            axes.plot(frames, median, marker="o", label=f"B = {B}")
            axes.fill_between(frames, lower, upper, alpha=0.2)
    frames = sorted({row["frames"] for row in rows})
    for axes, column in ((whole, "ms"), (each, "µs a frame")):
        axes.set(xlabel="frames an utterance", ylabel=column, xscale="log", yscale="log")
        axes.set_xticks(frames, map(str, frames))
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    whole.legend()
    figure.suptitle(f"{title}, B utterances", fontsize=10)
    figure.savefig(path)
