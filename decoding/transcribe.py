"""A corpus to texts: batches of like length through the recogniser, results in the corpus's order."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tqdm import tqdm

from dataset import Corpus, FeatureDataset, make_loader
from decoding.beam_search import beam_search
from decoding.greedy import greedy_search
from decoding.rank import RANKERS
from decoding.recogniser import Heard, Recogniser, character_limits
from utils.buckets import BucketSampler
from utils.vocabulary import decode


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


def listen(
    recogniser: Recogniser, corpus: Corpus, batch_size: int, device: torch.device
) -> Iterator[tuple[list[int], tuple[Heard, ...], torch.Tensor]]:
    """Batches of like length as heard: positions in the corpus, what was heard, limits of characters `(B,)`."""
    sampler = BucketSampler(corpus.lengths, batch_size)
    loader = make_loader(FeatureDataset(corpus), sampler, workers=0, device=device)
    with tqdm(total=len(corpus), desc="decoding", unit="utt", leave=False, disable=None) as progress, torch.no_grad():
        for batch in loader:
            batch = batch.to(device)
            heard = recogniser.listen(batch.features, batch.feature_lengths)
            yield batch.indices.tolist(), heard, character_limits(batch.feature_lengths)
            progress.update(len(batch.indices))


def transcribe(
    recogniser: Recogniser, corpus: Corpus, options: DecodingOptions, batch_size: int, device: torch.device
) -> list[str]:
    """The text that the ranker chooses for each utterance, in the corpus's order."""
    texts = [""] * len(corpus)
    for indices, heard, limits in listen(recogniser, corpus, batch_size, device):
        if options.mode == "greedy":
            chosen = [decode(tokens) for tokens in greedy_search(recogniser, heard, limits)]
        else:
            beams = beam_search(recogniser, heard, limits, options.beam_size, options.length_reward)
            chosen = [RANKERS[options.rank](hypotheses) for hypotheses in beams]
        for index, text in zip(indices, chosen, strict=True):
            texts[index] = text
    return texts
