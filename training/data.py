"""The data of a training: corpora that are checked once, and loaders of their batches."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corpora.loading import Corpus, load_labelled
from dataset import WORKERS_FORK, BatchLoader, FeatureDataset, is_cepstral, make_loader
from decoding.transcribe import share_of_batches
from utils.augment import Augmentation
from utils.distributed import DistributedContext
from utils.errors import UserError
from utils.features import FeatureConfig, training_feature_config
from utils.sampler import BucketSampler
from utils.vocabulary import KAGGLE, TextForm, Vocabulary

SHARED_MEMORY = "/dev/shm"
PREFETCHED = 2  # batches that each worker prepares ahead

logger = logging.getLogger(f"las.{__name__}")


@dataclass(frozen=True)
class TrainingData:
    """Training and dev corpus with their loaders; of each batch, every rank loads its share."""

    train: Corpus
    dev: Corpus
    sampler: BucketSampler  # of the train loader; its epoch and first batch are set before iterating
    train_loader: BatchLoader
    dev_loader: BatchLoader
    feature_config: FeatureConfig | None  # None: unknown, as of the competition's features


def load_training_data(
    *,
    root: str,
    train: Sequence[str],
    dev: str,
    normalize: str,
    vocabulary: Vocabulary | TextForm = KAGGLE,
    loading: Mapping[str, Any],
    character_limit: Callable[[int], int],
    batch_size: int,
    workers: int,
    seed: int,
    speed: float,
    concatenate: float,
    augmentation: Mapping[str, Any],
    resumed: FeatureConfig | None,
    reports: Path,
    device: torch.device,
    context: DistributedContext,
) -> TrainingData:
    """Loads and checks both corpora, rank 0 first, and makes their loaders.

    Args:
        root: folder of the partitions.
        train: partitions to train on.
        dev: partition to evaluate on.
        normalize: none, mean, mean_variance.
        vocabulary: of the model; a form alone: its characters are those of the training transcripts.
        loading: further keyword arguments of `load_corpus`.
        character_limit: how many characters the model can align to a number of frames.
        batch_size: utterances per batch, over all ranks.
        workers: processes that prepare batches.
        seed: of shuffling and augmentation.
        speed: of speed perturbation, see `BucketSampler`.
        concatenate: share of utterances in pairs, see `BucketSampler`.
        augmentation: keyword arguments of `Augmentation` but for those known here.
        resumed: feature configuration of the run that is resumed, if any.
        reports: folder for the lists of findings.
        device: to which batches will be copied.
        context: ranks that share the batches.

    Raises:
        UserError: files that cannot be used, with all findings, or a batch size too small to share.
    """
    world_size = context.world_size
    if world_size > 1 and batch_size < 2 * world_size:
        raise UserError(
            f"training.batch_size: found {batch_size}, expected at least {2 * world_size}, since {world_size} "
            "processes share it"
        )
    if workers and not WORKERS_FORK and loading.get("cache") == "ram":
        loading = {**loading, "cache": "mmap"}
        logger.info("data.cache: mmap, since each worker of this system would hold a copy of all features in memory")
    with context.main_process_first():
        train_corpus, dev_corpus = load_labelled(
            root,
            {"train": train, "dev": [dev]},
            normalize,
            vocabulary=vocabulary,
            character_limit=character_limit,
            reports=reports if context.is_main else None,
            **loading,
        )
    if context.is_main:
        warn_of_overlap(train_corpus, dev_corpus)
    feature_config = training_feature_config(root, train_corpus.format.dim, resumed)
    longest = max(train_corpus.lengths) / (1 - speed) * (2 if concatenate else 1)
    batch_bytes = int(-(-batch_size // world_size) * longest * train_corpus.format.dim * 4)
    workers = workers_that_fit(workers, batch_bytes)
    sampler = BucketSampler(train_corpus.lengths, batch_size, seed, speed, context.rank, world_size, concatenate)
    dataset = FeatureDataset(train_corpus, Augmentation(seed, is_cepstral(train_corpus), **augmentation))
    dev_batches = share_of_batches(dev_corpus.lengths, 1, len(dev_corpus.vocabulary), device, context)
    return TrainingData(
        train_corpus,
        dev_corpus,
        sampler,
        make_loader(dataset, sampler, workers, device),
        make_loader(FeatureDataset(dev_corpus), dev_batches, 0, device),
        feature_config,
    )


def workers_that_fit(workers: int, batch_bytes: int) -> int:
    """`workers`, or 0 with a warning where their batches do not fit in shared memory.

    A worker that finds none left is killed. Docker gives 64 MB unless told otherwise.

    Args:
        workers: processes that prepare batches.
        batch_bytes: size of the largest batch.
    """
    try:
        found = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):  # not on Linux
        return workers
    free, needed = found.f_bavail * found.f_frsize, (workers * PREFETCHED + 1) * batch_bytes
    if not workers or needed <= free:
        return workers
    logger.warning(
        f"data.workers: batches are prepared without workers, for {SHARED_MEMORY} has {free / 2**20:.0f} MB free and "
        f"{workers} of them may need {needed / 2**20:.0f} MB (docker run --shm-size=2g gives more)"
    )
    return 0


def warn_of_overlap(train: Corpus, dev: Corpus) -> None:
    """Warns of dev utterances that are trained on, also under another name: dev would measure memory, not skill."""
    by_shape: dict[tuple[int, str], list[int]] = {}
    for index, shape in enumerate(zip(train.lengths, train.transcripts, strict=True)):
        by_shape.setdefault(shape, []).append(index)
    same = []
    for index, shape in enumerate(zip(dev.lengths, dev.transcripts, strict=True)):
        candidates = by_shape.get(shape, ())
        if any(np.array_equal(dev.read(index), train.read(other)) for other in candidates):
            same.append(dev.paths[index].stem)
    if same:
        logger.warning(
            f"data.dev: {len(same)} of {len(dev)} utterances are trained on as well, such as {same[0]}: the dev "
            "distance says little about other speech, and best.pt is chosen by it"
        )
