"""How good a model is on dev: loss, distance, alignment, and the maps and texts that show it."""

import numpy as np
import torch
from Levenshtein import distance
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset import FRAMES_PER_SECOND, Corpus
from decoding.greedy import ctc_greedy, greedy_search
from decoding.recogniser import Recogniser, character_limits
from models.las import LAS, las_loss
from utils.metrics import monotonicity, score
from utils.visualization import AttentionMap
from utils.vocabulary import decode

MAPS, PREDICTIONS = 3, 24  # utterances drawn, and listed, every epoch


def utterances_to_show(corpus: Corpus) -> list[int]:
    """A short, a middling and a long one, the same every epoch."""
    by_length = np.argsort([len(text) for text in corpus.texts], kind="stable")
    picked = (int(by_length[round(share * (len(corpus) - 1))]) for share in np.linspace(0.3, 0.9, MAPS))
    return list(dict.fromkeys(picked))


@torch.no_grad()
def evaluate(
    model: LAS, loader: DataLoader, shown: list[int], device: torch.device, precision: str, spell: bool = True
) -> tuple[dict[str, float], list[AttentionMap], list[tuple[str, str, str, int]]]:
    """Greedy decoding, and a pass along the true transcripts for loss and attention.

    spell: False where the Speller is not trained yet: what counts as recognised is then what the CTC branch reads.
    Returns metrics, the attention maps of the utterances `shown`, and `(id, reference, hypothesis, distance)` of the
    first few utterances.
    """
    corpus: Corpus = loader.dataset.corpus
    recogniser = Recogniser([model])
    texts, ctc_texts, diagonal = [""] * len(corpus), [""] * len(corpus), []
    maps: dict[int, AttentionMap] = {}
    loss_sum = characters = 0.0
    for batch in tqdm(loader, "dev", unit="batch", leave=False, disable=None):
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits, attention, listened = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
        count = int(batch.token_lengths.sum()) - len(batch.token_lengths)
        loss_sum += float(las_loss(logits, listened, batch.tokens, batch.token_lengths).attention) * count
        characters += count
        limits = character_limits(batch.feature_lengths)
        heard = [greedy_search(recogniser, (recogniser.prepare(listened),), limits)] if spell else []
        if listened.ctc_log_probs is not None:
            heard += [ctc_greedy(listened.ctc_log_probs, listened.ctc_lengths)] * (1 if spell else 2)
        steps = listened.memory.mask[:, 0, 0].sum(1).tolist()
        for row, index in enumerate(batch.indices.tolist()):
            for store, hypotheses in zip((texts, ctc_texts), heard, strict=False):
                store[index] = decode(hypotheses[row])
            labels = [*corpus.texts[index], "<eos>"]
            weights = attention[row, :, : len(labels), : steps[row]].mean(0).float().cpu()  # heads averaged
            diagonal.append(monotonicity(weights))
            if index in shown:
                seconds = corpus.lengths[index] / FRAMES_PER_SECOND
                maps[index] = AttentionMap(corpus.paths[index].stem, labels, weights.numpy(), seconds)

    result = score(corpus.texts, texts)
    metrics = {
        "dev_loss": loss_sum / characters,
        "dev_distance": result.distance,
        "dev_cer": result.cer,
        "dev_wer": result.wer,
        "dev_monotonicity": sum(diagonal) / len(diagonal),
    }
    if model.ctc is not None:
        metrics["dev_ctc_distance"] = score(corpus.texts, ctc_texts).distance
    listed = [
        (corpus.paths[index].stem, corpus.texts[index], texts[index], distance(corpus.texts[index], texts[index]))
        for index in range(min(PREDICTIONS, len(corpus)))
    ]
    return metrics, [maps[index] for index in shown], listed
