"""Start-up time and memory of train.py by number of utterances, up to LibriSpeech's 960 hours.

    python -m benchmarks.scale                               # 1,000 to 280,000 utterances, no data needed
    python -m benchmarks.scale --utterances 1000,50000

The corpus is in the competition's layout, with texts as long as LibriSpeech's and two-dimensional features. Its files
are hard links to a few, in a temporary folder (TMPDIR chooses the disk) and in the system's page cache; a network disk
answers more slowly. `data.cache=mmap` packs it. Then, for each size, a fresh process starts as train.py does (imports,
checks, sampler, model, first batch from two workers), shuffles an epoch and loads all its batches.
Memory is resident memory in megabytes at its peak, of the process itself and of its largest worker. Times are of a
single run.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.cli import check_writable, parse_sizes, print_table, system_info, write_json
from benchmarks.measure import resident
from config import Config, load_config
from train import Trainer
from training.recorder import open_run_folder
from utils.cli import run_command
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.vocabulary import KAGGLE

TEMPLATES = 97  # files to link to; file systems limit the links to one file, ext4 to 65,000
DIM, WORKERS, DEV_UTTERANCES = 2, 2, 64


class Cost(NamedTuple):
    """What starting a training and loading an epoch cost."""

    start: float  # seconds from the start of the process to its first batch
    shuffling: float  # seconds per epoch
    utterances_per_second: float  # loaded
    memory_at_start: int  # bytes, once the first batch is there
    peak_memory: int  # bytes
    worker_memory: int  # bytes, of the largest worker at its peak


def link_corpus(root: Path, sizes: Mapping[str, int]) -> None:
    """Makes partitions of hard links to `TEMPLATES` pairs of files.

    Args:
        root: folder of the partitions.
        sizes: number of utterances of each partition.
    """
    generator = np.random.default_rng(0)
    (root / "templates").mkdir(parents=True)
    for number in range(TEMPLATES):
        text = generator.choice(list(KAGGLE.characters), generator.integers(150, 210))
        features = generator.standard_normal((generator.integers(900, 1500), DIM), dtype=np.float32)
        np.save(root / "templates" / f"{number}-mfcc.npy", features)
        np.save(root / "templates" / f"{number}-transcripts.npy", np.array(["<sos>", *text, "<eos>"]))
    for partition, utterances in sizes.items():
        for kind in ("mfcc", "transcripts"):
            folder = root / partition / kind
            folder.mkdir(parents=True)
            for number in range(utterances):
                template = root / "templates" / f"{number % TEMPLATES}-{kind}.npy"
                os.link(template, folder / f"{number // 1000}-{number % 1000:06d}-{number:06d}.npy")


def small_config(root: Path) -> Config:
    """A configuration with a small model on the corpus under `root`; the rest is as in config.yaml."""
    overrides = [
        f"data.root={root}",
        f"run.dir={root / 'runs'}",
        "data={train: [train], dev: dev, cache: mmap, half_precision: true}",
        f"data.workers={WORKERS}",
        "model.listener={blstm_layers: 0, hidden: 16}",
        "model.attention.dim=16",
        "model.speller={embedding: 16, hidden: 16, layers: 1}",
        "training.device=cpu",
    ]
    return load_config(overrides=overrides)


def start_and_load_epoch(root: Path, launched: float, connection: Connection) -> None:
    """The body of the measured process: starts a training, shuffles, loads an epoch, and sends its `Cost`.

    Args:
        root: folder of the corpus.
        launched: when the process was started, by `time.time()`.
        connection: to send to.

    Raises:
        UserError: the epoch did not have every utterance.
    """
    config = small_config(root)
    open_run_folder(config.run.path)
    data = Trainer(config, torch.device("cpu"), SINGLE_PROCESS).data
    data.sampler.epoch = 1
    batches = iter(data.train_loader)
    first = len(next(batches).indices)
    start_time = time.time() - launched

    start = time.perf_counter()
    shuffled = sum(len(batch) for batch in data.sampler)
    shuffling = time.perf_counter() - start
    memory_at_start = resident("VmRSS")

    start = time.perf_counter()
    loaded = sum(len(batch.indices) for batch in batches)
    rate = loaded / (time.perf_counter() - start)
    if not first + loaded == shuffled == len(data.train):
        raise UserError(f"found {first + loaded} and {shuffled} utterances in an epoch, expected {len(data.train)}")
    workers = [resident("VmHWM", process.pid) for process in multiprocessing.active_children() if process.pid]
    connection.send(Cost(start_time, shuffling, rate, memory_at_start, resident("VmHWM"), max(workers)))


def run_in_fresh_process(root: Path) -> Cost:
    """Runs `start_and_load_epoch` in a new interpreter.

    Raises:
        UserError: it failed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=start_and_load_epoch, args=(root, time.time(), sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise UserError("the process that was measured ended early; its own message above says why") from None
    finally:
        process.join()


def measure(utterances: int) -> dict[str, Any]:
    """Measures a corpus of `utterances`: one row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        link_corpus(root, {"train": utterances, "dev": DEV_UTTERANCES})
        start = time.perf_counter()
        run_in_fresh_process(root)  # packs the corpus
        packing = time.perf_counter() - start
        cost = run_in_fresh_process(root)
    return {
        "utterances": utterances,
        "first start, packs (s)": packing,
        "start (s)": cost.start,
        "shuffling (s)": cost.shuffling,
        "utterances per second": cost.utterances_per_second,
        "at start (MB)": cost.memory_at_start / 1e6,
        "at most (MB)": cost.peak_memory / 1e6,
        "a worker (MB)": cost.worker_memory / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", default="1000,10000,100000,280000", metavar="N,N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    flags = parser.parse_args()
    sizes = parse_sizes("--utterances", flags.utterances)
    check_writable("--json", flags.json)
    device = torch.device("cpu")
    print(", ".join(f"{name} {value}" for name, value in system_info(device).items()))
    rows = [measure(utterances) for utterances in sizes]
    print_table("growth with the corpus", rows)
    write_json(flags.json, flags, "benchmarks.scale", device, {"scale": rows})


if __name__ == "__main__":
    run_command(main)
