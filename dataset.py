"""Utterances as batches: augment, normalise, bucket by length, pad.

loader = make_loader(FeatureDataset(corpus, augmentation), BucketSampler(corpus.lengths, ...), ...)
for batch in loader: ...                                                      # padded tensors
"""

import multiprocessing
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from corpora.loading import Corpus
from utils.augment import Augmentation
from utils.cli import SIGNALS
from utils.errors import UserError
from utils.failures import dead_worker, describe_exit
from utils.sampler import NONE, Item
from utils.vocabulary import PAD

# Forked workers share what is in memory; spawned ones get copies. Python 3.14 forks only where it is told to.
WORKERS_FORK = sys.platform == "linux"
GRACE = 2.0  # seconds in which workers that have nothing more to do leave by themselves
EPSILON = 1e-5  # added to a deviation, relative to the scale of the features
ORDINARY = (1e-2, 1e15)  # deviations of features that float32 normalises exactly enough


def is_cepstral(corpus: Corpus) -> bool:
    """Whether the features are cepstra (MFCC) and not bands of a spectrum, where neighbours rise and fall together."""
    sample = [corpus.read(index).astype(np.float64) for index in range(min(len(corpus), 20))]
    frames = np.concatenate([features - features.mean(axis=0) for features in sample])
    deviation = frames.std(axis=0)
    scale = deviation[1:] * deviation[:-1]
    covariance = (frames[:, 1:] * frames[:, :-1]).mean(axis=0)
    together = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    return bool(together.mean() < 0.5)  # measured: 0.93 on log mel features, 0.03 on MFCC


def normalize(features: Tensor, kind: str) -> Tensor:
    """Cepstral mean (and variance) normalisation of one utterance over time, whatever the features' scale.

    Args:
        features: `(T, D)`, finite.
        kind: none, mean, mean_variance.

    Returns:
        `(T, D)`, of the same dtype.
    """
    if kind == "none":
        return features
    centred = features - features.mean(dim=0)
    if kind == "mean":
        return centred
    deviation = centred.std(dim=0, correction=0)
    if ORDINARY[0] <= float(deviation.max()) <= ORDINARY[1]:
        return centred / (deviation + EPSILON)
    # Squares of large numbers overflow float32, and small deviations vanish beside a fixed epsilon.
    wide = features.double()
    wide = wide - wide.mean(dim=0)
    deviation, scale = wide.std(dim=0, correction=0), float(wide.std(correction=0))
    return (wide / (deviation + EPSILON * scale)).to(features.dtype) if scale else torch.zeros_like(features)


class Utterance(NamedTuple):
    """An utterance as the model gets it."""

    position: int  # in the corpus
    features: Tensor  # (T, D)
    tokens: Tensor  # (U,), <sos> and <eos> included; (0,) without a transcript
    follower: int | None = None  # position of the utterance that is concatenated to it


NOBODY = torch.empty(0, dtype=torch.long)


class Batch(NamedTuple):
    """A padded batch. Positions and lengths stay on the CPU, where they are read without waiting for a GPU."""

    indices: Tensor  # (B,) positions in the corpus
    features: Tensor  # (B, T, D)
    feature_lengths: Tensor  # (B,)
    tokens: Tensor  # (B, U), <sos> and <eos> included
    token_lengths: Tensor  # (B,)
    followers: Tensor = NOBODY  # (B,) positions of the utterances that are concatenated to them, or -1

    def to(self, device: torch.device) -> "Batch":
        features, tokens = (tensor.to(device, non_blocking=True) for tensor in (self.features, self.tokens))
        return self._replace(features=features, tokens=tokens)

    @property
    def characters(self) -> int:
        """Number of characters to predict, `<eos>` counted."""
        return int(self.token_lengths.sum()) - len(self.token_lengths)

    def rows(self, rows: slice) -> "Batch":
        """Some of the utterances, without the padding that only the others needed."""
        some = Batch(*(tensor[rows] for tensor in self))
        features, tokens = some.features[:, : some.feature_lengths.max()], some.tokens[:, : some.token_lengths.max()]
        return some._replace(features=features, tokens=tokens)


