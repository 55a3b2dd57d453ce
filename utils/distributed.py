"""Several processes that work as one; torchrun starts them, one a GPU. Without torchrun there is one process.

torchrun --nproc_per_node=8 train.py ...
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from utils.errors import UserError

TIMEOUT = timedelta(minutes=10)  # of waiting for the others, within a step or an evaluation
PREPARING = timedelta(hours=12)  # while one of them checks or packs a large corpus
GONE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
T = TypeVar("T")


class Team(NamedTuple):
    """rank: which of `size` processes this is. The first one leads: it alone writes files and says something."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def hides_progress(self) -> bool | None:
        """What `tqdm` takes as `disable`: one bar for all processes, on terminals alone."""
        return None if self.leads else True

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """What each process has, in order of rank, for all of them."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The others come in when the leader is done: what it leaves on disk is there for them. All leave together."""
        if self.size == 1:
            yield
            return
        patient = dist.new_group(backend="gloo", timeout=PREPARING)
        if not self.leads:
            dist.barrier(patient)
        yield
        if self.leads:
            dist.barrier(patient)
        dist.barrier(patient)


SINGLE = Team()


@contextmanager
def assemble(device: torch.device) -> Iterator[Team]:
    """All processes that torchrun started with this one. Raises UserError where one of the others is lost."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(rendezvous("env://"))
        # torchrun keeps its store when it starts a job again: what the killed processes left there must not be found
        # (github.com/pytorch/pytorch/issues/135712). Machines may count restarts differently, so only on one.
        if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
            store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        yield Team(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # leave together: who goes first would take the others' connections away
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in GONE):
            raise
        rank, size = os.environ.get("RANK", "?"), os.environ["WORLD_SIZE"]
        raise UserError(
            f"process {rank} of {size} lost another one ({str(error).splitlines()[0][:160]}); if it was not killed, it "
            "says why. What was written is whole: the same command goes on, torchrun --max-restarts=3 by itself"
        ) from None
    finally:
        gc.collect()  # what still holds the group, such as DistributedDataParallel, has to go before it
        if dist.is_initialized():
            dist.destroy_process_group()
