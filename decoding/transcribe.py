"""A corpus to texts: batches of like length through the recogniser, results in the corpus's order."""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from dataset import BucketSampler, Corpus, FeatureDataset, make_loader
from decoding.beam_search import beam_search
from decoding.greedy import greedy_search
from decoding.recogniser import Recogniser, character_limits
from utils.vocabulary import decode


@dataclass(frozen=True)
class DecodingOptions:
    """mode: greedy, beam.   beam_size: hypotheses an utterance.   length_normalization: power of the length."""

    mode: str
    beam_size: int
    length_normalization: float

    def __str__(self) -> str:
        return f"beam {self.beam_size}" if self.mode == "beam" else "greedy"


@torch.no_grad()
def transcribe(
    recogniser: Recogniser, corpus: Corpus, options: DecodingOptions, batch_size: int, device: torch.device
) -> list[str]:
    """The best text for each utterance, in the corpus's order."""
    texts = [""] * len(corpus)
    sampler = BucketSampler(corpus.lengths, batch_size)
    loader = make_loader(FeatureDataset(corpus), sampler, workers=0, device=device)
    with tqdm(total=len(corpus), desc="decoding", unit="utt", leave=False, disable=None) as progress:
        for batch in loader:
            batch = batch.to(device)
            heard = recogniser.listen(batch.features, batch.feature_lengths)
            limits = character_limits(batch.feature_lengths)
            if options.mode == "greedy":
                best = greedy_search(recogniser, heard, limits)
            else:
                nbest = beam_search(recogniser, heard, limits, options.beam_size, options.length_normalization)
                best = [hypotheses[0].tokens for hypotheses in nbest]
            for index, tokens in zip(batch.indices.tolist(), best, strict=True):
                texts[index] = decode(tokens)
            progress.update(len(best))
    return texts
