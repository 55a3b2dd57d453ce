"""What a run says of itself before it starts, and, once it has run a little, of the time and memory it takes."""

import math
import os
import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from dataset import Corpus
from models.las import LAS
from utils.distributed import Team

GIB = 2**30
STEPS, WARM_UP = 20, 5  # steps after which the pace is known, and how many of them are not typical yet


def describe_device(device: torch.device, processes: int = 1) -> str:
    """Name and memory of a GPU, cores and threads of a CPU; of one process and how many there are."""
    if device.type == "cuda":
        name, total = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
        described = f"{name}, {total / GIB:.0f} GiB"
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        described = f"CPU, {_count(cores, 'core')}, {_count(torch.get_num_threads(), 'thread')}"
    return f"{processes} x {described}" if processes > 1 else described


def introduce(device: str, corpora: Mapping[str, Corpus], model: LAS, training: str) -> list[str]:
    """Lines on where, on what, what and how long is trained. corpora: by name; the first is trained on."""
    per_character = next(iter(corpora.values())).frames_per_character
    steps, ctc_steps = (per_character * count / 1000 for count in model.listener.steps(1000))
    alignment = f"{per_character:.1f} frames a character: {steps:.2f} steps for attention"
    facts = {
        "device": device,
        "data": "; ".join(f"{name} {corpus.size}" for name, corpus in corpora.items()),
        "model": f"{model.parameter_count:,} parameters, time reduction {model.listener.time_reduction}x",
        "alignment": alignment + (f", {ctc_steps:.2f} for CTC" if model.ctc is not None else ""),
        "training": training,
    }
    return [f"{name:<10}{fact}" for name, fact in facts.items()]


def describe_epoch(row: Mapping[str, float], is_best: bool) -> str:
    """An epoch's metrics in a line."""
    ctc = f" (CTC alone {row['dev_ctc_distance']:.2f})" if "dev_ctc_distance" in row else ""
    return (
        f"epoch {row['epoch']:3d}: train loss {row['train_loss']:.3f}, dev loss {row['dev_loss']:.3f}, "
        f"distance {row['dev_distance']:.2f}{ctc}, CER {row['dev_cer']:.1%}, monotonicity "
        f"{row['dev_monotonicity']:.2f}, {row['seconds']:.0f} s{', best' if is_best else ''}"
    )


def duration(seconds: float) -> str:
    """In the unit that people would use."""
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{0 if name == 'min' else 1}f} {name}"
    return f"{seconds:.0f} s"


def memory_used(device: torch.device) -> str:
    """The most that tensors took on the GPU, or this process took at all."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.max_memory_allocated(device) / GIB:.1f} of {total / GIB:.0f} GiB of GPU memory"
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{peak / GIB:.1f} GiB of memory"


class Pace:
    """Says once, after a few steps, how long an epoch and all that is left will take, and how much memory.

    steps: of an epoch.   steps_left: of the present one.   epochs_left: with the present one; None where the others
    will take another time.   max_minutes: what all of them may take at most, or None.
    """

    def __init__(self, steps: int, steps_left: int, epochs_left: int | None, max_minutes: float | None):
        self.steps, self.epochs_left, self.max_minutes = steps, epochs_left, max_minutes
        self.last = min(STEPS, steps_left)
        self.first = min(WARM_UP, self.last // 2)
        self.done, self.start = 0, time.perf_counter()

    def step(self, device: torch.device) -> str | None:
        """After each step: what is to be said now, if anything."""
        self.done += 1
        if self.done == self.first:
            self.start = time.perf_counter()
        if self.done != self.last:
            return None
        seconds = (time.perf_counter() - self.start) / (self.last - self.first) * self.steps
        said = f"about {duration(seconds)} an epoch"
        if self.epochs_left is not None:
            total, limit = seconds * self.epochs_left, 60 * (self.max_minutes or math.inf)
            ends = f"{duration(limit)} at most" if total > limit else f"{duration(total)} for {self.epochs_left}"
            said += f", {ends} (dev passes come on top)"
        memory = memory_used(device)
        return said + (f"; {memory}" if memory else "")


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


NAMES = ("train_loss", "train_attention_loss", "train_ctc_loss", "gradient_norm")


class EpochSums:
    """Losses and gradient norms weighted by characters, and the time that went by.

    partial: what `partial` gave when the epoch was left; None: it begins.
    """

    def __init__(self, team: Team, device: torch.device, partial: dict | None):
        self._team = team
        self._sums = torch.zeros(len(NAMES), dtype=torch.float64, device=device)
        self._characters = torch.zeros((), dtype=torch.long, device=device)
        self._start, self._waiting = time.perf_counter(), 0.0
        if partial:
            self._start -= partial["seconds"]
            self._characters += partial["characters"]
            if team.leads:
                self._sums += partial["totals"].to(device)

    def add(self, losses: Tensor, norm: Tensor, count: Tensor) -> None:
        """A batch of `count` characters: this process's part of the losses (total, attention, CTC) `(3,)`."""
        self._sums += torch.cat([losses, norm.unsqueeze(0) / self._team.size]) * count
        self._characters += count

    def waited(self, seconds: float) -> None:
        self._waiting += seconds

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @property
    def waiting(self) -> float:
        """The share of time spent waiting for batches."""
        return self._waiting / self.seconds

    @property
    def loss(self) -> float:
        """The mean so far, as far as this process knows."""
        return float(self._sums[0] * self._team.size / self._characters)

    def partial(self, batch: int) -> dict:
        """What a checkpoint needs to go on with `batch`."""
        sums = self._team.total(self._sums.clone()).cpu()
        return {"batch": batch, "totals": sums, "characters": int(self._characters), "seconds": self.seconds}

    def means(self) -> dict[str, float]:
        """Over all processes."""
        means = self._team.total(self._sums) / self._characters.clamp(min=1)
        return {**dict(zip(NAMES, means.tolist(), strict=True)), "data_wait": self.waiting}
