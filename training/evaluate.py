"""How good a model is on dev: loss, distance, alignment, and the maps and texts that show it."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from Levenshtein import distance
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset import FRAMES_PER_SECOND, Corpus
from decoding.greedy import ctc_greedy, greedy_search
from decoding.recogniser import Recogniser, character_limits
from models.las import LAS, las_loss
from report.attention_maps import AttentionMap
from utils.distributed import SINGLE, Team
from utils.metrics import coverage, monotonicity, repetition, score, sharpness
from utils.vocabulary import decode

MAPS = 3  # utterances drawn every epoch
LOOPS = 0.3  # repetition beyond the reference's from which on a hypothesis counts as looping


def utterances_to_show(corpus: Corpus) -> list[int]:
    """A short, a middling and a long one, the same every epoch."""
    by_length = np.argsort([len(text) for text in corpus.texts], kind="stable")
    picked = (int(by_length[round(share * (len(corpus) - 1))]) for share in np.linspace(0.3, 0.9, MAPS))
    return list(dict.fromkeys(picked))


class _Utterance(NamedTuple):
    """What became of one."""

    text: str
    ended: bool  # before the limit of characters
    ctc_text: str | None
    monotonicity: float
    coverage: float
    sharpness: float


@torch.no_grad()
def evaluate(
    model: LAS,
    loader: DataLoader,
    shown: list[int],
    device: torch.device,
    precision: str,
    ctc_weight: float = 0.0,
    spell: bool = True,
    team: Team = SINGLE,
) -> tuple[dict[str, float], list[AttentionMap], list[tuple[str, str, str, int]]]:
    """Greedy decoding, and a pass along the true transcripts for loss and attention.

    ctc_weight: share of the CTC branch in what is decoded, as in the beam: what counts is what test.py will do, and
    attention alone may loop to its limit long after it aligns.
    spell: False where the Speller is not trained yet: what counts as recognised is then what the CTC branch reads.
    team: processes whose loaders together have all utterances; each returns the result for all.
    Returns metrics, the attention maps of the utterances `shown`, and `(id, reference, hypothesis, distance)` of all
    utterances. Among the metrics: `dev_unended` and `dev_loops`, the shares of hypotheses that ran to their limit of
    characters, and that repeat themselves far more than their references do.
    """
    corpus: Corpus = loader.dataset.corpus
    recogniser = Recogniser([model], ctc_weight)
    found: dict[int, _Utterance] = {}
    maps: dict[int, AttentionMap] = {}
    loss_sum = characters = 0.0
    for batch in tqdm(loader, "dev", unit="batch", leave=False, disable=team.hides_progress):
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits, attention, listened = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
        count = int(batch.characters)
        loss_sum += float(las_loss(logits, listened, batch.tokens, batch.token_lengths).attention) * count
        characters += count
        limits = character_limits(batch.feature_lengths)
        read = None
        if listened.ctc_log_probs is not None:
            read = ctc_greedy(listened.ctc_log_probs, listened.ctc_lengths)
        heard = greedy_search(recogniser, (recogniser.prepare(listened),), limits) if spell else read
        steps = listened.memory.mask[:, 0, 0].sum(1).tolist()
        for row, index in enumerate(batch.indices.tolist()):
            labels = [*corpus.texts[index], "<eos>"]
            weights = attention[row, :, : len(labels), : steps[row]].mean(0).float().cpu()  # heads averaged
            ctc_text = None if read is None else decode(read[row])
            ended = len(heard[row]) < int(limits[row])
            instruments = monotonicity(weights), coverage(weights), sharpness(weights)
            found[index] = _Utterance(decode(heard[row]), ended, ctc_text, *instruments)
            if index in shown:
                seconds = corpus.lengths[index] / FRAMES_PER_SECOND
                maps[index] = AttentionMap(corpus.paths[index].stem, labels, weights.numpy(), seconds)

    shares = team.gather((found, maps, loss_sum, characters))
    found = {index: utterance for share in shares for index, utterance in share[0].items()}
    maps = {index: drawn for share in shares for index, drawn in share[1].items()}
    utterances = [found[index] for index in range(len(corpus))]
    texts = [one.text for one in utterances]
    pairs = list(zip(corpus.texts, texts, strict=True))
    result = score(corpus.texts, texts)

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(corpus)

    metrics = {
        "dev_loss": sum(share[2] for share in shares) / sum(share[3] for share in shares),
        "dev_distance": result.distance,
        "dev_cer": result.cer,
        "dev_wer": result.wer,
        "dev_monotonicity": mean(one.monotonicity for one in utterances),
        "dev_coverage": mean(one.coverage for one in utterances),
        "dev_sharpness": mean(one.sharpness for one in utterances),
        "dev_unended": mean(not one.ended for one in utterances),
        "dev_loops": mean(repetition(text) > repetition(true) + LOOPS for true, text in pairs),
    }
    if model.ctc is not None:
        metrics["dev_ctc_distance"] = score(corpus.texts, [one.ctc_text for one in utterances]).distance
    names = [path.stem for path in corpus.paths]
    listed = [(name, *pair, distance(*pair)) for name, pair in zip(names, pairs, strict=True)]
    return metrics, [maps[index] for index in shown], listed
