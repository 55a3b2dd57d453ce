"""Transcription of recordings, with the time of each word from the attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from corpora.audio import LONGEST, cut_at_pauses, features_of, read_speech
from corpora.loading import Corpus
from dataset import FeatureDataset
from decoding.recogniser import Recogniser
from decoding.transcribe import DecodingOptions, transcribe
from models.las import LAS
from utils.checkpoint import LoadedModels
from utils.distributed import SINGLE_PROCESS, DistributedContext
from utils.errors import BadFile, UserError
from utils.metrics import monotonicity
from utils.sampler import Item
from utils.vocabulary import KAGGLE, Vocabulary

SHORTEST = 2.0  # seconds that a piece may always have, however short the training utterances were
LEAST = 1e-4  # attention that counts as none: a character that looks elsewhere must not bend the path around it
LEAST_TEXT = 5  # characters of a piece from which on the shape of its attention says something
NEAR = 2  # steps on either side of the path whose attention counts for a character's time


class Word(NamedTuple):
    """A word and its time."""

    text: str
    start: float  # seconds in the recording
    end: float
    characters: slice  # of its piece's attention


@dataclass(frozen=True)
class Piece:
    """A part of a recording without a long pause."""

    start: float  # seconds in the recording
    end: float
    features: np.ndarray  # (T, D), not normalised
    text: str
    attention: np.ndarray  # (U, S), of the text's tokens and <eos>, heads averaged
    words: list[Word]


@dataclass(frozen=True)
class Recording:
    """A transcribed sound file."""

    path: Path
    seconds: float
    pieces: list[Piece]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def monotonicity(self) -> float | None:
        """How far attention reads along, the mean over the texts of its pieces; None where there is too little text."""
        told = [piece for piece in self.pieces if len(piece.attention) > LEAST_TEXT]
        sums = [len(piece.attention) * monotonicity(torch.from_numpy(piece.attention)) for piece in told]
        return sum(sums) / sum(len(piece.attention) for piece in told) if told else None

    @property
    def words(self) -> list[Word]:
        return [word for piece in self.pieces for word in piece.words]


def transcribe_recordings(
    recogniser: Recogniser,
    paths: Sequence[Path],
    loaded: LoadedModels,
    options: DecodingOptions,
    device: torch.device,
    context: DistributedContext = SINGLE_PROCESS,
) -> list[Recording]:
    """Transcribes sound files of any sample rate and length, cut at pauses into pieces of a length the models know.

    Args:
        recogniser: the models.
        paths: of the sound files.
        loaded: the same models, and the features that they must be given.
        options: how to search.
        device: of the recogniser.
        context: ranks that share the pieces.

    Returns:
        The recordings with their words; times come from the attention of the first model.

    Raises:
        UserError: names all the files that cannot be read.
        ValueError: the models do not know how their features are computed.
    """
    feature_config = loaded.feature_config
    if feature_config is None:
        raise ValueError("recordings need a model that knows how its features are computed")
    read: list[np.ndarray] = []
    findings = []
    for path in paths:
        try:
            read.append(read_speech(path, feature_config))
        except BadFile as bad:
            findings.append(f"{path}: {bad}")
    if findings:
        raise UserError("\n".join(findings))
    usual = (loaded.p95_frames or np.inf) * feature_config.hop_length / feature_config.sample_rate
    cuts = [cut_at_pauses(speech, feature_config.sample_rate, min(max(usual, SHORTEST), LONGEST)) for speech in read]
    features = [
        features_of(speech[start:end], feature_config)
        for speech, cut in zip(read, cuts, strict=True)
        for start, end in cut
    ]
    names = [path for path, cut in zip(paths, cuts, strict=True) for _ in cut]
    vocabulary = loaded.vocabulary
    lengths = tuple(map(len, features))
    corpus = Corpus(loaded.features, tuple(names), lengths, None, features, vocabulary=vocabulary)
    texts = transcribe(recogniser, corpus, options, device, context) if features else []

    encoded, dataset = iter(range(len(corpus))), FeatureDataset(corpus)
    recordings = []
    for path, speech, cut in zip(paths, read, cuts, strict=True):
        pieces = []
        for start, end in cut:
            index = next(encoded)
            begin, stop = start / feature_config.sample_rate, end / feature_config.sample_rate
            utterance = dataset[Item(index)].features.to(device)
            attention = attend(recogniser.models[0], utterance, texts[index], vocabulary)
            words = time_words(texts[index], attention, begin, stop, vocabulary.count)
            pieces.append(Piece(begin, stop, features[index], texts[index], attention, words))
        recordings.append(Recording(path, len(speech) / feature_config.sample_rate, pieces))
    return recordings


@torch.no_grad()
def attend(model: LAS, features: torch.Tensor, text: str, vocabulary: Vocabulary = KAGGLE) -> np.ndarray:
    """Attention weights `(U, S)` of each token of `text` and of `<eos>` on `features (T, D)`, heads averaged."""
    tokens = torch.tensor([vocabulary.encode(vocabulary.known(text))[:-1]], device=features.device)
    _, attention, _ = model(features.unsqueeze(0), torch.tensor([len(features)]), tokens)
    return attention[0].mean(0).float().cpu().numpy()


def monotone_path(weights: np.ndarray) -> np.ndarray:
    """The non-decreasing path through `weights (U, S)` with the greatest product: a step for each row, `(U,)`."""
    scores = np.log(np.maximum(weights, LEAST))
    steps, best, came_from = np.arange(scores.shape[1]), scores[0], []
    for row in scores[1:]:
        reached = np.maximum.accumulate(best)
        came_from.append(np.maximum.accumulate(np.where(best == reached, steps, 0)))
        best = reached + row
    path = [int(best.argmax())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def time_words(
    text: str, attention: np.ndarray, start: float, end: float, count: Callable[[str], int] = len
) -> list[Word]:
    """The time of each word of a piece's text.

    A character lies at the centre of the attention near the monotone path, and reaches half way to its neighbours.

    Args:
        text: of the piece.
        attention: `(U, S)`, of the text's tokens and `<eos>`.
        start: of the piece, in seconds.
        end: of the piece.
        count: of a word's tokens.
    """
    S = attention.shape[1]
    path = monotone_path(attention)
    near = np.where(np.abs(np.arange(S) - path[:, None]) <= NEAR, np.maximum(attention, LEAST), 0)
    places = np.maximum.accumulate((near * (np.arange(S) + 0.5)).sum(1) / near.sum(1)) * (end - start) / S + start
    borders = np.concatenate([places[:1], (places[1:] + places[:-1]) / 2])  # where each character begins
    words, first = [], 0
    for word in text.split(" "):
        last = first + count(word)
        if word:
            words.append(Word(word, float(borders[first]), float(borders[last]), slice(first, last)))
        first = last + 1
    return words
