"""Learning rate and teacher forcing rate, as functions of where training stands: there is nothing to resume."""

import math
import statistics
from collections.abc import Sequence

ALIGNED = 0.5  # monotonicity from which a model counts as aligned


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


def last_epoch(seconds: Sequence[float], epochs: int, max_minutes: float | None) -> int:
    """The epoch a run ends with: `epochs`, or as many as fit into `max_minutes`.

    seconds: what each epoch so far has taken.
    """
    if max_minutes is None or not seconds:
        return epochs
    left = 60 * max_minutes - sum(seconds)
    return min(epochs, len(seconds) + max(0, int(left / statistics.median(seconds[-5:]))))


def learning_rate(
    step: int,
    steps_per_epoch: int,
    epochs: int,
    peak: float,
    schedule: str,
    warmup_epochs: float,
    distances: Sequence[float] = (),
    patience: int = 1,
) -> float:
    """Rate of optimiser step `step` (from 0).

    Linear rise over the warm-up, then `cosine` down to 1 % of the peak, `plateau` (halved after every `patience`
    epochs in which none of the dev `distances` so far was better than the best before), or `constant`.
    """
    warmup = warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule == "cosine":
        done = (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)
        return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
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
