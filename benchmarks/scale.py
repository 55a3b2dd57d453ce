"""How start-up and memory of train.py grow with the number of utterances, up to LibriSpeech's 960 hours and beyond.

    python -m benchmarks.scale                               # 1,000 to 280,000 utterances, no data needed
    python -m benchmarks.scale --utterances 1000,50000

The corpus is in the competition's layout, with texts as long as LibriSpeech's and features of two dimensions; its files
are hard links to a few, in a temporary folder (TMPDIR chooses the disk) and in the system's page cache: a network disk
answers more slowly. `data.cache=mmap` packs it, then a fresh process of each size starts as train.py starts (imports,
check, sampler, model, first batch of two workers), shuffles an epoch and takes all its batches.
Memory is resident, at its most, in megabytes: of the process itself, and of the worker that has most. Seconds are of
one go.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import check_writable, machine, print_table, write_tables
from benchmarks.growth import parse_sizes
from benchmarks.measure import resident
from config import Config, load_config
from train import Trainer
from utils.cli import run_command
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.vocabulary import CHARACTERS

TEMPLATES = 97  # a disk links a file to some tens of thousands of names
DIM, WORKERS, DEV = 2, 2, 64


def link_corpus(root: Path, sizes: dict[str, int]) -> None:
    """Partitions of so many utterances, all hard links to `TEMPLATES` pairs of files."""
    generator = np.random.default_rng(0)
    (root / "templates").mkdir(parents=True)
    for number in range(TEMPLATES):
        text = generator.choice(list(CHARACTERS), generator.integers(150, 210))
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
    """A small model on the corpus under `root`; the rest as recommended."""
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


def go(root: Path, began: float, results) -> None:
    """In a fresh process: starts, shuffles, takes an epoch; sends what it took."""
    trainer = Trainer(small_config(root), lambda line: None, torch.device("cpu"), SINGLE_PROCESS)
    loader = trainer.train_loader
    trainer.sampler.epoch = 1
    batches = iter(loader)
    taken = len(next(batches).indices)
    started = time.time() - began
    start = time.perf_counter()
    shuffled = sum(len(batch) for batch in trainer.sampler)
    shuffling = time.perf_counter() - start
    at_start = resident("VmRSS")
    start, first = time.perf_counter(), taken
    taken += sum(len(batch.indices) for batch in batches)
    rate = (taken - first) / (time.perf_counter() - start)
    if not taken == shuffled == len(trainer.train_corpus):
        raise UserError(f"{taken} and {shuffled} utterances in an epoch, expected {len(trainer.train_corpus)}")
    workers = [resident("VmHWM", process.pid) for process in multiprocessing.active_children()]
    results.send((started, shuffling, rate, at_start, resident("VmHWM"), max(workers)))


def apart(root: Path) -> tuple[float, ...]:
    """What `go` sends from a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=go, args=(root, time.time(), sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise UserError("the process that was measured ended early; it says above why") from None
    finally:
        process.join()


def measure(utterances: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        link_corpus(root, {"train": utterances, "dev": DEV})
        start = time.perf_counter()
        apart(root)  # packs
        packed = time.perf_counter() - start
        started, shuffling, rate, at_start, peak, worker = apart(root)
    return {
        "utterances": utterances,
        "first start, packs (s)": packed,
        "start (s)": started,
        "shuffling (s)": shuffling,
        "utterances a second": rate,
        "at start (MB)": at_start / 1e6,
        "at most (MB)": peak / 1e6,
        "a worker (MB)": worker / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", default="1000,10000,100000,280000", metavar="N,N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    sizes = parse_sizes("--utterances", arguments.utterances)
    check_writable("--json", arguments.json)
    print(", ".join(f"{name} {value}" for name, value in machine(torch.device("cpu")).items()))
    rows = [measure(utterances) for utterances in sizes]
    print_table("growth with the corpus", rows)
    write_tables(arguments.json, arguments, "benchmarks.scale", torch.device("cpu"), {"scale": rows})


if __name__ == "__main__":
    run_command(main)
