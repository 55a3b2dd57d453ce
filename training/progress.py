"""What a run reports while it trains: its description, the progress bar, times to expect, and an epoch's means."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from corpora.loading import Corpus
from dataset import Batch
from models.las import LAS
from training.step import StepResult
from utils.cli import WaitingEnded
from utils.distributed import DistributedContext
from utils.errors import UserError

BAR = "{desc} {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # fits 80 columns
REFRESH = 10  # steps between updates of the bar's numbers
GIB = 2**30
STEPS, WARM_UP = 20, 5  # steps after which the pace is known, and how many of the first are not typical
MEANS = ("train_loss", "train_attention_loss", "train_ctc_loss", "gradient_norm")

logger = logging.getLogger(f"las.{__name__}")


class PartialEpoch(TypedDict):
    """An epoch that was left after some batches, as a checkpoint holds it."""

    batch: int  # position of the next batch
    totals: Tensor  # (4,) sums of MEANS, weighted by characters, over all ranks
    characters: int
    seconds: float


class EpochProgress:
    """One epoch over a loader: shows a progress bar and sums up what the steps return.

    Args:
        title: of the progress bar.
        utterances: size of the training corpus, for the speed.
        partial: the part of this epoch that was trained before, if any.
        history: metrics of the epochs before.
        eta: says once how long training will take.
        device: where the sums are kept.
        context: ranks that share the epoch.
    """

    def __init__(
        self,
        title: str,
        utterances: int,
        partial: PartialEpoch | None,
        history: Sequence[Mapping[str, float]],
        eta: "EtaEstimator",
        device: torch.device,
        context: DistributedContext,
    ):
        self.title, self.utterances, self.eta, self.device, self.context = title, utterances, eta, device, context
        self._note = f"distance {history[-1]['dev_distance']:.2f}, " if history else ""
        self._index = self._first = partial["batch"] if partial else 0
        self._steps = self._overflows = 0
        self._sums, self._characters = torch.zeros(len(MEANS), dtype=torch.float64), 0
        self._start, self._waiting = time.perf_counter(), 0.0
        self._bar: tqdm | None = None
        self.awaited: int | None = None
        if partial:
            self._start -= partial["seconds"]
            self._characters += partial["characters"]
            if context.is_main:
                self._sums += partial["totals"]

    def watch(
        self, loader: DataLoader, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> Iterator[tuple[int, Batch]]:
        """Position in the epoch and batch, on the device; `loader` begins after the batches of the partial epoch.

        waiting: context in which each batch is waited for. If it raises WaitingEnded, no more batches come, and
            `awaited` is the position of the one that did not.
        """
        self._steps, batches = len(loader), iter(loader)
        self._bar = tqdm(
            range(self._first, self._steps),
            self.title,
            self._steps,
            initial=self._first,
            unit="batch",
            leave=False,
            bar_format=BAR,
            dynamic_ncols=True,
            disable=self.context.hide_progress,
        )
        for index in self._bar:
            self._index = index
            asked = time.perf_counter()
            try:
                with waiting():
                    batch: Batch = next(batches)
            except WaitingEnded:
                self.awaited = index
                return
            batch = batch.to(self.device)
            self._waiting += time.perf_counter() - asked
            yield index, batch

    def update(self, result: StepResult, characters: int, learning_rate: float, teacher_forcing_rate: float) -> None:
        """Adds the result of a step on a batch of that many `characters` over all ranks."""
        self._overflows += result.overflow
        if not result.updated:
            return
        expected = self.eta.step(self.device)
        if expected:
            logger.info(f"expected  {expected}")
        share = result.gradient_norm.unsqueeze(0) / self.context.world_size
        self._sums += torch.cat([result.losses, share]) * characters
        self._characters += characters
        if self._bar is not None and (self._index % REFRESH == 0 or self._index == self._steps - 1):
            loss = float(self._sums[0] * self.context.world_size / self._characters)  # as far as this rank knows
            speed = self.utterances_per_second
            self._bar.set_postfix_str(
                f"loss {loss:.3f}, {self._note}lr {learning_rate:.1e}, tf {teacher_forcing_rate:.2f}, "
                f"|g| {float(result.gradient_norm):.2f}, {speed:.1f} utt/s, waiting {self.waiting:.0%}"
            )

    @property
    def seconds(self) -> float:
        """Since the epoch began, without the time between an interruption and its resumption."""
        return time.perf_counter() - self._start

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for batches."""
        return self._waiting / self.seconds

    def partial(self, batch: int) -> PartialEpoch:
        """What a checkpoint needs to go on with `batch`; to be called on every rank."""
        totals = self.context.all_reduce_sum(self._sums.clone())
        return {"batch": batch, "totals": totals, "characters": self._characters, "seconds": self.seconds}

    def means(self) -> dict[str, float]:
        """Losses and gradient norm per character over all ranks; to be called once, on every rank.

        Raises:
            UserError: no batch of the epoch gave a finite gradient.
        """
        if not self._characters and not self._overflows:
            raise UserError(
                "no batch of this epoch gave a finite gradient; last.pt holds what was computed before. A lower "
                "training.learning_rate or training.clip_norm usually helps"
            )
        means = self.context.all_reduce_sum(self._sums) / self._characters
        return {**dict(zip(MEANS, means.tolist(), strict=True)), "data_wait": self.waiting}

    @property
    def utterances_per_second(self) -> float:
        """Of the epoch so far."""
        return min(1.0, (self._index + 1) / self._steps) * self.utterances / self.seconds


