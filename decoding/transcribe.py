"""A corpus to texts: batches of like length through the recogniser, results in the corpus's order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from dataset import Batch, Corpus, FeatureDataset, make_loader
from decoding.beam_search import beam_search
from decoding.greedy import greedy_search
from decoding.rank import RANKERS
from decoding.recogniser import Heard, Recogniser, character_limits
from utils.buckets import BucketSampler
from utils.device import is_out_of_memory
from utils.errors import UserError
from utils.vocabulary import decode

T = TypeVar("T")


@dataclass(frozen=True)
class DecodingOptions:
    """mode: greedy, beam.   beam_size: hypotheses an utterance.   rank: which of them is the answer (RANKERS).

    length_reward: what each character adds to a score.
    """

    mode: str
    beam_size: int
    rank: str
    length_reward: float

    def __str__(self) -> str:
        return f"beam {self.beam_size}" if self.mode == "beam" else "greedy"


def for_all(
    recogniser: Recogniser,
    corpus: Corpus,
    batch_size: int,
    device: torch.device,
    decode_batch: Callable[[tuple[Heard, ...], torch.Tensor], list[T]],
) -> list[T]:
    """What `decode_batch` makes of every utterance, in the corpus's order, from batches of like length.

    decode_batch: takes a batch as heard and its limits of characters `(B,)`; gives one result an utterance.
    A batch that memory has no room for is halved: results do not depend on who shares a batch. Raises UserError where
    even a single utterance finds no room.
    """

    def run(batch: Batch) -> list[T]:
        try:
            heard = recogniser.listen(batch.features, batch.feature_lengths)
            return decode_batch(heard, character_limits(batch.feature_lengths))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        B = len(batch.indices)
        if B == 1:
            path, frames = corpus.paths[int(batch.indices[0])], int(batch.feature_lengths[0])
            raise UserError(f"{path}: no memory to decode its {frames} frames; a smaller decoding.beam_size needs less")
        return [result for half in (slice(0, B // 2), slice(B // 2, B)) for result in run(batch.rows(half))]

    results: list[T] = [None] * len(corpus)
    sampler = BucketSampler(corpus.lengths, batch_size)
    loader = make_loader(FeatureDataset(corpus), sampler, workers=0, device=device)
    with tqdm(total=len(corpus), desc="decoding", unit="utt", leave=False, disable=None) as progress, torch.no_grad():
        for batch in loader:
            for index, result in zip(batch.indices.tolist(), run(batch.to(device)), strict=True):
                results[index] = result
            progress.update(len(batch.indices))
    return results


def transcribe(
    recogniser: Recogniser, corpus: Corpus, options: DecodingOptions, batch_size: int, device: torch.device
) -> list[str]:
    """The text that the ranker chooses for each utterance, in the corpus's order."""

    def decode_batch(heard: tuple[Heard, ...], limits: torch.Tensor) -> list[str]:
        if options.mode == "greedy":
            return [decode(tokens) for tokens in greedy_search(recogniser, heard, limits)]
        beams = beam_search(recogniser, heard, limits, options.beam_size, options.length_reward)
        return [RANKERS[options.rank](hypotheses) for hypotheses in beams]

    return for_all(recogniser, corpus, batch_size, device, decode_batch)
