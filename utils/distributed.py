"""Data-parallel training and decoding over several processes, started by torchrun, one per GPU.

torchrun --nproc_per_node=8 train.py ...

Without torchrun there is a single process of rank 0 and world size 1, and nothing here communicates.
"""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from utils.errors import UserError

COLLECTIVE_TIMEOUT = timedelta(minutes=10)  # of one collective operation within a step or an evaluation
PREPARATION_TIMEOUT = timedelta(hours=12)  # while rank 0 checks or packs a large corpus
LOST_PEER = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")  # in messages of RuntimeError
T = TypeVar("T")


class DistributedContext(NamedTuple):
    """Rank and world size of this process, and the collective operations the project uses.

    Every rank must call the collective methods in the same order. Rank 0, the main process, is the only one that
    writes files and logs progress.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def hide_progress(self) -> bool | None:
        """Argument `disable` of tqdm: a bar on rank 0 and only on a terminal (None)."""
        return None if self.is_main else True

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sums `values` over all ranks, in place, and returns them."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is true on at least one rank; the same answer on every rank."""
        if self.world_size == 1:
            return flag
        return bool(self.all_reduce_sum(torch.tensor(int(flag))))

    def all_gather(self, value: T) -> list[T]:
        """The picklable `value` of every rank, in order of rank, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all_gather_object has filled every place

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Rank 0 runs the body first, then the other ranks; all leave together.

        For work whose result on disk the other ranks reuse, such as packing a corpus.
        """
        if self.world_size == 1:
            yield
            return
        patient = dist.new_group(backend="gloo", timeout=PREPARATION_TIMEOUT)
        if not self.is_main:
            dist.barrier(patient)
        yield
        if self.is_main:
            dist.barrier(patient)
        dist.barrier(patient)


SINGLE_PROCESS = DistributedContext()


def check_ranks_agree(context: DistributedContext, values: Mapping[str, object]) -> None:
    """Compares what every rank must have alike, such as settings or digests of data, with rank 0's.

    Raises:
        UserError: names the first rank that differs, and in what; on every rank.
    """
    first, *others = context.all_gather(dict(values))
    for rank, found in enumerate(others, 1):
        keys = [key for key in {**first, **found} if found.get(key) != first.get(key)]
        if keys:
            differ = "; ".join(f"{key}: {found.get(key)!r}, on rank 0 {first.get(key)!r}" for key in keys[:5])
            raise UserError(f"rank {rank} differs from rank 0, expected the same command, data and code: {differ}")


@contextmanager
def init_distributed(device: torch.device) -> Iterator[DistributedContext]:
    """Initialises the default process group from torchrun's environment variables and destroys it at the end.

    The backend is NCCL for CUDA tensors and gloo for CPU tensors.

    Raises:
        UserError: another process was lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, world_size = next(rendezvous("env://"))
        # torchrun keeps its store across restarts: keys left by killed processes must not be found again
        # (github.com/pytorch/pytorch/issues/135712). Nodes may count restarts differently, so only on a single node.
        if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
            store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT)
        yield DistributedContext(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # leave together: a rank that goes first takes the others' connections away
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in LOST_PEER):
            raise
        own_rank, all_ranks = os.environ.get("RANK", "?"), os.environ["WORLD_SIZE"]
        raise UserError(
            f"process {own_rank} of {all_ranks} lost another one ({str(error).splitlines()[0][:160]}); if that one was "
            "not killed, its own message says why. What was written is whole: the same command continues the run, and "
            "torchrun --max-restarts=3 does so by itself"
        ) from None
    finally:
        gc.collect()  # DistributedDataParallel holds the group and has to go before it
        if dist.is_initialized():
            dist.destroy_process_group()
