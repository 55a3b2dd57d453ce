"""The Kaggle layout as batches: check every file, normalise, augment, bucket by length, pad.

train, dev = load_labelled(root, {"train": names, "dev": [name]}, ...)       # every file read and checked once
loader = make_loader(FeatureDataset(train, augment), BucketSampler(train.lengths, ...), ...)
for batch in loader: ...                                                      # padded tensors
"""

import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from corpora.checks import (
    READERS,
    Contents,
    Record,
    check_lengths,
    check_shapes,
    complaint,
    has_boundaries,
    infer_format,
    list_findings,
    read_features,
    read_utterance,
)
from corpora.layout import Files, Partition, find_partition
from corpora.packing import MappedFeatures, open_pack
from utils.augment import Augmentation
from utils.errors import BadFile, UserError
from utils.features import FeatureFormat
from utils.sampler import BucketSampler, Item
from utils.vocabulary import PAD, encode

FRAMES_PER_SECOND = 100
FULL_SIZES = {"train-clean-100": 28_539, "train-clean-360": 104_014, "dev-clean": 2_703, "test-clean": 2_620}


@dataclass(frozen=True)
class Corpus:
    """Checked utterances in file order. `features`: arrays `(T, D)` where they are kept, else None."""

    format: FeatureFormat
    paths: Files
    lengths: tuple[int, ...]  # frames
    texts: tuple[str, ...] | None
    features: Sequence[np.ndarray] | None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def size(self) -> str:
        return f"{len(self):,} utterances, {sum(self.lengths) / FRAMES_PER_SECOND / 3600:.2f} hours"

    @property
    def frames_per_character(self) -> float:
        return sum(self.lengths) / sum(map(len, self.texts))

    @cached_property
    def usual_frames(self) -> int:
        """Most utterances, 95 %, are no longer."""
        return int(np.percentile(self.lengths, 95))


# ------------------------------------------------------------------------------------------------------------- check


class BadCorpus(UserError):
    """What is wrong with the files of a corpus, and the format that the good ones have, if there are any."""

    HINT = "Mend or remove these files, or go on without them: data.skip_bad=true"

    def __init__(self, findings: str, feature_format: FeatureFormat | None):
        super().__init__(f"{findings}\n{self.HINT}")
        self.findings, self.format = findings, feature_format


def load_corpus(
    partitions: Sequence[Partition],
    normalize: str,
    *,
    feature_format: FeatureFormat | None = None,
    character_limit: Callable[[int], int] = lambda frames: frames,
    cache: str = "ram",
    cache_folder: Path | None = None,
    half: bool = False,
    skip_bad: bool = False,
    report: Path | None = None,
    say: Callable[[str], None] = print,
) -> Corpus:
    """Reads and checks every file of the partitions and reports all that is wrong at once.

    feature_format: what the model expects; None: inferred from the files.
    character_limit: how many characters can be aligned to that many frames.
    cache: ram: features stay in memory; off: they are read again for every batch; mmap: they are packed once into
    `cache_folder` and mapped (corpora/packing.py).   half: what is kept is kept in 16 bits.
    report: file that gets the whole list of findings.
    Raises BadCorpus with the findings, or drops those utterances with `skip_bad`; says in one line what was found.
    """
    name = "+".join(partition.name for partition in partitions)
    features = reduce(add, (partition.features for partition in partitions))
    labelled = all(partition.transcripts is not None for partition in partitions)
    transcripts = reduce(add, (partition.transcripts for partition in partitions)) if labelled else None

    packs = [open_pack(cache_folder, partition, half, say) for partition in partitions] if cache == "mmap" else []
    if packs:
        contents = reduce(add, (pack.contents for pack in packs))
    else:
        records = _read_all(name, features, transcripts or [None] * len(features), cache == "ram", half)
        contents = Contents.of(records)

    readable = contents.readable
    if feature_format is None and readable.any():
        feature_format = infer_format(contents.shapes[readable], normalize)
    if feature_format is not None:
        check_shapes(contents, features, feature_format)
        check_lengths(contents, transcripts, feature_format, character_limit)

    findings = [line for _, lines in sorted(contents.findings.items()) for line in lines]
    orphans = reduce(add, (partition.orphans for partition in partitions))
    findings += [complaint(path, "no features for it", "a pair of files") for path in orphans]
    good = [index for index in range(len(features)) if index not in contents.findings]
    if findings:
        found = list_findings(findings, name, len(features), report)
        if not (good and skip_bad):
            raise BadCorpus(found, feature_format)
        say(f"{found}\ngoing on without them (data.skip_bad=true)")

    time_axis = 0 if feature_format.time_first else 1
    kept: Sequence[np.ndarray] | None = None
    if packs:
        kept = MappedFeatures(packs, good, feature_format.time_first)
    elif cache == "ram":
        kept = tuple(_time_first(records[index].features, feature_format) for index in good)
    corpus = Corpus(
        feature_format,
        features.take(good),
        tuple(contents.shapes[good, time_axis].tolist()),
        tuple(contents.texts[index] for index in good) if labelled else None,
        kept,
    )
    boundaries = labelled and has_boundaries(transcripts[good[0]])
    say(_describe(name, partitions[0], corpus, boundaries))
    for partition in partitions:
        whole = FULL_SIZES.get(partition.name)
        if partition.layout.semester == "F23" and whole and len(partition.features) != whole:
            say(f"warning: {partition.name} has {len(partition.features):,} utterances, the whole of it {whole:,}")
    return corpus


