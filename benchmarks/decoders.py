"""The contestants of benchmarks.decode, and the batches that they decode."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.reference.speechbrain_las import SpeechBrainLAS, speechbrain_search
from benchmarks.reference.textbook_beam import textbook_beam
from benchmarks.shapes import Epoch, Shape, draw_lengths
from corpora.layout import find_partition
from corpora.loading import load_corpus
from dataset import FeatureDataset, collate
from decoding.beam_search import Hypothesis, beam_search
from decoding.recogniser import Recogniser, character_limits
from decoding.transcribe import fill_batches, frame_budget
from models.las import LAS
from utils.features import FeatureFormat
from utils.sampler import BucketSampler
from utils.vocabulary import EOS, KAGGLE

# A randomly initialised Speller repeats a single character. With its weights scaled by these factors it spells varied
# texts; larger recurrent weights would make its state chaotic, so that rounding errors decided what it spells.
SCALE, RECURRENT_SCALE = 2.0, 4.0
Hypotheses = list[list[list[int]]]  # tokens of each hypothesis of each utterance


class DecodingBatch(NamedTuple):
    """Utterances to decode."""

    features: Tensor  # (B, T, D)
    lengths: Tensor  # (B,)
    limits: Tensor  # (B,), characters that each may be spelled with


Batches = Callable[[int], DecodingBatch]  # by number of the round, -1 for the warm-up
Decoder = Callable[[DecodingBatch], Hypotheses | None]


class SearchOptions(NamedTuple):
    """See `beam_search` and `Recogniser`."""

    beam_size: int
    length_reward: float
    ctc_weight: float


def random_model(feature_dim: int, model_kwargs: Mapping[str, Any]) -> LAS:
    """A LAS with random weights and a CTC branch, which spells varied texts and never `<eos>`.

    Args:
        feature_dim: `D`.
        model_kwargs: further keyword arguments of `LAS`; `ctc` is overridden.
    """
    torch.manual_seed(0)
    model = LAS(feature_dim, len(KAGGLE), **{**model_kwargs, "ctc": True}).eval()
    with torch.no_grad():
        for name, parameter in model.speller.named_parameters():
            parameter.mul_(RECURRENT_SCALE if "weight_hh" in name else SCALE)
        tokens = torch.randint(EOS + 1, len(KAGGLE), (4, 40))
        logits, _, _ = model(torch.randn(4, 200, feature_dim), torch.full((4,), 200), tokens)
        model.speller.output_bias.sub_(logits.mean((0, 1)))  # on average, no character is preferred
        model.speller.output_bias[EOS] = -1e4
    return model


def synthetic_batches(shape: Shape, model: LAS, utterances: int, device: torch.device) -> Batches:
    """Noise in the lengths of a test set, to be spelled with as many characters as its texts have.

    Args:
        shape: of the test set.
        model: whose CTC branch limits the number of characters.
        utterances: per batch.
        device: of the batches.
    """
    lengths = draw_lengths(shape.decode, max(shape.decode.utterances, utterances))
    epoch = Epoch(shape._replace(batch_size=utterances), lengths, "bucketed", device)

    def make(number: int) -> DecodingBatch:
        batch = epoch.batch(max(number, 0))
        ctc_steps = torch.tensor([model.listener.steps(T)[1] for T in batch.feature_lengths.tolist()])
        limits = torch.minimum(batch.token_lengths - 2, ctc_steps - 1)  # CTC needs a step for each character
        return DecodingBatch(batch.features, batch.feature_lengths, limits.clamp(min=1))

    return make


def partition_batches(
    root: Path, partition: str, feature_format: FeatureFormat, utterances: int, device: torch.device
) -> Batches:
    """Batches of real speech, with the limits of characters that test.py sets.

    Args:
        root: folder of the partitions.
        partition: its name.
        feature_format: that the model expects.
        utterances: per batch.
        device: of the batches.

    Raises:
        UserError: the partition cannot be read.
    """
    corpus = load_corpus([find_partition(root, partition)], feature_format.normalize, feature_format=feature_format)
    batches, dataset = list(BucketSampler(corpus.lengths, utterances, seed=0)), FeatureDataset(corpus)

    def make(number: int) -> DecodingBatch:
        batch = collate([dataset[item] for item in batches[max(number, 0) % len(batches)]]).to(device)
        return DecodingBatch(batch.features, batch.feature_lengths, character_limits(batch.feature_lengths))

    return make


def project_decoder(model: LAS, search: SearchOptions) -> Decoder:
    """The project's beam search, in batches that fill memory as in test.py."""
    recogniser = Recogniser([model], search.ctc_weight)

    @torch.no_grad()
    def decode(batch: DecodingBatch) -> Hypotheses:
        found: dict[int, list[Hypothesis]] = {}
        frames = frame_budget(batch.features.device, search.beam_size, len(KAGGLE))
        for items in fill_batches(batch.lengths.tolist(), frames):
            rows = torch.tensor([item.position for item in items])
            lengths = batch.lengths[rows]
            encoded = recogniser.encode(batch.features[rows, : lengths.max()], lengths)
            beams = beam_search(recogniser, encoded, batch.limits[rows], search.beam_size, search.length_reward)
            found |= dict(zip(rows.tolist(), beams, strict=True))
        return [[hypothesis.tokens for hypothesis in found[row]] for row in range(len(found))]

    return decode


def textbook_decoder(model: LAS, search: SearchOptions) -> Decoder:
    """The textbook's beam search, one utterance after the other."""

    def decode(batch: DecodingBatch) -> Hypotheses:
        utterances = zip(batch.features, batch.lengths.tolist(), batch.limits.tolist(), strict=True)
        beams = [textbook_beam(model, features[:T], limit, *search) for features, T, limit in utterances]
        return [[hypothesis.tokens for hypothesis in beam] for beam in beams]

    return decode


def speechbrain_decoder(
    feature_dim: int, model_kwargs: Mapping[str, Any], parameters: int, device: torch.device, search: SearchOptions
) -> Decoder:
    """SpeechBrain's beam search with random weights, for as many steps as the project's search takes.

    Args:
        feature_dim: `D`.
        model_kwargs: further keyword arguments of `LAS`; `ctc` is overridden.
        parameters: about how many its model should have.
        device: of the model.
        search: length rewards do not apply, since all hypotheses are equally long.
    """
    torch.manual_seed(0)
    own = {**model_kwargs, "ctc": True}
    model = SpeechBrainLAS(feature_dim, len(KAGGLE), **own, parameters=parameters).to(device).eval()

    def decode(batch: DecodingBatch) -> None:
        steps = int(batch.limits.max()) + 1
        speechbrain_search(model, batch.features, batch.lengths, search.beam_size, search.ctc_weight, steps)

    return decode
