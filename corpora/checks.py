"""Reading and checking the files of a corpus: each by itself, then all of them together."""

import errno
import logging
import sys
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path

import numpy as np

from corpora.layout import PathList
from utils.errors import BadFile, UserError
from utils.failures import SHORTAGES
from utils.features import FeatureFormat
from utils.vocabulary import KAGGLE, Vocabulary, is_character, list_characters, name_character

READERS = 16  # threads that read files: a network disk answers slowly, but many requests at a time
NO_ANSWER = (errno.EIO, errno.ETIMEDOUT, errno.ESTALE, errno.ENOTCONN)  # of a network disk, for a while or for good
PAUSE = 0.5  # seconds before it is asked again
HALF_LIMIT = float(np.finfo(np.float16).max)
LISTED = 100  # findings shown on screen; all of them are in the report's file
TOKENS = "one character an element, with or without <sos> and <eos>"
MOST = 0.5  # share of a corpus's letters outside the vocabulary above which it is another vocabulary's corpus

logger = logging.getLogger(f"las.{__name__}")


@dataclass
class UtteranceRecord:
    """One utterance as it was read."""

    features: np.ndarray | None = None  # 2-D, as stored; None where they are not kept
    shape: tuple[int, int] | None = None
    text: str | None = None
    checksum: int = 0  # of the features, float32, in whatever way they are kept
    findings: list[str] = field(default_factory=list)  # a line for everything that is wrong with it

    def complain(self, path: Path, found: str, expected: str) -> None:
        """Adds a finding."""
        self.findings.append(complaint(path, found, expected))


def complaint(path: Path, found: str, expected: str) -> str:
    """A finding as a line of the report."""
    return f"  {str(path)!r}: found {found}; expected {expected}"


@dataclass
class PartitionIndex:
    """Shapes, texts and findings of many utterances, without their features, in little memory."""

    shapes: np.ndarray  # (N, 2) int64, as stored; 0 where they could not be read
    texts: list[str]  # empty where there is none that could be read
    findings: dict[int, list[str]]  # by utterance
    checksums: np.ndarray  # (N,) uint32, of the features, float32

    @classmethod
    def of(cls, records: Iterable[UtteranceRecord]) -> "PartitionIndex":
        shapes, texts, findings, checksums = [], [], {}, []
        for index, record in enumerate(records):
            shapes.append(record.shape or (0, 0))
            texts.append(record.text or "")
            checksums.append(record.checksum)
            if record.findings:
                findings[index] = record.findings
        sums = np.array(checksums, dtype=np.uint32)
        return cls(np.array(shapes, dtype=np.int64).reshape(-1, 2), texts, findings, sums)

    def __add__(self, other: "PartitionIndex") -> "PartitionIndex":
        findings = self.findings | {len(self.texts) + index: lines for index, lines in other.findings.items()}
        shapes, checksums = (
            np.concatenate(pair) for pair in ((self.shapes, other.shapes), (self.checksums, other.checksums))
        )
        return PartitionIndex(shapes, self.texts + other.texts, findings, checksums)

    @property
    def readable(self) -> np.ndarray:
        """(N,) whether features could be read."""
        return np.asarray(self.shapes.any(axis=1))

    def add(self, index: int, finding: str) -> None:
        self.findings.setdefault(index, []).append(finding)


def checksum_of(array: np.ndarray) -> int:
    """CRC-32 of an array's values, row by row."""
    return zlib.crc32(np.ascontiguousarray(array).data)