def load_labelled(
    root: str | Path,
    roles: Mapping[str, Sequence[str]],
    normalize: str,
    *,
    reports: Path | None = None,
    **reading,
) -> list[Corpus]:
    """A corpus with transcripts for each role, such as `{"train": ["train-clean-100"], "dev": ["dev-clean"]}`.

    All have the format of the first. What is wrong with any of them is reported at once, in UserError.
    reports: folder for the lists of findings.   reading: what else `load_corpus` takes.
    """
    corpora, findings, feature_format = [], [], None
    for role, names in roles.items():
        partitions = [find_partition(root, name) for name in names]
        for partition in partitions:
            if partition.transcripts is None:
                folder = Path(root) / partition.name / partition.layout.transcripts
                raise UserError(f"data.{role}: {partition.name} has no transcripts: found no folder {folder}")
        report = reports and reports / f"findings-{role}.txt"
        try:
            corpus = load_corpus(partitions, normalize, feature_format=feature_format, report=report, **reading)
            corpora.append(corpus)
            feature_format = corpus.format
        except BadCorpus as bad:
            findings.append(bad.findings)
            feature_format = bad.format
    if findings:
        raise UserError("\n".join([*findings, BadCorpus.HINT]))
    return corpora


def _read_all(name: str, features: Files, transcripts: Sequence[Path | None], keep: bool, half: bool) -> list[Record]:
    def read(features: Path, transcript: Path | None) -> Record:
        record = read_utterance(features, transcript)
        if not keep:
            record.features = None
        elif half and record.features is not None:
            record.features = record.features.astype(np.float16)
        return record

    with ThreadPoolExecutor(READERS) as pool:
        reading = pool.map(read, features, transcripts)
        return list(tqdm(reading, f"checking {name}", len(features), unit="file", leave=False, disable=None))


def _describe(name: str, partition: Partition, corpus: Corpus, boundaries: bool) -> str:
    layout, dim = partition.layout, corpus.format.dim
    semester = "S23/S24" if layout.semester == "F23" and dim == 27 else layout.semester
    order = "" if corpus.format.time_first else ", stored (dimension, time)"
    transcripts = "no transcripts"
    if corpus.texts is not None:
        transcripts = f"transcripts {'with' if boundaries else 'without'} sos/eos"
    return f"found: {semester} layout, {dim}-dim {layout.features}{order}, {transcripts}: {name}, {corpus.size}"


def is_cepstral(corpus: Corpus) -> bool:
    """Whether the features are cepstra (MFCC) and not bands of a spectrum, where neighbours rise and fall together."""
    sample = [_stored(corpus, index) for index in range(min(len(corpus), 20))]
    frames = np.concatenate([features - features.mean(axis=0) for features in sample])
    together = (frames[:, 1:] * frames[:, :-1]).mean(axis=0) / (frames.std(axis=0)[1:] * frames.std(axis=0)[:-1] + 1e-9)
    return bool(together.mean() < 0.5)  # measured: 0.93 on log mel features, 0.03 on MFCC


