"""Corpus makers: what they share, from utterances of audio and text to a partition in the Kaggle layout."""

import argparse
import hashlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from corpora.audio import features_of, make_feature_config, read_speech
from corpora.checks import LISTED, first_findings, read_transcript
from corpora.spelling import cannot_hold
from utils.errors import BadFile, UserError
from utils.failures import SHORTAGES
from utils.features import FeatureConfig, write_feature_config
from utils.files import atomic_write, sweep_temporaries
from utils.locking import sole_writer
from utils.vocabulary import as_it_is, is_character, spellable, unspellable

SOURCES = "sources.tsv"  # in a partition's folder
LONGEST_ID = 235  # bytes: a file's name has at most 255, and .npy.12345678.tmp is added

logger = logging.getLogger(f"las.{__name__}")


class Utterance(NamedTuple):
    """An utterance to make features and a transcript of."""

    id: str  # name of its files
    audio: Path
    text: str
    source: str  # file and line of its text, for messages


class Found(NamedTuple):
    """A partition that a maker has found."""

    name: str
    utterances: list[Utterance]
    findings: list[str]  # a line for each utterance that cannot be used


def make_corpus(
    partitions: Sequence[Found],
    out: Path,
    feature_config: FeatureConfig,
    jobs: int,
    skip_bad: bool,
    vocabulary: str = "kaggle",
) -> None:
    """Writes partitions in the Kaggle layout. All files are whole or absent, so it can be interrupted and run again.

    Features that are there already are not made again; a transcript is, if its text has changed.

    Args:
        partitions: utterances to write.
        out: folder of the corpus.
        feature_config: how features are computed.
        jobs: utterances at a time.
        skip_bad: whether to go on without utterances that cannot be used.
        vocabulary: kaggle: texts are written in the competition's characters; auto: as they are.

    Raises:
        UserError: `out` holds features of another configuration; or, once everything else is written, the findings.
    """
    out.mkdir(parents=True, exist_ok=True)
    with sole_writer(out, "making"):
        sweep_temporaries(out)
        _make_partitions(partitions, out, feature_config, jobs, skip_bad, vocabulary)


def _make_partitions(
    partitions: Sequence[Found], out: Path, feature_config: FeatureConfig, jobs: int, skip_bad: bool, vocabulary: str
) -> None:
    write_feature_config(out, feature_config)
    torch.set_num_threads(1)  # each of the jobs has an utterance of its own to work on
    findings = []
    for partition in partitions:
        written = [each._replace(text=as_it_is(each.text)) for each in partition.utterances]
        utterances, unfit = _fit(written, vocabulary)
        problems = _make(partition.name, utterances, out / partition.name, feature_config, jobs, vocabulary)
        findings += partition.findings + unfit + problems
        left_out = Counter(letter for utterance in utterances for letter in unspellable(utterance.text))
        if left_out and vocabulary == "kaggle":
            listed = ", ".join(f"{letter!r} {count} times" for letter, count in left_out.most_common(20))
            logger.info(
                f"{partition.name}: left out of the texts, since the vocabulary has no such character: {listed}"
            )
        strangers = {path.stem for path in (out / partition.name / "mfcc").glob("*.npy")}
        strangers -= {utterance.id for utterance in utterances}
        others = {each.id for other in partitions if other is not partition for each in other.utterances}
        refused = {each.id for each in partition.utterances}
        gone = strangers & (others | refused if skip_bad else others)  # no dev and no older text is trained on
        for identity in gone:
            for kind in ("mfcc", "transcripts"):
                (out / partition.name / kind / f"{identity}.npy").unlink(missing_ok=True)
        if gone:
            logger.info(
                f"{out / partition.name}: {len(gone)} utterances of before taken out: their texts are refused now, or "
                "another partition has them"
            )
        strangers -= others | refused
        if strangers:
            logger.warning(
                f"{out / partition.name}: {len(strangers)} utterances there are not from this audio, "
                f"such as {min(strangers)}; they stay"
            )
        logger.info(f"{out / partition.name}: {len(utterances) - len(problems):,} utterances; {feature_config}")
    if findings:
        everything = out / "findings.txt"
        if len(findings) > LISTED:
            everything.write_text("\n".join(findings) + "\n", encoding="utf-8", errors="surrogateescape")
        report = first_findings([f"  {finding}" for finding in findings], everything)
        if not skip_bad:
            raise UserError(f"{report}\nFix these files and run this again, or go on without them: --skip-bad")
        logger.warning(f"{report}\nwent on without them (--skip-bad)")


