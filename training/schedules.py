"""Learning rate and teacher forcing rate, as functions of where training stands: there is nothing to resume."""

import math
from collections.abc import Sequence

ALIGNED = 0.4  # monotonicity of an aligned model, at least: more than the third of a map that runs through thrice


def teacher_forcing_rate(
    epoch: int, start: float, stages: Sequence[dict], monotonicities: Sequence[float] | None = None
) -> float:
    """Rate in `epoch` (from 1): `start`, then times a stage's `factor` each epoch from its `from_epoch` on.

    A stage lasts until the next begins; its decay stops at its `floor`. Until one of the dev `monotonicities` of the
    epochs before was that of an aligned model, nothing decays: a Speller that cannot read the memory yet would learn to
    live without it.
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


def time_is_up(seconds: Sequence[float], max_minutes: float | None) -> bool:
    """Whether one more epoch, as long as the last, would end after `max_minutes`. seconds: of each epoch so far."""
    return max_minutes is not None and len(seconds) > 0 and sum(seconds) + seconds[-1] > 60 * max_minutes


def progress(done: float, epochs: int, seconds: Sequence[float], max_minutes: float | None) -> float:
    """How much of the training lies behind, 0 to 1: of its epochs or of its time, whichever ends it first.

    done: epochs, with what is done of the present one.   seconds: what each whole epoch has taken.
    """
    share = done / epochs
    if max_minutes is not None and seconds:
        spent = sum(seconds) + (done - len(seconds)) * seconds[-1]
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
    """Rate after `done` epochs and at that `progress`.

    A linear rise over the warm-up, times `cosine` (down to 1 % of the peak), `plateau` (halved after every `patience`
    epochs in which none of the dev `distances` so far was better than the best before), or `constant`.
    """
    peak = peak * min(1.0, done / warmup_epochs) if warmup_epochs else peak
    if schedule == "cosine":
        return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule == "plateau":
        return peak * 0.5 ** _plateaus(distances, patience)
    return peak


def _plateaus(distances: Sequence[float], patience: int) -> int:
    """How many times `patience` epochs went by without a new best."""
    best, waited, plateaus = math.inf, 0, 0
    for distance in distances:
        waited = 0 if distance < best else waited + 1
        best = min(best, distance)
        if waited == patience:
            waited, plateaus = 0, plateaus + 1
    return plateaus
