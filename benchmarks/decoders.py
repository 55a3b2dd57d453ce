"""What benchmarks.decode measures: decoders, and what they are given to decode."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.reference.speechbrain_las import SpeechBrainLAS, speechbrain_search
from benchmarks.reference.textbook_beam import textbook_beam
from benchmarks.shapes import Epoch, Shape, draw_lengths
from corpora.layout import find_partition
from corpora.loading import load_corpus
from dataset import FeatureDataset, collate
from decoding.beam_search import beam_search
from decoding.recogniser import Recogniser, character_limits
from decoding.transcribe import fill_batches, frames_to_spare
from models.las import LAS
from utils.features import FeatureFormat
from utils.sampler import BucketSampler
from utils.vocabulary import EOS, VOCABULARY

# A Speller of random weights repeats one character. Its weights times this spell varied texts; with recurrent weights
# larger still its state would be chaotic, and rounding would decide what it spells.
SCALE, RECURRENT_SCALE = 2.0, 4.0
Hypotheses = list[list[list[int]]]  # the tokens of each hypothesis of each utterance


class Task(NamedTuple):
    """Utterances to decode. limits: characters `(B,)`."""

    features: Tensor
    lengths: Tensor
    limits: Tensor


Decoder = Callable[[Task], Hypotheses | None]


class Search(NamedTuple):
    """See `beam_search` and `Recogniser`."""

    beam_size: int
    length_reward: float
    ctc_weight: float


def random_model(feature_dim: int, settings: dict) -> LAS:
    """A LAS with a CTC branch that spells varied texts, and never `<eos>`."""
    torch.manual_seed(0)
    model = LAS(feature_dim, len(VOCABULARY), **settings, ctc=True).eval()
    with torch.no_grad():
        for name, parameter in model.speller.named_parameters():
            parameter.mul_(RECURRENT_SCALE if "weight_hh" in name else SCALE)
        tokens = torch.randint(EOS + 1, len(VOCABULARY), (4, 40))
        logits, _, _ = model(torch.randn(4, 200, feature_dim), torch.full((4,), 200), tokens)
        model.speller.output_bias -= logits.mean((0, 1))  # no character is preferred whatever was spelled
        model.speller.output_bias[EOS] = -1e4
    return model


def drawn_tasks(shape: Shape, model: LAS, utterances: int, device: torch.device) -> Callable[[int], Task]:
    """Noise in the lengths of a test set, to be spelled with as many characters as its texts have."""
    lengths = draw_lengths(shape.decode, max(shape.decode.utterances, utterances))
    epoch = Epoch(shape._replace(batch_size=utterances), lengths, "bucketed", device)

    def task(number: int) -> Task:
        batch = epoch.batch(max(number, 0))
        ctc_steps = torch.tensor([model.listener.steps(T)[1] for T in batch.feature_lengths.tolist()], device=device)
        limits = torch.minimum(batch.token_lengths - 2, ctc_steps - 1)  # CTC needs a step a character
        return Task(batch.features, batch.feature_lengths, limits.clamp(min=1))

    return task


def split_tasks(
    root: Path, split: str, feature_format: FeatureFormat, utterances: int, device: torch.device
) -> Callable[[int], Task]:
    """Batches of a partition of real speech, limited as test.py limits them."""
    corpus = load_corpus([find_partition(root, split)], feature_format.normalize, feature_format=feature_format)
    batches, dataset = list(BucketSampler(corpus.lengths, utterances, seed=0)), FeatureDataset(corpus)

    def task(number: int) -> Task:
        batch = collate([dataset[item] for item in batches[max(number, 0) % len(batches)]]).to(device)
        return Task(batch.features, batch.feature_lengths, character_limits(batch.feature_lengths))

    return task


def project_decoder(model: LAS, search: Search) -> Decoder:
    recogniser = Recogniser([model], search.ctc_weight)

    @torch.no_grad()
    def decode(task: Task) -> Hypotheses:
        found = {}
        frames = frames_to_spare(task.features.device, search.beam_size)
        for batch in fill_batches(task.lengths.tolist(), frames):  # as test.py does
            rows = torch.tensor([item.position for item in batch])
            lengths = task.lengths[rows]
            encoded = recogniser.listen(task.features[rows, : lengths.max()], lengths)
            beams = beam_search(recogniser, encoded, task.limits[rows], search.beam_size, search.length_reward)
            found |= dict(zip(rows.tolist(), beams, strict=True))
        return [[hypothesis.tokens for hypothesis in found[row]] for row in range(len(found))]

    return decode


def textbook_decoder(model: LAS, search: Search) -> Decoder:
    def decode(task: Task) -> Hypotheses:
        utterances = zip(task.features, task.lengths.tolist(), task.limits.tolist(), strict=True)
        beams = [textbook_beam(model, features[:T], limit, *search) for features, T, limit in utterances]
        return [[hypothesis.tokens for hypothesis in beam] for beam in beams]

    return decode


def speechbrain_decoder(shape: Shape, settings: dict, ours: LAS, device: torch.device, search: Search) -> Decoder:
    """Random weights of about as many parameters; as many calls of the decoder as our search makes."""
    torch.manual_seed(0)
    sizes = shape.feature_dim, len(VOCABULARY)
    model = SpeechBrainLAS(*sizes, **settings, ctc=True, parameters=ours.parameter_count).to(device).eval()

    def decode(task: Task) -> None:
        steps = int(task.limits.max()) + 1
        speechbrain_search(model, task.features, task.lengths, steps, search.beam_size, search.ctc_weight)

    return decode
