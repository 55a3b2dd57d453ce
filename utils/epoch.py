"""What an epoch adds up to, batch by batch, and where it stands when it is left in the middle."""

import time

import torch
from torch import Tensor

from utils.distributed import Team

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