class EtaEstimator:
    """Says once, after a few steps, how long an epoch and the rest of training will take, and how much memory.

    Args:
        steps: in an epoch.
        steps_left: in the present epoch.
        epochs_left: with the present one; None if the others will take another time.
        max_minutes: that all of them may take at most, or None.
    """

    def __init__(self, steps: int, steps_left: int, epochs_left: int | None, max_minutes: float | None):
        self.steps, self.epochs_left, self.max_minutes = steps, epochs_left, max_minutes
        self.last = min(STEPS, steps_left)
        self.first = min(WARM_UP, self.last // 2)
        self.done, self.start = 0, time.perf_counter()

    def step(self, device: torch.device) -> str | None:
        """To be called after each step; what is to be said after this one, if anything."""
        self.done += 1
        if self.done == self.first:
            self.start = time.perf_counter()
        if self.done != self.last:
            return None
        seconds = (time.perf_counter() - self.start) / (self.last - self.first) * self.steps  # of an epoch
        described = f"about {duration(seconds)} per epoch"
        if self.epochs_left is not None:
            total, limit = seconds * self.epochs_left, 60 * (self.max_minutes or math.inf)
            ends = f"{duration(limit)} at most" if total > limit else f"{duration(total)} for {self.epochs_left}"
            described += f", {ends} (dev passes come on top)"
        memory = memory_used(device)
        return described + (f"; {memory}" if memory else "")


# --------------------------------------------------------------------------------------------------------- description


def describe_device(device: torch.device, processes: int = 1) -> str:
    """Name and memory of a GPU, cores and threads of a CPU; for one process, and how many there are."""
    if device.type == "cuda":
        name, total = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
        described = f"{name}, {total / GIB:.0f} GiB"
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        described = f"CPU, {_count(cores, 'core')}, {_count(torch.get_num_threads(), 'thread')}"
    return f"{processes} x {described}" if processes > 1 else described


def describe_run(
    device: torch.device, world_size: int, precision: str, corpora: Mapping[str, Corpus], model: LAS, plan: str
) -> None:
    """Logs where, on what, what and for how long a run trains.

    Args:
        device: of this rank.
        world_size: number of ranks.
        precision: float32, bf16 or fp16.
        corpora: by name, the training corpus first.
        model: that is trained.
        plan: epochs, steps and batch size, in words.
    """
    per_character = next(iter(corpora.values())).frames_per_character
    steps, ctc_steps = (per_character * count / 1000 for count in model.listener.steps(1000))
    alignment = f"{per_character:.1f} frames per character: {steps:.2f} steps for attention"
    facts = {
        "device": f"{describe_device(device, world_size)}, {precision}",
        "data": "; ".join(f"{name} {corpus.size}" for name, corpus in corpora.items()),
        "model": f"{model.parameter_count:,} parameters, time reduction {model.listener.time_reduction}x, "
        f"{model.speller.attention.kind} attention",
        "alignment": alignment + (f", {ctc_steps:.2f} for CTC" if model.ctc is not None else ""),
        "training": plan,
    }
    for name, fact in facts.items():
        logger.info(f"{name:<10}{fact}")


def run_info(
    environment: Mapping[str, str], precision: str, world_size: int, model: LAS, train: Corpus, dev: Corpus
) -> dict[str, str]:
    """Machine, model and data of a run, for environment.yaml and the report."""
    return {
        **environment,
        "precision": precision,
        "processes": str(world_size),
        "parameters": f"{model.parameter_count:,}",
        "train": train.size,
        "dev": dev.size,
    }


def describe_epoch(row: Mapping[str, float]) -> str:
    """An epoch's metrics in a line."""
    ctc = f" (CTC alone {row['dev_ctc_distance']:.2f})" if "dev_ctc_distance" in row else ""
    return (
        f"epoch {row['epoch']:3d}: train loss {row['train_loss']:.3f}, dev loss {row['dev_loss']:.3f}, "
        f"distance {row['dev_distance']:.2f}{ctc}, CER {row['dev_cer']:.1%}, monotonicity "
        f"{row['dev_monotonicity']:.2f}, {row['seconds']:.0f} s"
    )


def duration(seconds: float) -> str:
    """In the unit that people would use."""
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{0 if name == 'min' else 1}f} {name}"
    return f"{seconds:.0f} s"


def memory_used(device: torch.device) -> str:
    """Peak memory of tensors on the GPU, or of this process; empty where the system does not tell."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.max_memory_allocated(device) / GIB:.1f} of {total / GIB:.0f} GiB of GPU memory"
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{peak / GIB:.1f} GiB of memory"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
