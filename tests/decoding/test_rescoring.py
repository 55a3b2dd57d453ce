"""Scores kept apart by source add up to what the beam mixed, and to what torch and the models say one by one."""

import pytest
import torch
from torch.nn import functional as F

from decoding.beam_search import beam_search
from decoding.language_model import train_language_model
from decoding.recogniser import Recogniser, character_limits
from decoding.rescoring import Weights, combine, score_hypotheses
from utils.vocabulary import EOS, KAGGLE

TEXTS = ["THE CAT", "A CAT", "THE DOG SAT"]


@pytest.mark.parametrize("weights", [Weights(0.0, 0.0, 0.1), Weights(0.4, 0.0, 0.0), Weights(0.3, 0.5, 0.2)])
def test_the_beams_scores_are_the_sources_combined(make_las, speech, weights):
    relative = make_las(1, 2.0, attention={"kind": "relative"}, speller={"input_feeding": False})
    models = [make_las(0, scale=2.0), relative]
    for model in models:
        model.speller.output_bias.data[EOS] += 3.0  # so that texts end before the limit
    language_model = train_language_model(TEXTS, 3)
    recogniser = Recogniser(models, weights.ctc_weight, language_model, weights.lm_weight, keep_posteriors=True)
    encoded = recogniser.encode(*speech)
    limits = character_limits(speech[1])
    beams = beam_search(recogniser, encoded, limits, 4, weights.length_reward)
    texts = [[hypothesis.tokens for hypothesis in beam] for beam in beams]
    checked = 0
    for beam, scores, limit in zip(beams, score_hypotheses(recogniser, encoded, texts), limits.tolist(), strict=True):
        for hypothesis, expected in zip(beam, combine(scores, weights).tolist(), strict=True):
            if len(hypothesis.tokens) < limit:  # a hypothesis cut at the limit has no <eos> to count
                assert hypothesis.score == pytest.approx(expected, rel=1e-3)
                checked += 1
    assert checked >= 3


def test_the_ctc_score_is_the_same_whatever_weight_the_search_has(make_las, speech):
    model, texts = make_las(2, scale=2.0), [[KAGGLE.encode(text)[1:-1] for text in TEXTS]] * 3
    scores = []
    for weight in (0.0, 0.3):
        recogniser = Recogniser([model], weight, keep_posteriors=True)
        scores.append(score_hypotheses(recogniser, recogniser.encode(*speech), texts))
    for without, with_weight in zip(*scores, strict=True):
        assert torch.equal(without.ctc, with_weight.ctc)
        assert not torch.allclose(without.ctc, without.attention)


def test_a_text_longer_than_its_ctc_steps_has_a_number_alone_and_in_a_batch(make_las, speech):
    features, lengths = speech  # the last one has 9 frames, of 3 steps
    recogniser = Recogniser([make_las()], 0.0, keep_posteriors=True)
    tokens = [[KAGGLE.encode("A" * 9)[1:-1], KAGGLE.encode("A")[1:-1]]]
    (alone,) = score_hypotheses(recogniser, recogniser.encode(features[2:, :9], lengths[2:]), tokens)
    *_, padded = score_hypotheses(recogniser, recogniser.encode(features, lengths), tokens * 3)
    for weight in (0.0, 0.5, 1.0):
        scores = combine(alone, Weights(weight, 0.0, 0.0)), combine(padded, Weights(weight, 0.0, 0.0))
        assert torch.isfinite(scores[0]).all()
        assert torch.allclose(*scores, rtol=1e-4)
    assert alone.ctc[0] < -1e4 < alone.ctc[1]


def test_each_source_alone(make_las, speech):
    model, features, lengths = make_las(2, scale=2.0), *speech
    language_model = train_language_model(TEXTS, 3)
    recogniser = Recogniser([model], 0.5, language_model, 0.1)
    encoded = recogniser.encode(features, lengths)
    texts = ["CAT", "", "A"]
    hypotheses = [[KAGGLE.encode(text)[1:-1]] * (row + 1) for row, text in enumerate(texts)]  # 1, 2 and 3 of them
    found = score_hypotheses(recogniser, encoded, hypotheses)
    assert [len(scores.length) for scores in found] == [1, 2, 3]
    for row, (text, scores) in enumerate(zip(texts, found, strict=True)):
        tokens = torch.tensor([KAGGLE.encode(text)])
        with torch.no_grad():
            alone = features[row : row + 1, : lengths[row]], lengths[row : row + 1]
            logits, _, output = model(*alone, tokens[:, :-1])
        attention = logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).sum()
        ctc = F.ctc_loss(
            output.ctc_log_probs.transpose(0, 1),
            tokens[:, 1:-1],
            output.ctc_lengths,
            torch.tensor([len(text)]),
            reduction="sum",
        )
        state, lm = language_model.initial_state(1), 0.0
        for before, after in zip(KAGGLE.encode(text), [*KAGGLE.encode(text)[1:]], strict=False):
            log_probs, state = language_model.step(torch.tensor([before]), state)
            lm += float(log_probs[0, after])
        assert scores.attention.tolist() == pytest.approx([float(attention)] * (row + 1), abs=1e-3)
        assert scores.ctc.tolist() == pytest.approx([-float(ctc)] * (row + 1), abs=1e-3)
        assert scores.lm.tolist() == pytest.approx([lm] * (row + 1), abs=1e-4)
        assert scores.length.tolist() == [len(text) + 1] * (row + 1)
