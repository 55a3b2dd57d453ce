"""Interleaved timing: each round runs every contestant once, so that other load on the machine slows all of them alike.

Figures are only comparable within one such run. The first call of a contestant is never timed: it warms up caches,
allocators and kernels.
"""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


class Quartiles(NamedTuple):
    """Median and quartiles of a sample."""

    lower: float
    median: float
    upper: float


class Contestant(NamedTuple):
    """One of the implementations that are compared."""

    name: str
    prepare: Callable[[int], Any]  # from the number of the round, -1 for the warm-up, to the input of `run`; not timed
    run: Callable[[Any], Any]  # timed


@dataclass
class Measurement:
    """What was measured of a contestant; the lists have one value per round."""

    memory: int | None = None  # bytes that the warm-up held at its peak, beyond those before it; None: unknown
    seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)  # of `Contestant.run`


def interleave(
    contestants: Sequence[Contestant], rounds: int, seconds: float, device: torch.device
) -> dict[str, Measurement]:
    """Times the contestants in turns.

    Args:
        contestants: in the order of their turns.
        rounds: per contestant, the warm-up not counted.
        seconds: time limit per contestant; one that would exceed it gets fewer rounds, but at least one.
        device: on which they run.

    Returns:
        Their measurements by name.
    """
    measurements = {contestant.name: Measurement() for contestant in contestants}
    for name, prepare, run in contestants:
        prepared = prepare(-1)
        measurements[name].memory = peak_memory(partial(run, prepared), device)
    for number in range(rounds):
        first = number % len(contestants) if contestants else 0  # whoever follows another finds its caches
        for name, prepare, run in [*contestants[first:], *contestants[:first]]:
            measurement = measurements[name]
            if measurement.seconds and sum(measurement.seconds) + measurement.seconds[-1] > seconds:
                continue
            prepared = prepare(number)
            start = now(device)
            measurement.results.append(run(prepared))
            measurement.seconds.append(now(device) - start)
    return measurements


def peak_memory(run: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that `run()` holds at its peak, beyond those in use before; None where the system does not tell."""
    before = _reset_peak_memory(device)
    run()
    now(device)
    return None if before is None else max(0, _peak_memory(device) - before)


def now(device: torch.device) -> float:
    """Time in seconds, read once the device has finished all work queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset_peak_memory(device: torch.device) -> int | None:
    """Starts a new peak, and returns the bytes in use now; None where the peak cannot be reset.

    On a CPU that is the process's resident memory, whose peak only Linux can reset.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else memory that earlier contestants freed would count as in use
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return resident("VmRSS")
    except (AttributeError, OSError, TypeError):
        return None


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident("VmHWM")


def resident(field: str, process: int | str = "self") -> int:
    """Resident memory of a process in bytes; on Linux only.

    Args:
        field: of `/proc/PROCESS/status`: VmRSS (now) or VmHWM (at its peak).
        process: its id.
    """
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def quartiles(values: Sequence[float]) -> Quartiles:
    """Median and quartiles of `values`, of which there is at least one."""
    return Quartiles(*np.quantile(values, [0.25, 0.5, 0.75]).tolist())


def ratios(values: Sequence[float], reference: Sequence[float]) -> Quartiles:
    """Quartiles of `values / reference`, taken round by round for as many rounds as both have."""
    return quartiles([value / other for value, other in zip(values, reference, strict=False)])
