"""How good a model is on dev: loss, distance, alignment, and the attention maps and texts that show it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from corpora.loading import FRAMES_PER_SECOND, Corpus
from dataset import Batch
from decoding.greedy import ctc_greedy, greedy_search
from decoding.recogniser import Recogniser, character_limits
from decoding.transcribe import in_halves
from models.las import LAS, las_loss
from utils.device import autocast
from utils.distributed import SINGLE_PROCESS, DistributedContext
from utils.errors import UserError
from utils.metrics import compare, coverage, monotonicity, repetition, score, sharpness

MAPS = 3  # utterances whose attention is drawn every epoch
LOOPS = 0.3  # repetition beyond the reference's from which on a hypothesis counts as looping


@dataclass(frozen=True)
class AttentionMap:
    """Attention of one utterance along its true transcript, averaged over heads."""

    utterance: str
    characters: Sequence[str]  # that were spelled at each of the U steps, `<eos>` last
    weights: np.ndarray  # (U, S)
    seconds: float


class Prediction(NamedTuple):
    """A row of the table of predictions."""

    id: str
    reference: str
    hypothesis: str
    distance: int


class Evaluation(NamedTuple):
    """metrics: dev_*, see `evaluate`.   maps: of the utterances to show.   predictions: of all, in corpus order."""

    metrics: dict[str, float]
    maps: list[AttentionMap]
    predictions: list[Prediction]


class _UtteranceResult(NamedTuple):
    """What is measured of one utterance."""

    text: str
    ended: bool  # before the limit of characters
    ctc_text: str | None  # None without a CTC branch
    monotonicity: float
    coverage: float
    sharpness: float


def utterances_to_show(corpus: Corpus) -> list[int]:
    """Positions of a short, a middling and a long utterance, the same every epoch."""
    by_length = np.argsort([len(text) for text in corpus.transcripts], kind="stable")
    picked = (int(by_length[round(share * (len(corpus) - 1))]) for share in np.linspace(0.3, 0.9, MAPS))
    return list(dict.fromkeys(picked))


def lockstep(
    loader: DataLoader, context: DistributedContext, device: torch.device, stop: Callable[[], bool]
) -> Iterator[Batch]:
    """Batches of `loader`, on the device, as long as no rank asks to stop.

    Ranks may differ by one batch; they ask each other before every one, so that all leave together.
    """
    own = torch.tensor(len(loader))
    rounds = -(-int(context.all_reduce_sum(own)) // context.world_size)
    batches = iter(loader)
    for _ in tqdm(range(rounds), "dev", unit="batch", leave=False, disable=context.hide_progress):
        if context.any_rank(stop()):
            return
        for batch in islice(batches, 1):
            yield batch.to(device)


@torch.no_grad()
def evaluate(
    model: LAS,
    loader: DataLoader,
    shown: Sequence[int],
    device: torch.device,
    precision: str,
    ctc_weight: float = 0.0,
    spell: bool = True,
    context: DistributedContext = SINGLE_PROCESS,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Decodes dev greedily, and passes along the true transcripts for loss and attention.

    Args:
        model: the model to evaluate, on `device`.
        loader: batches of the dev corpus; the loaders of all ranks together have every utterance once.
        shown: positions of the utterances whose attention maps are wanted.
        device: of the model.
        precision: float32, or bf16 or fp16 for autocast.
        ctc_weight: share of the CTC branch in what is decoded, as in the beam: what counts is what test.py will do,
            and attention alone may loop to its limit long after it aligns.
        spell: False if the Speller is not trained yet: the hypothesis is then what the CTC branch reads.
        context: ranks that share the evaluation; each returns the result for all.
        stop: asked before every batch on every rank; evaluation ends as soon as it is true on one.

    Returns:
        The evaluation, or None if it was stopped. Among its metrics, `dev_unended` and `dev_loops` are the shares of
        hypotheses that ran to their limit of characters, and that repeat themselves far more than their references do.

    Raises:
        UserError: the loss is not finite; on every rank.
    """
    corpus: Corpus = loader.dataset.corpus  # type: ignore[attr-defined]  # a FeatureDataset
    decode = corpus.vocabulary.decode
    recogniser = Recogniser([model], ctc_weight)
    results: dict[int, _UtteranceResult] = {}
    maps: dict[int, AttentionMap] = {}
    loss_sum, characters, stopped = torch.zeros((), dtype=torch.float64, device=device), 0, False

    def stop_and_note() -> bool:
        nonlocal stopped
        stopped = stop()
        return stopped

    def look(batch: Batch) -> list[tuple[int, _UtteranceResult]]:
        nonlocal loss_sum, characters
        with autocast(device, precision):
            logits, attention, encoded = model(
                batch.features, batch.feature_lengths, batch.tokens[:, :-1], characters=batch.token_lengths - 2
            )
        loss = las_loss(logits, encoded, batch.tokens, batch.token_lengths).attention
        limits, ctc_tokens = character_limits(batch.feature_lengths), None
        if encoded.ctc_log_probs is not None:
            ctc_tokens = ctc_greedy(encoded.ctc_log_probs, encoded.ctc_lengths)
        tokens = greedy_search(recogniser, (recogniser.prepare(model, encoded),), limits) if spell else ctc_tokens
        assert tokens is not None  # without the Speller there is a CTC branch
        heads_averaged, steps = attention.mean(1).cpu(), model.listener.steps(batch.feature_lengths)[0].tolist()
        found = []
        for row, index in enumerate(batch.indices.tolist()):
            drawn = _attention_map(corpus, index, heads_averaged[row], steps[row])
            weights = torch.from_numpy(drawn.weights)
            result = _UtteranceResult(
                decode(tokens[row]),
                len(tokens[row]) < int(limits[row]),
                None if ctc_tokens is None else decode(ctc_tokens[row]),
                monotonicity(weights),
                coverage(weights),
                sharpness(weights),
            )
            found.append((index, result))
            if index in shown:
                maps[index] = drawn
        loss_sum += loss * batch.characters
        characters += batch.characters
        return found

    for batch in lockstep(loader, context, device, stop_and_note):
        results.update(in_halves(look, batch))

    if context.any_rank(stopped):
        return None
    shares = context.all_gather((results, maps, float(loss_sum), characters))
    results = {index: result for share in shares for index, result in share[0].items()}
    maps = {index: drawn for share in shares for index, drawn in share[1].items()}
    loss = sum(share[2] for share in shares) / sum(share[3] for share in shares)
    if not math.isfinite(loss):
        raise UserError(
            f"the loss on dev is {loss}: the model's numbers have left the range of floats; last.pt holds what was "
            "computed before. A lower training.learning_rate usually helps"
        )
    in_order = [results[index] for index in range(len(corpus))]
    return _summarise(corpus, in_order, loss, [maps[index] for index in shown])


