"""Contestants timed in turns: a round gives each of them one go, so that what else the machine does hits them alike.

All that is compared comes from one run. A first go is never timed: it warms up caches, allocators and kernels.
"""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

Range = tuple[float, float, float]  # median and quartiles: (lower, median, upper)


class Contestant(NamedTuple):
    """prepare: round to what `run` takes, not timed; -1 is the warm-up.   run: what is timed."""

    name: str
    prepare: Callable[[int], Any]
    run: Callable[[Any], Any]


@dataclass
class Record:
    """What became of a contestant, a value a round: seconds, and what `run` returned.

    memory: the most bytes that the warm-up held beyond those before it; None where that cannot be told.
    """

    memory: int | None = None
    seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


def interleave(
    contestants: Sequence[Contestant], rounds: int, seconds: float, device: torch.device
) -> dict[str, Record]:
    """Records of all contestants by name, timed in turns.

    seconds: a contestant that would need more than that gets fewer rounds, but at least one.
    """
    records = {contestant.name: Record() for contestant in contestants}
    for name, prepare, run in contestants:
        prepared, before = prepare(-1), _memory(device)
        run(prepared)
        now(device)
        records[name].memory = None if before is None else max(0, _peak(device) - before)
    for number in range(rounds):
        for name, prepare, run in contestants:
            record = records[name]
            if record.seconds and sum(record.seconds) + record.seconds[-1] > seconds:
                continue
            prepared = prepare(number)
            start = now(device)
            record.results.append(run(prepared))
            record.seconds.append(now(device) - start)
    return records


def now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory(device: torch.device) -> int | None:
    """Bytes held now; the peak starts from here. On a CPU the resident set, which Linux alone lets a process reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier contestants freed goes back first
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return resident("VmRSS")
    except (AttributeError, OSError, TypeError):
        return None


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident("VmHWM")


def resident(field: str, process: int | str = "self") -> int:
    """Bytes of a process that are in memory: VmRSS now, VmHWM at the most. Linux alone tells."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def spread(values: Sequence[float]) -> Range:
    """Lower quartile, median, upper quartile."""
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return lower, median, upper


def ratios(values: Sequence[float], reference: Sequence[float]) -> Range:
    """Of the ratios round by round, where both have a value."""
    return spread([value / other for value, other in zip(values, reference, strict=False)])
