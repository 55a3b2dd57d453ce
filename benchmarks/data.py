"""The data loader: utterances per second, share of padding, and how long a training step waits for its batch.

    python -m benchmarks.data                                # competition lengths, synthetic files, no data needed
    python -m benchmarks.data --shape an4 --only ram-0,off-2

A contestant is a setting of `data.cache` and `data.workers`, such as ram-0 or off-2. The files hold noise in the
lengths of the shape and lie in a temporary folder (TMPDIR chooses the disk), mostly still in the system's page cache:
on a disk that is slow to read, `off` and the first pass of `mmap` cost more than is seen here. Batches are made and
augmented as in train.py. Waiting is measured over a few steps of the configured model, after the first batch; on a GPU
it is an upper bound, since loading is not left to overlap with the step before. Values are medians [quartiles].
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.cli import Arguments, command_parser, parse_arguments, print_setup, print_table, write_json
from benchmarks.measure import Contestant, interleave, now, quartiles, ratios
from benchmarks.shapes import Epoch, Shape, draw_lengths
from benchmarks.training_steps import STEP_SETTINGS, Step, make_model, training_step
from config import DataConfig
from corpora.layout import find_partition
from corpora.loading import load_corpus
from dataset import FeatureDataset, is_cepstral, make_loader
from utils.augment import Augmentation
from utils.cli import run_command
from utils.device import choose_precision
from utils.errors import UserError
from utils.sampler import BucketSampler
from utils.vocabulary import KAGGLE

WORKERS = (0, 2)
CACHES = get_args(DataConfig.model_fields["cache"].annotation)
NAMES = tuple(f"{cache}-{workers}" for cache in CACHES for workers in WORKERS)
STEPS = 3  # training steps per round, over which waiting is measured
PARTITION = "train"


def write_corpus(root: Path, shape: Shape, utterances: int) -> None:
    """Writes a partition in the layout of F23: noise, and random characters."""
    generator = np.random.default_rng(0)
    for kind in ("mfcc", "transcripts"):
        (root / PARTITION / kind).mkdir(parents=True)
    for index, (T, U) in enumerate(zip(*draw_lengths(shape.train, utterances), strict=True)):
        features = generator.standard_normal((T, shape.feature_dim), dtype=np.float32)
        np.save(root / PARTITION / "mfcc" / f"{index:05d}.npy", features)
        text = generator.choice(list(KAGGLE.characters), U - 2)
        np.save(root / PARTITION / "transcripts" / f"{index:05d}.npy", np.array(["<sos>", *text, "<eos>"]))


@contextmanager
def warnings_only() -> Iterator[None]:
    """Context in which the project logs no line per corpus, since every contestant loads the same one."""
    project = logging.getLogger("las")
    level = project.level
    project.setLevel(logging.WARNING)
    try:
        yield
    finally:
        project.setLevel(level)


def make_contestant_loader(root: Path, name: str, arguments: Arguments) -> DataLoader:
    """The train loader as train.py makes it, with the cache and workers of a contestant, in a fully augmented epoch."""
    cache, workers = name.split("-")
    data, augment = arguments.config.data, arguments.config.augment
    loading = {**arguments.config.loading_kwargs, "cache": cache, "cache_folder": root / "packs"}
    with warnings_only():
        corpus = load_corpus([find_partition(root, PARTITION)], data.normalize, **loading)
    sampler = BucketSampler(corpus.lengths, arguments.shape.batch_size, seed=0, speed=augment.speed)
    sampler.epoch = augment.from_epoch
    dataset = FeatureDataset(corpus, Augmentation(0, is_cepstral(corpus), **augment.utterance_kwargs))
    return make_loader(dataset, sampler, int(workers), arguments.device)


def full_pass(loader: DataLoader, device: torch.device) -> Callable[[None], None]:
    """A function that loads every batch of an epoch onto the device."""

    def run(_: None) -> None:
        for batch in loader:
            batch.to(device)

    return run


def waiting_share(loader: DataLoader, step: Step, device: torch.device) -> Callable[[None], float]:
    """A function that makes a few training steps and returns the share of their time spent waiting for batches."""

    def run(_: None) -> float:
        batches, waiting = iter(loader), 0.0
        step(next(batches).to(device))
        start = now(device)
        for _step in range(min(STEPS, len(loader) - 1)):
            asked = now(device)
            batch = next(batches).to(device)
            waiting += now(device) - asked
            step(batch)
        return waiting / (now(device) - start)

    return run


def measure(arguments: Arguments, root: Path, utterances: int, precision: str) -> list[dict[str, Any]]:
    """Measures the loaders of the corpus under `root`: one row per contestant."""
    device, config = arguments.device, arguments.config
    loaders = {name: make_contestant_loader(root, name, arguments) for name in arguments.only}
    passes = [Contestant(name, lambda _: None, full_pass(loader, device)) for name, loader in loaders.items()]
    timed = interleave(passes, arguments.rounds, arguments.seconds, device)

    model = make_model("project", arguments.shape.feature_dim, config.model_kwargs)
    step = training_step(model, device, precision, **config.training.model_dump(include=STEP_SETTINGS))
    steps = [Contestant(name, lambda _: None, waiting_share(loader, step, device)) for name, loader in loaders.items()]
    waits = interleave(steps, arguments.rounds, arguments.seconds, device)

    first, rows = arguments.only[0], []
    for name in loaders:
        seconds = timed[name].seconds
        rows.append(
            {
                "loader": name,
                "passes": len(seconds),
                "utterances per second": quartiles([utterances / value for value in seconds]),
                f"times {first}": ratios(timed[first].seconds, seconds),
                "rounds of steps": len(waits[name].results),
                "waiting": quartiles(waits[name].results),
            }
        )
    return rows


def padding(shape: Shape, device: torch.device) -> list[dict[str, Any]]:
    """The share of padding in an epoch of the shape: one row per way to make batches."""
    lengths = draw_lengths(shape.train)
    epochs = [Epoch(shape, lengths, batching, device) for batching in ("bucketed", "random")]
    return [{"batches": epoch.batching, "padded share of frames": epoch.padded_share} for epoch in epochs]


def main() -> None:
    parser = command_parser(__doc__, NAMES)
    parser.add_argument("--utterances", type=int, metavar="N", help="files to make (default: 16 batches)")
    arguments = parse_arguments(parser, NAMES)
    utterances = arguments.flags.utterances or 16 * arguments.shape.batch_size
    if utterances < 2 * arguments.shape.batch_size:
        raise UserError(f"--utterances: found {utterances}, expected two batches or more")
    precision = choose_precision(arguments.config.training.precision, arguments.device)
    print_setup(arguments, f"{utterances:,} utterances on disk, precision {precision}")
    shares = padding(arguments.shape, arguments.device)
    print_table("padding of an epoch (goal: bucketed below 0.05)", shares)
    with tempfile.TemporaryDirectory() as root:
        write_corpus(Path(root), arguments.shape, utterances)
        rows = measure(arguments, Path(root), utterances, precision)
    print_table("the loader", rows)
    tables = {"utterances": utterances, "precision": precision, "padding": shares, "loader": rows}
    write_json(arguments.json, arguments.flags, "benchmarks.data", arguments.device, tables)


if __name__ == "__main__":
    run_command(main)
