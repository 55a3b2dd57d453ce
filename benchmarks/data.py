"""The loader: utterances a second, the share of padding, and how long a training step waits for its batch.

    python -m benchmarks.data                                # competition lengths, synthetic files, no data needed
    python -m benchmarks.data --shape an4 --only ram-0,off-2

A contestant is a setting of `data.cache` and `data.workers`: ram-0, off-2. The files are noise in the lengths of the
shape, in a temporary folder (TMPDIR chooses the disk) and mostly still in the system's page cache: a disk that is slow
to read costs `off` and the first pass of `mmap` more than is seen here. Batches are augmented and made as train.py
makes them. Waiting is measured over a few steps of the configured model, after the first batch; on a GPU it is an upper
bound, since loading is not left to overlap with the step before.
Values are medians [quartiles].
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.command import Arguments, command_parser, introduce, print_table, read_arguments, write_json
from benchmarks.measure import Contestant, interleave, now, ratios, spread
from benchmarks.shapes import Epoch, Shape, draw_lengths
from benchmarks.trainees import make_model, training_step
from config import Data
from corpora.layout import find_partition
from corpora.loading import load_corpus
from dataset import FeatureDataset, is_cepstral, make_loader
from utils.augment import Augmentation
from utils.cli import run_command
from utils.device import choose_precision
from utils.errors import UserError
from utils.sampler import BucketSampler
from utils.vocabulary import CHARACTERS

WORKERS = (0, 2)
CACHES = get_args(Data.model_fields["cache"].annotation)
NAMES = tuple(f"{cache}-{workers}" for cache in CACHES for workers in WORKERS)
STEPS = 3  # whose waiting is measured
PARTITION = "train"


def write_corpus(root: Path, shape: Shape, utterances: int) -> None:
    """A partition in the layout of F23: noise and random characters."""
    generator = np.random.default_rng(0)
    for kind in ("mfcc", "transcripts"):
        (root / PARTITION / kind).mkdir(parents=True)
    for index, (T, U) in enumerate(zip(*draw_lengths(shape.train, utterances), strict=True)):
        features = generator.standard_normal((T, shape.feature_dim), dtype=np.float32)
        np.save(root / PARTITION / "mfcc" / f"{index:05d}.npy", features)
        text = generator.choice(list(CHARACTERS), U - 2)
        np.save(root / PARTITION / "transcripts" / f"{index:05d}.npy", np.array(["<sos>", *text, "<eos>"]))


def open_loader(root: Path, name: str, arguments: Arguments) -> DataLoader:
    """As train.py makes it, with this contestant's cache and workers, in an epoch with all augmentation."""
    cache, workers = name.split("-")
    data, augment = arguments.config.data, arguments.config.augment
    corpus = load_corpus(
        [find_partition(root, PARTITION)],
        data.normalize,
        cache=cache,
        cache_folder=root / "packs",
        half=data.half_precision,
        say=lambda _: None,
    )
    sampler = BucketSampler(corpus.lengths, arguments.shape.batch_size, seed=0, speed=augment.speed)
    sampler.epoch = augment.from_epoch
    dataset = FeatureDataset(corpus, Augmentation(0, is_cepstral(corpus), **augment.of_utterances))
    return make_loader(dataset, sampler, int(workers), arguments.device)


def one_pass(loader: DataLoader, device: torch.device) -> Callable[[None], None]:
    def run(_: None) -> None:
        for batch in loader:
            batch.to(device)

    return run


def waiting_share(loader: DataLoader, step: Callable, device: torch.device) -> Callable[[None], float]:
    """What share of some training steps is waiting for batches."""

    def run(_: None) -> float:
        batches, waiting = iter(loader), 0.0
        step(next(batches).to(device))
        start = now(device)
        for _ in range(min(STEPS, len(loader) - 1)):
            asked = now(device)
            batch = next(batches).to(device)
            waiting += now(device) - asked
            step(batch)
        return waiting / (now(device) - start)

    return run


def measure(arguments: Arguments, root: Path, utterances: int, precision: str) -> list[dict]:
    """A row a contestant."""
    device, config = arguments.device, arguments.config
    loaders = {name: open_loader(root, name, arguments) for name in arguments.only}
    passes = [Contestant(name, lambda _: None, one_pass(loader, device)) for name, loader in loaders.items()]
    rates = interleave(passes, arguments.rounds, arguments.seconds, device)

    settings = {**config.model.model_dump(), "ctc": config.training.ctc_weight > 0}
    model = make_model("project", arguments.shape.feature_dim, settings)
    step = training_step(model, dict(config.training), device, precision)
    steps = [Contestant(name, lambda _: None, waiting_share(loader, step, device)) for name, loader in loaders.items()]
    waits = interleave(steps, arguments.rounds, arguments.seconds, device)

    first, rows = arguments.only[0], []
    for name in loaders:
        seconds = rates[name].seconds
        rows.append(
            {
                "loader": name,
                "passes": len(seconds),
                "utterances a second": spread([utterances / value for value in seconds]),
                f"times {first}": ratios(rates[first].seconds, seconds),
                "rounds of steps": len(waits[name].results),
                "waiting": spread(waits[name].results),
            }
        )
    return rows


def padding(shape: Shape, device: torch.device) -> list[dict]:
    """Of a whole epoch of the shape, batched in both ways."""
    lengths = draw_lengths(shape.train)
    epochs = [Epoch(shape, lengths, kind, device) for kind in ("bucketed", "random")]
    return [{"batches": epoch.kind, "padded share of frames": epoch.padded_share} for epoch in epochs]


def main() -> None:
    parser = command_parser(__doc__, NAMES)
    parser.add_argument("--utterances", type=int, metavar="N", help="files to make (default: 16 batches)")
    arguments = read_arguments(parser, NAMES)
    utterances = arguments.given.utterances or 16 * arguments.shape.batch_size
    if utterances < 2 * arguments.shape.batch_size:
        raise UserError(f"--utterances: found {utterances}, expected two batches or more")
    precision = choose_precision(arguments.config.training.precision, arguments.device)
    introduce(arguments, f"{utterances:,} utterances on disk, precision {precision}")
    shares = padding(arguments.shape, arguments.device)
    print_table("padding of an epoch (goal: bucketed below 0.05)", shares)
    with tempfile.TemporaryDirectory() as root:
        write_corpus(Path(root), arguments.shape, utterances)
        rows = measure(arguments, Path(root), utterances, precision)
    print_table("the loader", rows)
    tables = {"utterances": utterances, "precision": precision, "padding": shares, "loader": rows}
    write_json(arguments, "benchmarks.data", tables)


if __name__ == "__main__":
    run_command(main)
