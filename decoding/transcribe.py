"""A corpus to texts: batches of like length through the recogniser, results in the corpus's order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from dataset import Batch, Corpus, FeatureDataset, make_loader
from decoding.beam_search import beam_search
from decoding.greedy import greedy_search
from decoding.ranking import RANKERS
from decoding.recogniser import Heard, Recogniser, character_limits
from decoding.resume import KeptTexts
from utils.device import is_out_of_memory, memory_to_spare
from utils.distributed import SINGLE, Team
from utils.errors import UserError
from utils.sampler import Item
from utils.vocabulary import decode

BYTES = 2000  # memory that a frame of a hypothesis takes at most: mostly attention, at a quarter of the frame rate
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


def frames_to_spare(device: torch.device, beam_size: int) -> int:
    """How many frames a batch may have."""
    return memory_to_spare(device) // (beam_size * BYTES)


def fill_batches(lengths: Sequence[int], frames: int) -> list[list[Item]]:
    """Utterances of like length together, longest first, as many as make up to `frames` with their padding."""
    batches: list[list[Item]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or lengths[batches[-1][0].index] * (len(batches[-1]) + 1) > frames:
            batches.append([])
        batches[-1].append(Item(index))
    return batches


def for_all(
    recogniser: Recogniser,
    corpus: Corpus,
    beam_size: int,
    device: torch.device,
    decode_batch: Callable[[tuple[Heard, ...], torch.Tensor], list[T]],
    team: Team = SINGLE,
    done: Mapping[int, T] | None = None,
    keep: Callable[[dict[int, T]], None] = lambda results: None,
) -> list[T]:
    """What `decode_batch` makes of every utterance, in the corpus's order, from batches that fill memory.

    decode_batch: takes a batch as heard and its limits of characters `(B,)`; gives one result an utterance.
    A batch that memory has no room for is halved: results do not depend on who shares a batch. Raises UserError where
    even a single utterance finds no room. team: processes that share the batches; each returns all results.
    done: results that are there already, by position.   keep: gets those of each batch as soon as they are there.
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

    found: dict[int, T] = dict(done or {})
    batches = fill_batches(corpus.lengths, frames_to_spare(device, beam_size))[team.rank :: team.size]
    batches = [rest for batch in batches if (rest := [item for item in batch if item.index not in found])]
    loader = make_loader(FeatureDataset(corpus), batches, workers=0, device=device)
    total = sum(map(len, batches))
    hidden = team.hides_progress
    with tqdm(total=total, desc="decoding", unit="utt", leave=False, disable=hidden) as progress, torch.no_grad():
        for batch in loader:
            results = dict(zip(batch.indices.tolist(), run(batch.to(device)), strict=True))
            keep(results)
            found |= results
            progress.update(len(batch.indices))
    found = {index: result for share in team.gather(found) for index, result in share.items()}
    return [found[index] for index in range(len(corpus))]


def transcribe(
    recogniser: Recogniser,
    corpus: Corpus,
    options: DecodingOptions,
    device: torch.device,
    team: Team = SINGLE,
    kept: KeptTexts | None = None,
) -> list[str]:
    """The text that the ranker chooses for each utterance, in the corpus's order."""

    def decode_batch(heard: tuple[Heard, ...], limits: torch.Tensor) -> list[str]:
        if options.mode == "greedy":
            return [decode(tokens) for tokens in greedy_search(recogniser, heard, limits)]
        beams = beam_search(recogniser, heard, limits, options.beam_size, options.length_reward)
        return [RANKERS[options.rank](hypotheses) for hypotheses in beams]

    rows = options.beam_size if options.mode == "beam" else 1
    if kept is None:
        return for_all(recogniser, corpus, rows, device, decode_batch, team)
    names = [path.name for path in corpus.paths]
    done = {index: kept.texts[name] for index, name in enumerate(names) if name in kept.texts}

    def keep(texts: dict[int, str]) -> None:
        kept.add({names[index]: text for index, text in texts.items()})

    return for_all(recogniser, corpus, rows, device, decode_batch, team, done, keep)