def _fit(utterances: Sequence[Utterance], vocabulary: str) -> tuple[list[Utterance], list[str]]:
    """The utterances with a unique id and a text that can be spelled, and a finding for each of the others."""
    fit, findings = {}, []
    for utterance in utterances:
        if utterance.id in fit:
            findings.append(f"{utterance.source}: found {utterance.id} again, expected one of that name")
        elif len(os.fsencode(utterance.id)) > LONGEST_ID:
            findings.append(
                f"{utterance.source}: found an id of {len(os.fsencode(utterance.id))} bytes ({utterance.id[:20]}...), "
                f"expected at most {LONGEST_ID}, for its file names"
            )
        elif vocabulary == "kaggle" and (lost := cannot_hold(utterance.text)):
            listed = ", ".join(map(repr, lost[:8]))
            findings.append(
                f"{utterance.source}: found {listed} in {utterance.text[:100]!r}, expected a text in letters A to Z, "
                "numbers and symbols as words; --vocabulary auto keeps texts as they are"
            )
        elif vocabulary == "kaggle" and not spellable(utterance.text):
            expected = "a text of letters A to Z; --vocabulary auto keeps texts as they are"
            findings.append(f"{utterance.source}: found {utterance.text!r}, expected {expected}")
        elif vocabulary == "auto" and not (utterance.text and all(map(is_character, utterance.text))):
            findings.append(
                f"{utterance.source}: found {utterance.text!r}, expected a text, without control characters"
            )
        else:
            fit[utterance.id] = utterance
    return list(fit.values()), findings


def _make(
    name: str, utterances: Sequence[Utterance], out: Path, feature_config: FeatureConfig, jobs: int, vocabulary: str
) -> list[str]:
    """Writes the files of all utterances and returns a finding for each that failed."""
    for kind in ("mfcc", "transcripts"):
        (out / kind).mkdir(parents=True, exist_ok=True)

    sources = Sources(out / SOURCES)

    def make(utterance: Utterance) -> str | None:
        features, transcript = (out / kind / f"{utterance.id}.npy" for kind in ("mfcc", "transcripts"))
        text = spellable(utterance.text) if vocabulary == "kaggle" else utterance.text
        try:
            source, known = Source.of(utterance.audio), sources.known.get(utterance.id)
            if not (features.exists() and known and known.digest == source.digest):
                _save(features, features_of(read_speech(utterance.audio, feature_config), feature_config))
            if source != known:
                sources.add(utterance.id, source)
        except BadFile as bad:
            return f"{utterance.audio}: {bad}"
        if not _has_text(transcript, text):
            _save(transcript, np.array(["<sos>", *text, "<eos>"]))
        return None

    pool = ThreadPoolExecutor(jobs)
    try:
        made = tqdm(pool.map(make, utterances), f"making {name}", len(utterances), unit="utt", disable=None)
        return [problem for problem in made if problem]
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for all that is left


class Source(NamedTuple):
    """The recording that features were made of."""

    audio: str  # its path; empty where an older version made them
    digest: str  # of its content

    @classmethod
    def of(cls, path: Path) -> "Source":
        """Raises BadFile if the file cannot be read."""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            raise BadFile(f"what cannot be read ({error.strerror})", "an audio file") from None
        audio = str(path.absolute())
        return cls(audio if len(audio.splitlines()) == 1 else "", digest)  # a record has one line


class Sources:
    """The recordings of a partition, by id: another one under an old name is noticed, and the report can play them.

    Args:
        path: of the file that keeps them, a line for each: id, path, digest; older versions kept no path.
    """

    def __init__(self, path: Path):
        self._path, self._lock, self.known = path, threading.Lock(), dict[str, Source]()
        for line in path.read_text(encoding="utf-8", errors="surrogateescape").split("\n") if path.exists() else []:
            identity, tab, record = line.partition("\t")
            if tab:  # a killed maker leaves half a line
                audio, _, digest = record.rpartition("\t")
                self.known[identity] = Source(audio, digest)

    def add(self, identity: str, source: Source) -> None:
        with self._lock, self._path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"\n{identity}\t{source.audio}\t{source.digest}")


def _has_text(transcript: Path, text: str) -> bool:
    try:
        return read_transcript(transcript) == text
    except BadFile:  # or none
        return False


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:  # an open file: np.save adds .npy to a name
        np.save(file, array)


def maker_parser(module: str, description: str) -> argparse.ArgumentParser:
    """An argument parser with the arguments that all makers share."""
    parser = argparse.ArgumentParser(
        f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--features",
        default="mel28",
        metavar="KIND",
        help="melN: N log mel bands; mfccN: N cepstra (default: %(default)s)",
    )
    parser.add_argument("--lowest", type=float, default=0.0, metavar="HZ", help="lower edge of the bands (default: 0)")
    parser.add_argument(
        "--highest", type=float, default=8000.0, metavar="HZ", help="upper edge of the bands (default: 8000)"
    )
    parser.add_argument(
        "--vocabulary",
        choices=("kaggle", "auto"),
        default="kaggle",
        help="kaggle: texts in A-Z, ' and space; auto: as they are, for data.vocabulary=auto (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="files at a time (default: %(default)s)")
    parser.add_argument("--skip-bad", action="store_true", help="go on without what cannot be used")
    return parser


def parse_maker_arguments(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, FeatureConfig]:
    """The arguments, and the feature configuration they ask for. Raises UserError for one that cannot be."""
    args = parser.parse_args()
    if args.jobs < 1:
        raise UserError(f"--jobs: found {args.jobs}, expected 1 or more")
    return args, make_feature_config(args.features, args.lowest, args.highest)