# ----------------------------------------------------------------------------------------------------------- batches


def _time_first(features: np.ndarray, feature_format: FeatureFormat) -> np.ndarray:
    return features if feature_format.time_first else np.ascontiguousarray(features.T)


def _stored(corpus: Corpus, index: int) -> np.ndarray:
    """Features `(T, D)` as they are in the file. Raises UserError where it is another one than was checked."""
    if corpus.features is not None:
        return corpus.features[index].astype(np.float32, copy=False)
    path = corpus.paths[index]
    try:
        features = _time_first(read_features(path), corpus.format)
    except BadFile as bad:
        raise UserError(f"{path}: found {bad.found}, expected {bad.expected}, as when it was checked") from None
    if features.shape != (corpus.lengths[index], corpus.format.dim):
        expected = (corpus.lengths[index], corpus.format.dim)
        raise UserError(f"{path}: found shape {features.shape}, expected {expected}, as when it was checked")
    return features


def normalize(features: Tensor, kind: str) -> Tensor:
    """Cepstral mean (and variance) normalisation of one utterance `(T, D)` over time."""
    if kind == "none":
        return features
    centred = features - features.mean(dim=0)
    if kind == "mean":
        return centred
    return centred / (centred.std(dim=0, correction=0) + 1e-5)


class Utterance(NamedTuple):
    index: int
    features: Tensor  # (T, D)
    tokens: Tensor  # (U,), <sos> and <eos> included; (0,) without a transcript


class Batch(NamedTuple):
    """A padded batch. `indices` are positions in the corpus."""

    indices: Tensor  # (B,)
    features: Tensor  # (B, T, D)
    feature_lengths: Tensor  # (B,)
    tokens: Tensor  # (B, U)
    token_lengths: Tensor  # (B,)

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))

    @property
    def characters(self) -> Tensor:
        """How many there are to predict, `<eos>` counted: `()`."""
        return self.token_lengths.sum() - len(self.token_lengths)

    def rows(self, rows: slice) -> "Batch":
        """Some of its utterances, without the padding that only the others needed."""
        _, features, lengths, tokens, token_lengths = some = Batch(*(tensor[rows] for tensor in self))
        return some._replace(features=features[:, : lengths.max()], tokens=tokens[:, : token_lengths.max()])


class FeatureDataset(Dataset):
    """Utterances by `Item`."""

    def __init__(self, corpus: Corpus, augmentation: Augmentation | None = None):
        self.corpus, self.augmentation = corpus, augmentation

    def __getitem__(self, item: Item) -> Utterance:
        corpus, index = self.corpus, item.index
        features = torch.from_numpy(_stored(corpus, index))
        if self.augmentation is not None:
            features = self.augmentation.perturb(features, *item)
        features = normalize(features, corpus.format.normalize)
        if self.augmentation is not None:
            features = self.augmentation.mask(features, index, item.epoch)
        tokens = encode(corpus.texts[index]) if corpus.texts is not None else []
        return Utterance(index, features, torch.tensor(tokens, dtype=torch.long))


def collate(utterances: Sequence[Utterance]) -> Batch:
    """Pads features with 0 and tokens with `<pad>`."""
    features = [utterance.features for utterance in utterances]
    tokens = [utterance.tokens for utterance in utterances]
    return Batch(
        torch.tensor([utterance.index for utterance in utterances]),
        pad_sequence(features, batch_first=True),
        torch.tensor([len(x) for x in features]),
        pad_sequence(tokens, batch_first=True, padding_value=PAD),
        torch.tensor([len(x) for x in tokens]),
    )


def make_loader(dataset: FeatureDataset, sampler: BucketSampler, workers: int, device: torch.device) -> DataLoader:
    """Batches of `dataset` as `sampler` groups them; pinned for an asynchronous copy where the device is a GPU."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals,
    )


def _leave_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM often reach a whole group of processes: the one that trains saves, with its workers' help."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
