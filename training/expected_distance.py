"""Training on the competition's metric: minimum expected edit distance over an N-best list.

Prabhavalkar et al. 2018 (arXiv 1712.01818), equations 2 and 3, with characters for words: of the hypotheses that a
beam search finds, those with fewer errors than the mean of the list become more probable, the others less.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from dataset import Batch
from decoding.beam_search import beam_search
from decoding.recogniser import Recogniser, character_limits
from models.attention import Memory
from models.las import LAS, EncoderOutput
from utils.metrics import compare
from utils.vocabulary import CTC_BLANK, EOS, KAGGLE, PAD, SOS, Vocabulary

BEAM_SIZE = 4  # hypotheses per utterance; the published gain grows little beyond
IMPOSSIBLE = -1e6  # log-probability of a hypothesis that CTC cannot align at all


class NBest(NamedTuple):
    """Hypotheses of `B` utterances, `K` of each; where the search found fewer, the others are empty and not `found`."""

    tokens: Tensor  # (B K, U), <sos> and <eos> included, on the CPU like the others
    lengths: Tensor  # (B K,)
    distances: Tensor  # (B, K), Levenshtein distance from the transcript, as texts are scored
    found: Tensor  # (B, K), bool


def expected_distance(
    model: LAS, encoded: EncoderOutput, batch: Batch, ctc_weight: float, vocabulary: Vocabulary = KAGGLE
) -> Tensor:
    """Sum over utterances of the expected distance of their hypotheses, less the mean of the list: `()`.

    A hypothesis is as probable as decoding thinks it is, attention and CTC together, among those of its list.

    Args:
        model: in training mode; its Listener's dropout is in `encoded`, its Speller's is drawn anew.
        encoded: what it computed of the batch.
        batch: with transcripts.
        ctc_weight: share of the CTC branch in a hypothesis's score, if the model has one.
        vocabulary: of the model; distances are those of texts, of Korean in jamo too: in syllables.
    """
    nbest, device = find_hypotheses(model, encoded, batch, ctc_weight, vocabulary), batch.features.device
    tokens, lengths = nbest.tokens.to(device), nbest.lengths
    spoken = model.spoken(encoded.ctc_log_probs, encoded.ctc_lengths, tokens[:, :-1], lengths - 2)
    logits, _ = model.speller(tokens[:, :-1], encoded.memory, 1.0, spoken)
    inside = torch.arange(tokens.size(1) - 1) < (lengths - 1).unsqueeze(1)
    of_token = logits.log_softmax(2).gather(2, tokens[:, 1:].unsqueeze(2)).squeeze(2)
    score = (of_token * inside.to(device)).sum(1)
    if encoded.ctc_log_probs is not None and ctc_weight:
        ctc = F.ctc_loss(
            encoded.ctc_log_probs.repeat_interleave(BEAM_SIZE, dim=0).transpose(0, 1),
            tokens[:, 1:],
            encoded.ctc_lengths.repeat_interleave(BEAM_SIZE),
            lengths - 2,  # CTC has neither <sos> nor <eos>
            blank=CTC_BLANK,
            reduction="none",
            zero_infinity=True,
        )
        score = (1 - ctc_weight) * score - ctc_weight * ctc
    found, distances = nbest.found.to(device), nbest.distances.to(device)
    probability = score.view_as(distances).masked_fill(~found, IMPOSSIBLE).softmax(1)
    mean = (distances * found).sum(1, keepdim=True) / found.sum(1, keepdim=True).clamp(min=1)
    return (probability * (distances - mean) * found).sum()


@torch.no_grad()
def find_hypotheses(
    model: LAS, encoded: EncoderOutput, batch: Batch, ctc_weight: float, vocabulary: Vocabulary = KAGGLE
) -> NBest:
    """The N-best list of a beam search without the Speller's dropout, and its distances; arguments as above."""
    references = [vocabulary.decode(row) for row in batch.tokens.tolist()]
    ctc = None if encoded.ctc_log_probs is None else encoded.ctc_log_probs.detach()
    detached = EncoderOutput(Memory(*(tensor.detach() for tensor in encoded.memory)), ctc, encoded.ctc_lengths)
    recogniser = Recogniser([model], ctc_weight)
    # A hypothesis of more than twice the transcript teaches nothing that one of twice its length does not.
    limits = torch.minimum(character_limits(batch.feature_lengths), 2 * batch.token_lengths)
    beams = beam_search(recogniser, (recogniser.prepare(model, detached),), limits, BEAM_SIZE)
    model.train()
    lists = [[h.tokens for h in beam if h.log_probability > IMPOSSIBLE] for beam in beams]
    spelled = [[*found, *[[]] * (BEAM_SIZE - len(found))] for found in lists]
    rows = [torch.tensor([SOS, *tokens, EOS]) for hypotheses in spelled for tokens in hypotheses]
    return NBest(
        pad_sequence(rows, batch_first=True, padding_value=PAD),
        torch.tensor([len(row) for row in rows]),
        torch.tensor(
            [
                [float(one.distance) for one in compare([reference] * BEAM_SIZE, [*map(vocabulary.decode, hypotheses)])]
                for hypotheses, reference in zip(spelled, references, strict=True)
            ]
        ),
        torch.tensor([[k < len(found) for k in range(BEAM_SIZE)] for found in lists]),
    )
