"""Learning rate, teacher forcing rate and the rest of a training's schedule, as functions of where training stands.

Nothing here has a state: a resumed run computes from its history of epochs what the unbroken run would have.
"""

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

logger = logging.getLogger(f"las.{__name__}")
History = Sequence[Mapping[str, float]]  # a row of metrics per finished epoch

ROUNDING = 1e-9  # of a share of the training
RECENT = 3  # epochs whose median tells how long one takes
ALIGNED = 0.4  # monotonicity of an aligned model, at least: more than the third of a map that runs through thrice


def teacher_forcing_rate(
    epoch: int, start: float, stages: Sequence[dict], monotonicities: Sequence[float] | None = None
) -> float:
    """Probability that the Speller reads the true previous character: staged decay (scheduled sampling).

    The rate begins with `start` and is multiplied every epoch by the `factor` of the current stage, down to its
    `floor`. Until an epoch ended with an aligned model nothing decays: a Speller that cannot read the memory yet would
    learn to ignore it.

    Args:
        epoch: from 1.
        start: rate of the first epoch.
        stages: `{from_epoch, factor, floor}` each; a stage lasts until the next begins.
        monotonicities: on dev after each of the epochs before; None decays from the first epoch on.
    """
    rate = start
    stages = sorted(stages, key=lambda stage: stage["from_epoch"])
    waited = 0
    if monotonicities is not None:
        waited = next((before for before, value in enumerate(monotonicities, 1) if value >= ALIGNED), epoch)
    for now in range(waited + 1, epoch + 1):
        current = [stage for stage in stages if stage["from_epoch"] <= now]
        if current:
            rate = max(rate * current[-1]["factor"], min(rate, current[-1]["floor"]))
    return rate


def usual_seconds(seconds: Sequence[float]) -> float:
    """How long an epoch takes: the median of the last few, so that a pause of the machine is not taken for its pace."""
    return statistics.median(seconds[-RECENT:])


def time_is_up(seconds: Sequence[float], max_minutes: float | None) -> bool:
    """Whether one more epoch, as long as they usually are, would end after `max_minutes`.

    Args:
        seconds: that each epoch so far has taken.
        max_minutes: None is no limit.
    """
    return max_minutes is not None and len(seconds) > 0 and sum(seconds) + usual_seconds(seconds) > 60 * max_minutes


def progress(done: float, epochs: int, seconds: Sequence[float], max_minutes: float | None) -> float:
    """Finished share of the training, 0 to 1: of its epochs or of its time, whichever ends it first.

    Args:
        done: epochs trained, with the finished share of the present one.
        epochs: to train in all.
        seconds: that each finished epoch has taken.
        max_minutes: None is no limit.
    """
    share = done / epochs
    if max_minutes is not None and seconds:
        spent = sum(seconds) + (done - len(seconds)) * usual_seconds(seconds)
        share = max(share, spent / (60 * max_minutes))
    return min(1.0, share)


def learning_rate(
    done: float,
    progress: float,
    peak: float,
    schedule: str,
    warmup_epochs: float,
    distances: Sequence[float] = (),
    patience: int = 1,
) -> float:
    """Learning rate: a linear warm-up, then the schedule.

    Args:
        done: epochs trained, with the finished share of the present one.
        progress: finished share of the training, see `progress`.
        peak: rate at the end of the warm-up.
        schedule: cosine (down to 1 % of the peak), plateau (halved after every `patience` epochs without a new best
            dev distance), constant.
        warmup_epochs: length of the warm-up; 0 is none.
        distances: on dev after each epoch so far.
        patience: of the plateau schedule, in epochs.
    """
    peak = peak * min(1.0, done / warmup_epochs) if warmup_epochs else peak
    if schedule == "cosine":
        return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule == "plateau":
        return peak * 0.5 ** _plateaus(distances, patience)
    return peak


def _plateaus(distances: Sequence[float], patience: int) -> int:
    """How many times `patience` epochs in a row had no new best distance."""
    best, waited, plateaus = math.inf, 0, 0
    for distance in distances:
        waited = 0 if distance < best else waited + 1
        best = min(best, distance)
        if waited == patience:
            waited, plateaus = 0, plateaus + 1
    return plateaus


class EpochSchedule(NamedTuple):
    """What is the same for all steps of an epoch; the names are arguments of `TrainStep`."""

    teacher_forcing_rate: float
    guided_attention: float
    train_speller: bool
    minimise_distance: bool


@dataclass(frozen=True)
class Schedules:
    """All that changes during training, as functions of the epoch and of the metrics of the epochs before.

    Epochs count from 1. `position` is how many epochs have been trained, with the finished share of the present one.
    """

    epochs: int
    max_minutes: float | None
    learning_rate: float  # at its peak
    schedule: str
    warmup_epochs: float
    plateau_patience: int
    ctc_epochs: int
    guided_attention: float
    expected_distance: float  # last share of the training that minimises it
    teacher_forcing: Mapping[str, Any]  # start, stages
    guide_throughout: bool = False  # whether attention is guided on once aligned, as a relative one is by CTC

    def __post_init__(self) -> None:
        if self.ctc_epochs >= self.epochs:
            logger.warning("training.ctc_epochs: the Speller is not trained in any of training.epochs")

    def finished(self, history: History) -> bool:
        return len(history) >= self.epochs or time_is_up(_column(history, "seconds"), self.max_minutes)

    def time_is_over(self, history: History, seconds: float) -> bool:
        """Whether `max_minutes` are over, `seconds` into the present epoch."""
        return self.max_minutes is not None and sum(_column(history, "seconds")) + seconds > 60 * self.max_minutes

    def minutes_left(self, history: History) -> float | None:
        return self.max_minutes and self.max_minutes - sum(_column(history, "seconds")) / 60

    def epochs_left(self, history: History) -> int | None:
        """With the present one; None if that one trains the Listener alone, which takes another time."""
        return self.epochs - len(history) if len(history) >= self.ctc_epochs else None

    def of_epoch(self, epoch: int, history: History) -> EpochSchedule:
        """The first `ctc_epochs` train the Listener alone; attention is guided until aligned, or throughout."""
        monotonicities = _column(history, "dev_monotonicity")
        aligned = any(value >= ALIGNED for value in monotonicities)
        return EpochSchedule(
            teacher_forcing_rate(epoch, **self.teacher_forcing, monotonicities=monotonicities),
            0.0 if aligned and not self.guide_throughout else self.guided_attention,
            epoch > self.ctc_epochs,
            self._progress(epoch - 1, history) + self.expected_distance + ROUNDING >= 1 and self.expected_distance > 0,
        )

    def _progress(self, position: float, history: History) -> float:
        return progress(position, self.epochs, _column(history, "seconds"), self.max_minutes)

    def learning_rate_at(self, position: float, history: History) -> float:
        return learning_rate(
            position,
            self._progress(position, history),
            self.learning_rate,
            self.schedule,
            self.warmup_epochs,
            _column(history[self.ctc_epochs :], "dev_distance"),  # before, it is the distance of the CTC branch
            self.plateau_patience,
        )


def _column(history: History, name: str) -> list[float]:
    return [row[name] for row in history]
