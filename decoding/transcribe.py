"""Transcription of a corpus: batches of similar length through the recogniser, results in the corpus's order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from corpora.loading import Corpus
from dataset import Batch, FeatureDataset, make_loader
from decoding.beam_search import beam_search
from decoding.greedy import first_letters, greedy_search
from decoding.ranking import RANKERS
from decoding.recogniser import EncodedUtterances, Recogniser, character_limits
from decoding.resume import PartialResults
from utils.device import is_out_of_memory, memory_to_spare
from utils.distributed import SINGLE_PROCESS, DistributedContext
from utils.errors import UserError
from utils.metrics import tidy
from utils.sampler import Item

LISTENER_BYTES = 10_000  # memory per frame while the Listener computes: its LSTMs' gates and outputs
TOKEN_BYTES = 24  # memory per frame and token of the vocabulary: the CTC branch's posteriors, at half the frame rate
BYTES = 2000  # memory per frame and hypothesis, at most: mostly attention, at a quarter of the frame rate
MAX_FRAMES = 1_000_000  # in a batch: cuDNN takes tensors of less than 2**31 elements
T = TypeVar("T")


@dataclass(frozen=True)
class DecodingOptions:
    """How to search."""

    mode: str  # greedy, beam
    beam_size: int  # hypotheses per utterance
    rank: str  # which of them is the answer, a key of RANKERS
    length_reward: float  # added to a score for every character
    allow_blank: bool = True  # False: a text of one character where the answer would have none

    def __str__(self) -> str:
        return f"beam {self.beam_size}" if self.mode == "beam" else "greedy"


def frame_budget(device: torch.device, beam_size: int, V: int) -> int:
    """How many frames a batch may have, padding counted, with a vocabulary of `V` tokens."""
    return min(MAX_FRAMES, memory_to_spare(device) // (LISTENER_BYTES + V * TOKEN_BYTES + beam_size * BYTES))


def share_of_batches(
    lengths: Sequence[int], beam_size: int, V: int, device: torch.device, context: DistributedContext
) -> list[list[Item]]:
    """This rank's batches of utterances of so many frames: as large as memory allows, and enough for all ranks.

    Every rank fills the same batches, as large as the rank with the least memory allows: otherwise their shares would
    overlap, and leave utterances out.
    """
    frames = min(context.all_gather(frame_budget(device, beam_size, V)))
    if context.world_size > 1:
        frames = min(frames, -(-sum(lengths) // context.world_size))
    return fill_batches(lengths, frames)[context.rank :: context.world_size]


def fill_batches(lengths: Sequence[int], frames: int) -> list[list[Item]]:
    """Batches of utterances of similar length, longest first, of up to `frames` frames each, padding counted.

    lengths: frames of each utterance.
    """
    batches: list[list[Item]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or lengths[batches[-1][0].position] * (len(batches[-1]) + 1) > frames:
            batches.append([])
        batches[-1].append(Item(index))
    return batches


def in_halves(run: Callable[[Batch], list[T]], batch: Batch) -> list[T]:
    """`run(batch)`, one result per utterance; without memory for it, of both halves of the batch, and so on.

    Utterances do not depend on each other, so this changes no result.

    Raises:
        RuntimeError: of torch, if there is no memory for a single utterance.
    """
    try:
        return run(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(batch.indices) == 1:
            raise
    middle = len(batch.indices) // 2  # after the except clause, which holds on to the tensors
    return [result for half in (slice(middle), slice(middle, None)) for result in in_halves(run, batch.rows(half))]


def decode_batches(
    recogniser: Recogniser,
    corpus: Corpus,
    beam_size: int,
    device: torch.device,
    decode_batch: Callable[[tuple[EncodedUtterances, ...], torch.Tensor], list[T]],
    context: DistributedContext = SINGLE_PROCESS,
    done: Mapping[int, T] | None = None,
    keep: Callable[[dict[int, T]], None] = lambda results: None,
) -> list[T]:
    """Applies `decode_batch` to batches that fill memory, until every utterance of the corpus has its result.

    Args:
        recogniser: encodes the batches.
        corpus: utterances to decode.
        beam_size: hypotheses per utterance, for the size of the batches.
        device: of the recogniser.
        decode_batch: takes an encoded batch and its limits of characters `(B,)`; returns one result per utterance.
        context: ranks that share the batches.
        done: results that are there already, by position in the corpus.
        keep: is given the results of each batch as soon as they are there, by position in the corpus.

    Returns:
        The results in the corpus's order, all of them on every rank.

    Raises:
        UserError: there is no memory for a single utterance.
    """

    def run(batch: Batch) -> list[T]:
        try:
            encoded = recogniser.encode(batch.features, batch.feature_lengths)
            _check_finite(encoded, corpus, batch)
            return decode_batch(encoded, character_limits(batch.feature_lengths))
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(batch.indices) > 1:
                raise
            path, frames = corpus.paths[int(batch.indices[0])], int(batch.feature_lengths[0])
            raise UserError(
                f"{path}: no memory to decode its {frames} frames; a smaller decoding.beam_size needs less"
            ) from None

    found: dict[int, T] = dict(done or {})
    batches = share_of_batches(corpus.lengths, beam_size, len(corpus.vocabulary), device, context)
    batches = [rest for batch in batches if (rest := [item for item in batch if item.position not in found])]
    loader = make_loader(FeatureDataset(corpus), batches, workers=0, device=device)
    total = sum(map(len, batches))
    with (
        tqdm(total=total, desc="decoding", unit="utt", leave=False, disable=context.hide_progress) as progress,
        torch.no_grad(),
    ):
        for batch in loader:
            results = dict(zip(batch.indices.tolist(), in_halves(run, batch.to(device)), strict=True))
            keep(results)
            found |= results
            progress.update(len(batch.indices))
    found = {index: result for share in context.all_gather(found) for index, result in share.items()}
    return [found[index] for index in range(len(corpus))]


def _check_finite(encoded: Sequence[EncodedUtterances], corpus: Corpus, batch: Batch) -> None:
    """Raises UserError that names the utterances for which a model computes no finite numbers."""
    finite = torch.stack([utterances.memory.keys.isfinite().flatten(1).all(1) for utterances in encoded]).all(0)
    if not finite.all():
        names = [str(corpus.paths[index]) for index in batch.indices[~finite.cpu()].tolist()]
        raise UserError(
            f"{', '.join(names[:3])}: found no finite numbers in what the model makes of it; expected features like "
            "those that it was trained on"
        )


def transcribe(
    recogniser: Recogniser,
    corpus: Corpus,
    options: DecodingOptions,
    device: torch.device,
    context: DistributedContext = SINGLE_PROCESS,
    partial: PartialResults | None = None,
) -> list[str]:
    """The text of every utterance, in the corpus's order, tidy.

    Args:
        recogniser: the models.
        corpus: utterances to decode.
        options: how to search.
        device: of the recogniser.
        context: ranks that share the batches; each returns all texts.
        partial: texts that are kept in case decoding is killed, and those of a killed one to go on from.
    """

    vocabulary = corpus.vocabulary

    def decode_batch(encoded: tuple[EncodedUtterances, ...], limits: torch.Tensor) -> list[str]:
        if options.mode == "greedy":
            texts = [[vocabulary.decode(tokens)] for tokens in greedy_search(recogniser, encoded, limits)]
        else:
            beams = beam_search(recogniser, encoded, limits, options.beam_size, options.length_reward)
            rank = RANKERS[options.rank]
            texts = [
                [rank(beam, vocabulary), *(vocabulary.decode(hypothesis.tokens) for hypothesis in beam)]
                for beam in beams
            ]
        texts = [[tidy(text) for text in candidates] for candidates in texts]
        if options.allow_blank:
            return [candidates[0] for candidates in texts]
        chosen = [next(filter(None, candidates), "") for candidates in texts]
        if all(chosen):
            return chosen
        letters = first_letters(recogniser, encoded, vocabulary)
        return [text or letter for text, letter in zip(chosen, letters, strict=True)]

    rows = options.beam_size if options.mode == "beam" else 1
    if partial is None:
        return decode_batches(recogniser, corpus, rows, device, decode_batch, context)
    names = [path.name for path in corpus.paths]
    done = {index: partial.texts[name] for index, name in enumerate(names) if name in partial.texts}

    def keep(texts: dict[int, str]) -> None:
        partial.add({names[index]: text for index, text in texts.items()})

    return decode_batches(recogniser, corpus, rows, device, decode_batch, context, done, keep)