class FeatureDataset(Dataset):
    """Utterances of a corpus, augmented and normalised.

    Args:
        corpus: checked utterances.
        augmentation: of training utterances; None for evaluation.
    """

    def __init__(self, corpus: Corpus, augmentation: Augmentation | None = None):
        self.corpus, self.augmentation = corpus, augmentation

    def __getitem__(self, item: Item) -> Utterance:
        positions = [item.position] if item.follower is None else [item.position, item.follower]
        features = torch.cat([self._read(position, item) for position in positions])
        if self.augmentation is not None:
            features = self.augmentation.mask(features, item.position, item.epoch)
        tokens = self.corpus.tokens_of(*positions) if self.corpus.texts is not None else []
        return Utterance(item.position, features, torch.tensor(tokens, dtype=torch.long), item.follower)

    def _read(self, position: int, item: Item) -> Tensor:
        """Features `(T, D)` of one utterance, perturbed and normalised."""
        features = torch.from_numpy(self.corpus.read(position))
        if self.augmentation is not None:
            features = self.augmentation.perturb(features, position, item.epoch, item.speed)
        return normalize(features, self.corpus.format.normalize)


def collate(utterances: Sequence[Utterance]) -> Batch:
    """Pads features with 0 and tokens with `<pad>`."""
    features = [utterance.features for utterance in utterances]
    tokens = [utterance.tokens for utterance in utterances]
    return Batch(
        torch.tensor([utterance.position for utterance in utterances]),
        pad_sequence(features, batch_first=True),
        torch.tensor([len(x) for x in features]),
        pad_sequence(tokens, batch_first=True, padding_value=PAD),
        torch.tensor([len(x) for x in tokens]),
        torch.tensor([NONE if utterance.follower is None else utterance.follower for utterance in utterances]),
    )


class BatchLoader(DataLoader[Utterance]):
    """A DataLoader of batches, whose workers may die or get stuck without more than one message, within seconds."""

    workers: tuple[BaseProcess, ...] = ()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Raises UserError if a worker has died."""
        before = multiprocessing.active_children()
        try:
            batches = super().__iter__()
        except (OSError, RuntimeError) as error:  # not all of them could be started
            said, sys.unraisablehook = sys.unraisablehook, lambda _: None  # torch's half-made iterator fails to end
            traceback.clear_frames(error.__traceback__)
            sys.unraisablehook = said
            raise
        finally:
            if not self.workers:
                self.workers = tuple(child for child in multiprocessing.active_children() if child not in before)
        try:
            yield from batches
        except (OSError, EOFError, RuntimeError) as error:  # of torch, of a pipe, or of a socket for shared memory
            ending = connection.wait([worker.sentinel for worker in self.workers], timeout=0.5)  # a pipe breaks before
            for worker in self.workers:
                worker.join(1 if worker.sentinel in ending else 0)  # its files are closed before there is an exit code
            ended = [worker.exitcode for worker in self.workers if worker.exitcode]
            if not ended:
                raise
            raise UserError(dead_worker(f"{describe_exit(ended[0])}; {type(error).__name__}")) from None

    def end_workers(self) -> None:
        """Has those workers killed, in the background, that do not leave within `GRACE`; no batch is wanted any more.

        Whoever still refers to an iterator of this loader waits for its workers, also Python at its exit, and a worker
        that waits for a disk may never leave: it ignores the signals that ask it to.
        """
        if not any(worker.is_alive() for worker in self.workers):
            return
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would call it a failure

        threading.Thread(target=_kill_later, args=(self.workers,), daemon=True).start()


def _kill_later(workers: Sequence[BaseProcess]) -> None:
    """Of a thread's own, which holds no tensor: the last reference to one, let go while Python ends, aborts it."""
    time.sleep(GRACE)
    for worker in workers:
        worker.kill()


def make_loader(
    dataset: FeatureDataset, sampler: Iterable[list[Item]], workers: int, device: torch.device
) -> BatchLoader:
    """A loader of padded batches.

    Args:
        dataset: utterances.
        sampler: the items of each batch.
        workers: processes that prepare batches; 0 is this process.
        device: that batches will be copied to; for a GPU they are in pinned memory, for an asynchronous copy.
    """
    return BatchLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context=("fork" if WORKERS_FORK else "spawn") if workers else None,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_prepare_worker,
    )


def _prepare_worker(worker: int) -> None:
    """Leaves it to the main process to say what ends a worker, or both of them.

    Signals that reach a whole group of processes, as Ctrl-C does, are ignored: the main process needs its workers to
    save. Torch's handlers would print what ends the worker alone, and the thread that hands tensors over would print a
    traceback where the main process has stopped in the middle of taking one.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGSEGV, signal.SIGFPE, getattr(signal, "SIGBUS", signal.SIGSEGV)):
        signal.signal(number, signal.SIG_DFL)
    sys.excepthook = _ignore_broken_pipes


def _ignore_broken_pipes(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
