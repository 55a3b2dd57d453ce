"""Corpora: partitions whose files have all been read and checked.

train, dev = load_labelled(root, {"train": names, "dev": [name]}, ...)
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from corpora.checks import (
    READERS,
    PartitionIndex,
    UtteranceRecord,
    check_lengths,
    check_shapes,
    check_texts,
    checksum_of,
    complaint,
    has_boundaries,
    infer_format,
    list_findings,
    read_features,
    read_utterance,
)
from corpora.layout import Partition, PathList, find_partition
from corpora.packing import MappedFeatures, Pack, open_pack
from utils.errors import BadFile, UserError
from utils.features import FeatureFormat
from utils.vocabulary import KAGGLE, TextForm, Vocabulary, list_characters, vocabulary_of_texts

FRAMES_PER_SECOND = 100
RARE = 5  # occurrences in the training transcripts below which a character is hardly learned
FULL_SIZES = {"train-clean-100": 28_539, "train-clean-360": 104_014, "dev-clean": 2_703, "test-clean": 2_620}

logger = logging.getLogger(f"las.{__name__}")


@dataclass(frozen=True)
class Corpus:
    """Checked utterances in file order."""

    format: FeatureFormat
    paths: Sequence[Path]
    lengths: tuple[int, ...]  # frames
    texts: tuple[str, ...] | None
    features: Sequence[np.ndarray] | MappedFeatures | None  # (T, D) each; None: read from the files every time
    checksums: Sequence[int] = ()  # of the features, as they are stored
    vocabulary: Vocabulary = KAGGLE  # that the texts are spelled with

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def size(self) -> str:
        return f"{len(self):,} utterances, {sum(self.lengths) / FRAMES_PER_SECOND / 3600:.2f} hours"

    @property
    def frames_per_character(self) -> float:
        """A character is a token of the vocabulary."""
        return sum(self.lengths) / sum(map(self.vocabulary.count, self.transcripts))

    def tokens_of(self, *indices: int) -> list[int]:
        """Tokens of an utterance's text, or of several with a space between, `<sos>` and `<eos>` around them.

        What the vocabulary lacks is left out.
        """
        return self.vocabulary.encode(self.vocabulary.known(" ".join(self.transcripts[index] for index in indices)))

    @cached_property
    def p95_frames(self) -> int:
        """Most utterances, 95 %, are no longer."""
        return int(np.percentile(self.lengths, 95))

    @cached_property
    def digests(self) -> dict[str, int]:
        """A number of 63 bits for each utterance, by its name, that changes with its length, its text and features."""
        texts, checksums = self.texts or [""] * len(self), self.checksums or [0] * len(self)
        contents = zip(self.lengths, texts, checksums, strict=True)
        numbers = (
            int.from_bytes(hashlib.blake2b(repr(content).encode(), digest_size=8).digest()) >> 1 for content in contents
        )
        names = (f"{path.parent.parent.name}/{path.stem}" for path in self.paths)
        return dict(zip(names, numbers, strict=True))

    @property
    def digest(self) -> str:
        """Of all utterances and their order."""
        return hashlib.sha256(repr(list(self.digests.items())).encode()).hexdigest()[:16]

    @property
    def transcripts(self) -> tuple[str, ...]:
        """The texts of a corpus that has them. Raises ValueError for one that has not."""
        if self.texts is None:
            raise ValueError("this corpus has no transcripts")
        return self.texts

    def read(self, index: int) -> np.ndarray:
        """Features `(T, D)` of an utterance, float32, as stored but time first.

        Raises:
            UserError: the file is not the one that was checked.
        """
        if self.features is not None:
            try:
                return self.features[index].astype(np.float32, copy=False)
            except BadFile as bad:
                raise UserError(f"{self.paths[index]}: {bad}") from None
        path, expected = self.paths[index], (self.lengths[index], self.format.dim)
        try:
            stored = read_features(path)
            features = _time_first(stored, self.format)
        except BadFile as bad:
            raise UserError(f"{path}: found {bad.found}, expected {bad.expected}, as when it was checked") from None
        if features.shape != expected:
            raise UserError(f"{path}: found shape {features.shape}, expected {expected}, as when it was checked")
        if self.checksums and checksum_of(stored) != self.checksums[index]:
            raise UserError(f"{path}: found other features than when it was checked, expected the same for a whole run")
        return features


class BadCorpus(UserError):
    """Files of a corpus that cannot be used.

    Args:
        findings: a line for each.
        feature_format: of the good files, if there are any.
        vocabulary: of the corpus.
    """

    HINT = "Mend or remove these files, or go on without them: data.skip_bad=true"

    def __init__(self, findings: str, feature_format: FeatureFormat | None, vocabulary: Vocabulary):
        super().__init__(f"{findings}\n{self.HINT}")
        self.findings, self.format, self.vocabulary = findings, feature_format, vocabulary


def load_corpus(
    partitions: Sequence[Partition],
    normalize: str,
    *,
    feature_format: FeatureFormat | None = None,
    vocabulary: Vocabulary | TextForm = KAGGLE,
    scored: bool = False,
    character_limit: Callable[[int], int] = lambda frames: frames,
    cache: str = "ram",
    cache_folder: Path | None = None,
    half: bool = False,
    skip_bad: bool = False,
    report: Path | None = None,
) -> Corpus:
    """Reads and checks every file of the partitions; logs in one line what was found.

    Args:
        partitions: to make one corpus of.
        normalize: of the feature format, if it is inferred: none, mean, mean_variance.
        feature_format: that the model expects; None: inferred from the files.
        vocabulary: of the model; a form alone: its characters are those of the texts.
        scored: whether texts are only compared with, see `check_texts`.
        character_limit: how many characters can be aligned to a number of frames.
        cache: ram keeps features in memory; off reads them again for every batch; mmap packs them once into
            `cache_folder` and maps them (corpora/packing.py).
        cache_folder: of the packs.
        half: whether features are kept, or packed, as float16.
        skip_bad: whether to drop utterances with findings and go on.
        report: file for the whole list of findings.

    Raises:
        BadCorpus: with all findings, unless `skip_bad` and something is left.
        UserError: nothing has the expected shape, the texts are of another vocabulary, or `cache_folder` cannot be
            written.
    """
    name = "+".join(partition.name for partition in partitions)
    features = reduce(add, (partition.features for partition in partitions))
    labelled = all(partition.transcripts is not None for partition in partitions)
    transcripts = reduce(add, (partition.transcripts for partition in partitions)) if labelled else None

    packs: list[Pack] = []
    records: list[UtteranceRecord] = []
    if cache == "mmap":
        if cache_folder is None:
            raise ValueError("cache=mmap needs a cache_folder")
        packs = [open_pack(cache_folder, partition, half) for partition in partitions]
        index = reduce(add, (pack.contents for pack in packs))
    else:
        records = _read_all(name, features, transcripts or [None] * len(features), cache == "ram", half)
        index = PartitionIndex.of(records)

    if feature_format is None and index.readable.any():
        feature_format = infer_format(index.shapes[index.readable], normalize)
    if feature_format is not None:
        check_shapes(index, features, feature_format)
    form = vocabulary if isinstance(vocabulary, TextForm) else vocabulary.form
    index = replace(index, texts=list(map(form.prepare, index.texts)))
    if isinstance(vocabulary, TextForm):
        vocabulary = _of_the_texts(index, form)
    if transcripts is not None:
        check_texts(index, transcripts, vocabulary, scored)
        if feature_format is not None:
            check_lengths(index, transcripts, feature_format, character_limit, vocabulary)

    findings = [line for _, lines in sorted(index.findings.items()) for line in lines]
    orphans = reduce(add, (partition.orphans for partition in partitions))
    findings += [complaint(path, "no features for it", "a pair of files") for path in orphans]
    good = [position for position in range(len(features)) if position not in index.findings]
    if findings:
        found = list_findings(findings, name, len(features), report)
        if not (good and skip_bad):
            raise BadCorpus(found, feature_format, vocabulary)
        logger.warning(f"{found}\ngoing on without them (data.skip_bad=true)")
    assert feature_format is not None  # some file is good

    kept: Sequence[np.ndarray] | MappedFeatures | None = None
    if packs:
        kept = MappedFeatures(packs, good, feature_format.time_first)
    elif cache == "ram":
        arrays = (records[position].features for position in good)
        kept = tuple(_time_first(array, feature_format) for array in arrays if array is not None)
    corpus = Corpus(
        feature_format,
        features.take(good),
        tuple(index.shapes[good, 0 if feature_format.time_first else 1].tolist()),
        None if transcripts is None else tuple(index.texts[position] for position in good),
        kept,
        index.checksums[good].tolist(),
        vocabulary,
    )
    boundaries = transcripts is not None and has_boundaries(transcripts[good[0]])
    logger.info(_describe(name, partitions[0], corpus, boundaries))
    for partition in partitions:
        whole = FULL_SIZES.get(partition.name)
        if partition.layout.semester == "F23" and whole and len(partition.features) != whole:
            logger.warning(f"{partition.name} has {len(partition.features):,} utterances, the whole of it {whole:,}")
    return corpus


def _of_the_texts(index: PartitionIndex, form: TextForm) -> Vocabulary:
    """The vocabulary of the texts of utterances without findings; logs what is in it."""
    good = (text for position, text in enumerate(index.texts) if position not in index.findings)
    vocabulary, counts = vocabulary_of_texts(good, form)
    logger.info(f"vocabulary: {vocabulary} of the training transcripts")
    rare = Counter({character: count for character, count in counts.items() if count < RARE})
    if rare:
        listed = list_characters(character for character, _ in reversed(rare.most_common()))
        logger.info(f"vocabulary: {len(rare):,} of them occur fewer than {RARE} times, the rarest first: {listed}")
    return vocabulary


def load_labelled(
    root: str | Path,
    roles: Mapping[str, Sequence[str]],
    normalize: str,
    *,
    vocabulary: Vocabulary | TextForm = KAGGLE,
    reports: Path | None = None,
    **loading: Any,
) -> list[Corpus]:
    """A corpus with transcripts for each role; all have the feature format and the vocabulary of the first.

    Args:
        root: folder of the partitions.
        roles: partitions by role, such as `{"train": ["train-clean-100"], "dev": ["dev-clean"]}`.
        normalize: see `load_corpus`.
        vocabulary: see `load_corpus`; texts of the roles after the first are scored.
        reports: folder for the lists of findings.
        loading: further arguments of `load_corpus`.

    Raises:
        UserError: with everything that is wrong with any of them, or a partition that has no transcripts.
    """
    corpora, findings = [], []
    feature_format: FeatureFormat | None = None
    for role, names in roles.items():
        partitions = [find_partition(root, name) for name in names]
        for partition in partitions:
            if partition.transcripts is None:
                folder = Path(root) / partition.name / partition.layout.transcripts
                raise UserError(f"data.{role}: {partition.name} has no transcripts: found no .npy file in {folder}")
        report = reports and reports / f"findings-{role}.txt"
        try:
            corpus = load_corpus(
                partitions,
                normalize,
                feature_format=feature_format,
                vocabulary=vocabulary,
                scored=role != next(iter(roles)),
                report=report,
                **loading,
            )
            corpora.append(corpus)
            feature_format, vocabulary = corpus.format, corpus.vocabulary
        except BadCorpus as bad:
            findings.append(bad.findings)
            feature_format, vocabulary = bad.format, bad.vocabulary
    if findings:
        raise UserError("\n".join([*findings, BadCorpus.HINT]))
    return corpora


def _read_all(
    name: str, features: PathList, transcripts: Sequence[Path | None], keep: bool, half: bool
) -> list[UtteranceRecord]:
    def read(features: Path, transcript: Path | None) -> UtteranceRecord:
        record = read_utterance(features, transcript, half and keep)
        if not keep:
            record.features = None
        elif half and record.features is not None:
            with np.errstate(over="ignore"):  # such values are findings
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


def _time_first(features: np.ndarray, feature_format: FeatureFormat) -> np.ndarray:
    return features if feature_format.time_first else np.ascontiguousarray(features.T)