def _load(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped; nothing is unpickled, whatever its header claims.

    Raises:
        BadFile: the file cannot be used.
    """
    try:
        array = _load_retrying(path)
    except FileNotFoundError:
        raise BadFile("no file", "one of the same name as its pair") from None
    except UserError:
        raise
    except EOFError:
        raise BadFile("an empty file", "a .npy array") from None
    except Exception as error:  # a damaged header can fail in any way; none of them runs code
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in SHORTAGES:  # the file is not to blame
            raise
        reason = " ".join(str(error).split())
        if "Python objects" in reason or "object arrays" in reason:
            raise BadFile("an object array (pickled)", "a plain array; pickles can run code and are not read") from None
        if "pickled" in reason or "magic" in reason:
            raise BadFile("something that is not a .npy file", "a .npy array") from None
        if "mmap length" in reason or "memory map" in reason:
            raise BadFile("a truncated file", "as many bytes as its header promises") from None
        raise BadFile(f"an unreadable file ({reason[:100]})", "a .npy array") from None
    if not isinstance(array, np.ndarray):
        raise BadFile("a .npz archive", "a .npy array")
    return array


def _load_retrying(path: Path, attempts: int = 5) -> np.ndarray:
    """np.load, again where Python's parser fails for another thread's sake, or where a network disk does not answer.

    Python 3.11 and 3.12 may raise SystemError ("AST constructor recursion depth mismatch") when several threads parse
    headers at once (github.com/python/cpython/issues/106905): the file is fine.
    """
    while True:
        attempts -= 1
        try:
            path.read_bytes()  # fails with an error where a page of a mapped file would end the process
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except SystemError:
            if not attempts:
                raise
        except OSError as error:
            if error.errno not in NO_ANSWER:
                raise
            if not attempts:
                raise UserError(
                    f"{path}: its disk does not answer ({error.strerror}); nothing is wrong with the file. See that "
                    "the disk is there, run it again"
                ) from None
            time.sleep(PAUSE)


def read_features(path: Path) -> np.ndarray:
    """The features of a file as they are stored: 2-D, float32.

    Raises:
        BadFile: the file cannot be used.
    """
    array = _load(path)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise BadFile(f"a {array.ndim}-D array of {array.dtype}", "a 2-D array of numbers, frames by dimensions")
    if array.size == 0:
        raise BadFile(f"an empty array {array.shape}", "at least one frame")
    return np.array(array, dtype=np.float32)


def read_transcript(path: Path) -> str:
    """The text of a transcript file as it stands there, without `<sos>` and `<eos>`.

    Raises:
        BadFile: the file cannot be used.
    """
    array = _load(path)
    if array.ndim != 1 or array.dtype.kind != "U":
        raise BadFile(f"a {array.ndim}-D array of {array.dtype}", "a 1-D array of text, one token an element")
    codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if codes.max(initial=0) > sys.maxunicode:  # numpy does not check what it reads as letters
        raise BadFile("letters that no alphabet has", TOKENS)
    tokens = array.tolist()
    if tokens and tokens[0] == "<sos>":
        tokens = tokens[1:]
    if tokens and tokens[-1] == "<eos>":
        tokens = tokens[:-1]
    strange = sorted({token for token in tokens if not _is_token(token)})
    if strange:
        raise BadFile(f"outside any vocabulary: {', '.join(map(repr, strange[:8]))}", TOKENS)
    if not tokens:
        raise BadFile("an empty transcript", "at least one character")
    return "".join(tokens)


def _is_token(token: str) -> bool:
    """Whether it is one character, be it of several code points, as where é is e and an accent."""
    marks = all(unicodedata.category(mark).startswith("M") for mark in token[1:])
    return bool(token) and (marks or len(unicodedata.normalize("NFC", token)) == 1) and all(map(is_character, token))


def read_utterance(features: Path, transcript: Path | None, half: bool = False) -> UtteranceRecord:
    """Reads a pair of files, or features alone; whatever is wrong with them is a finding of the record.

    half: whether the features will be kept as float16, which must be able to hold them.
    """
    record = UtteranceRecord()
    try:
        array = read_features(features)
        record.features, record.shape, record.checksum = array, array.shape, checksum_of(array)
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            row, column = bad[0]
            found = f"{array[row, column]} at [{row}, {column}] ({len(bad)} values not finite)"
            record.complain(features, found, "finite numbers")
        elif half and (largest := float(np.abs(array).max())) > HALF_LIMIT:
            expected = f"at most {HALF_LIMIT:,.0f}, the most that 16 bits hold; data.half_precision=false keeps them"
            record.complain(features, f"a value of {largest:,.6g}", expected)
    except BadFile as bad:
        record.complain(features, bad.found, bad.expected)
    if transcript is not None:
        try:
            record.text = read_transcript(transcript)
        except BadFile as bad:
            record.complain(transcript, bad.found, bad.expected)
    return record


def has_boundaries(path: Path) -> bool:
    """Whether a transcript file, which can be read, is stored with `<sos>` and `<eos>`."""
    array = _load(path)
    return array.size > 0 and str(array.reshape(-1)[0]) == "<sos>"


def infer_format(shapes: np.ndarray, normalize: str) -> FeatureFormat:
    """The feature format of files of these `shapes (N, 2)`.

    The axis on which they agree is the feature axis; if they agree on both, the shorter one.
    """
    rows, columns = (Counter(shapes[:, axis].tolist()).most_common(1)[0] for axis in (0, 1))
    time_first = columns[1] > rows[1] or (columns[1] == rows[1] and columns[0] <= rows[0])
    return FeatureFormat((columns if time_first else rows)[0], time_first, normalize)


def check_shapes(contents: PartitionIndex, features: PathList, expected: FeatureFormat) -> None:
    """Adds a finding for each file whose feature dimension is not the expected one.

    Raises:
        UserError: no file has the expected dimension.
    """
    axis = 1 if expected.time_first else 0
    shape = f"(T, {expected.dim})" if expected.time_first else f"({expected.dim}, T)"
    wrong = np.flatnonzero(contents.readable & (contents.shapes[:, axis] != expected.dim)).tolist()
    if len(wrong) == len(features):
        raise UserError(
            f"{features[0].parent}: found {len(wrong)} arrays of shapes such as {tuple(contents.shapes[0].tolist())}, "
            f"expected {shape}, as the model or the training partitions have: these are features of another kind"
        )
    for index in wrong:
        found = f"shape {tuple(contents.shapes[index].tolist())}"
        wanted = f"shape {shape}, as the model or the other files have"
        contents.add(index, complaint(features[index], found, wanted))


def check_texts(contents: PartitionIndex, transcripts: PathList, vocabulary: Vocabulary, scored: bool) -> None:
    """Adds a finding for each text with characters outside the vocabulary.

    Args:
        contents: of the files, their texts prepared.
        transcripts: their paths.
        vocabulary: of the model.
        scored: whether texts are only compared with: what a language's model cannot write counts as its errors, and is
            no finding. The competition's texts have nothing that its vocabulary lacks.

    Raises:
        UserError: most of the letters are outside: this is a corpus for another vocabulary.
    """
    outside = {index: unknown for index, text in enumerate(contents.texts) if (unknown := vocabulary.unknown(text))}
    everything = Counter("".join(outside.values()))
    letters = sum(len(text) - text.count(" ") for text in contents.texts)
    shown = list_characters(character for character, _ in everything.most_common())
    if everything.total() > MOST * letters:
        in_lower = any(letter != letter.upper() and not vocabulary.unknown(letter.upper()) for letter in everything)
        folding = "data.text.case=upper makes them upper case; " if in_lower else ""
        many = f"{len(outside):,} of {len(contents.texts):,} texts"
        raise UserError(
            f"{transcripts[0].parent}: found texts of other characters ({shown}) in {many}, expected those of "
            f"{vocabulary}; data.vocabulary=auto trains a model on the characters of its transcripts, "
            f"{folding}a trained model keeps its vocabulary"
        )
    for index, text in enumerate(contents.texts):
        if not text and index not in contents.findings:
            contents.add(
                index, complaint(transcripts[index], "punctuation alone", "words, or data.text.punctuation=keep")
            )
    for index, unknown in outside.items() if vocabulary.tokens == KAGGLE.tokens or not scored else ():
        found = f"outside the vocabulary: {', '.join(map(name_character, sorted(set(unknown))[:8]))}"
        contents.add(index, complaint(transcripts[index], found, f"<sos>, characters of {vocabulary}, <eos>"))
    if scored and outside and vocabulary.tokens != KAGGLE.tokens:
        name = transcripts[0].parent.parent.name
        logger.warning(
            f"{name}: {everything.total():,} of {letters:,} letters are not in the model's vocabulary ({shown}): it "
            "cannot write them, and they count as errors"
        )


def check_lengths(
    contents: PartitionIndex,
    transcripts: PathList,
    expected: FeatureFormat,
    character_limit: Callable[[int], int],
    vocabulary: Vocabulary = KAGGLE,
) -> None:
    """Adds a finding for each text that is too long for its frames.

    Args:
        contents: of the files, their texts prepared.
        transcripts: their paths.
        expected: feature format of the corpus.
        character_limit: how many characters, doubled ones counted twice, the model can align to a number of frames.
        vocabulary: whose tokens are the characters.
    """
    frames = contents.shapes[:, 0 if expected.time_first else 1].tolist()
    for index, text in enumerate(contents.texts):
        if not (text and frames[index]):
            continue
        tokens = list(vocabulary.form.split(text))
        doubled = sum(map(eq, tokens, tokens[1:]))
        limit = character_limit(frames[index])
        if len(tokens) + doubled > limit:
            found = f"a transcript of {len(tokens)} characters ({doubled} doubled) for {frames[index]} frames"
            wanted = f"at most {limit}, all that the model can align to so few frames"
            contents.add(index, complaint(transcripts[index], found, wanted))


def list_findings(findings: list[str], name: str, total: int, report: Path | None) -> str:
    """The first findings as text; all of them go into the file `report`."""
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("\n".join(findings) + "\n", encoding="utf-8")
    return f"{name}: {len(findings)} findings in {total} utterances:\n{first_findings(findings, report)}"


def first_findings(findings: Sequence[str], report: Path | None) -> str:
    """The first `LISTED` findings, how many more there are, and in which file."""
    lines = list(findings[:LISTED])
    if len(findings) > LISTED:
        lines.append(f"  ... and {len(findings) - LISTED} more" + (f", all in {report}" if report else ""))
    return "\n".join(lines)