def _attention_map(corpus: Corpus, index: int, attention: Tensor, steps: int) -> AttentionMap:
    """`attention (U, S)` of one utterance in a batch, without its padding."""
    characters = corpus.vocabulary.labels(corpus.transcripts[index])
    weights = attention[: len(characters), :steps].contiguous()
    seconds = corpus.lengths[index] / FRAMES_PER_SECOND
    return AttentionMap(corpus.paths[index].stem, characters, weights.numpy(), seconds)


def _summarise(
    corpus: Corpus, results: Sequence[_UtteranceResult], loss: float, maps: list[AttentionMap]
) -> Evaluation:
    """Means over the corpus, and the table of predictions."""
    texts = [result.text for result in results]
    compared, total = compare(corpus.transcripts, texts), score(corpus.transcripts, texts)

    def mean(values: Iterator[float]) -> float:
        return sum(values) / len(corpus)

    metrics = {
        "dev_loss": loss,
        "dev_distance": total.distance,
        "dev_cer": total.cer,
        "dev_wer": total.wer,
        "dev_monotonicity": mean(result.monotonicity for result in results),
        "dev_coverage": mean(result.coverage for result in results),
        "dev_sharpness": mean(result.sharpness for result in results),
        "dev_unended": mean(not result.ended for result in results),
        "dev_loops": mean(repetition(text) > repetition(true) + LOOPS for true, text, _ in compared),
    }
    ctc_texts = [result.ctc_text for result in results if result.ctc_text is not None]
    if ctc_texts:
        metrics["dev_ctc_distance"] = score(corpus.transcripts, ctc_texts).distance
    predictions = [Prediction(path.stem, *one) for path, one in zip(corpus.paths, compared, strict=True)]
    return Evaluation(metrics, maps, predictions)
