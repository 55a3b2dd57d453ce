"""The losses, written out and enumerated; gradients of the whole model."""

import math

import pytest
import torch

from models.las import character_limit, las_loss, off_alignment, off_diagonal
from utils.vocabulary import EOS, PAD, SOS

TOKENS = torch.tensor([[1, 5, 9, 4, 2], [1, 8, 8, 2, 0], [1, 4, 2, 0, 0]])
LENGTHS = torch.tensor([5, 4, 3])


def test_loss_of_an_utterance_does_not_depend_on_its_batch(make_las, speech):
    model = make_las()
    features, lengths = speech
    logits, attention, encoded = model(features, lengths, TOKENS[:, :-1])
    together = las_loss(logits, encoded, TOKENS, LENGTHS, ctc_weight=0.3)
    assert attention.shape == (3, 1, 4, model.listener.steps(41)[0])
    sums = torch.zeros(3)
    for row in range(3):
        tokens = TOKENS[row : row + 1, : LENGTHS[row]]
        alone = model(features[row : row + 1, : lengths[row]], lengths[row : row + 1], tokens[:, :-1])
        loss = las_loss(alone[0], alone[2], tokens, LENGTHS[row : row + 1], ctc_weight=0.3)
        sums += torch.stack([value.detach() for value in loss]) * (LENGTHS[row] - 1)
    expected = sums / (LENGTHS - 1).sum()
    torch.testing.assert_close(torch.stack([value.detach() for value in together]), expected, atol=1e-5, rtol=1e-5)


def test_loss_written_out(make_las, speech):
    model = make_las()
    logits, _, encoded = model(*speech, TOKENS[:, :-1])
    loss = las_loss(logits, encoded, TOKENS, LENGTHS, ctc_weight=0.3, label_smoothing=0.1)
    log_probs = logits.log_softmax(-1)
    terms = [
        -(0.9 * log_probs[row, step, TOKENS[row, step + 1]] + 0.1 * log_probs[row, step].mean())
        for row in range(3)
        for step in range(LENGTHS[row] - 1)
    ]
    torch.testing.assert_close(loss.attention, sum(terms) / len(terms))
    torch.testing.assert_close(loss.total, 0.7 * loss.attention + 0.3 * loss.ctc)
    default = las_loss(logits, encoded, TOKENS, LENGTHS)
    terms = [-log_probs[row, step, TOKENS[row, step + 1]] for row in range(3) for step in range(LENGTHS[row] - 1)]
    torch.testing.assert_close(default.total, sum(terms) / len(terms))


def test_ctc_by_enumeration_of_all_paths(make_las, speech):
    """The probability of the text is the sum over all frame labellings that collapse to it."""
    from itertools import product

    model = make_las()
    features, lengths = speech[0][2:, :9], speech[1][2:]
    tokens = TOKENS[2:, :3]  # one character: 4
    logits, _, encoded = model(features, lengths, tokens[:, :-1])
    loss = las_loss(logits, encoded, tokens, LENGTHS[2:], ctc_weight=0.3)
    log_probs, steps = encoded.ctc_log_probs[0], int(encoded.ctc_lengths[0])
    total = torch.tensor(0.0)
    for path in product((0, 4), repeat=steps):
        text = [label for i, label in enumerate(path) if label and (i == 0 or path[i - 1] != label)]
        if text == [4]:
            total = total + sum(log_probs[i, label] for i, label in enumerate(path)).exp()
    torch.testing.assert_close(loss.ctc, -total.log() / 2)  # two targets: the character and <eos>


def test_ctc_branch_is_optional_and_survives_impossible_transcripts(make_las, speech):
    model = make_las(ctc=False)
    assert model.ctc is None
    logits, _, encoded = model(*speech, TOKENS[:, :-1])
    loss = las_loss(logits, encoded, TOKENS, LENGTHS, ctc_weight=0.0)
    assert loss.ctc == 0
    assert loss.total == loss.attention

    model = make_las()
    tokens = torch.randint(3, 30, (1, 40))
    logits, _, encoded = model(speech[0][2:, :9], speech[1][2:], tokens[:, :-1])
    loss = las_loss(logits, encoded, tokens, torch.tensor([40]), ctc_weight=0.3)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_where_nothing_is_spelled_the_loss_is_ctc_alone(make_las, speech):
    """As in the epochs of training.ctc_epochs, whatever the weight."""
    model = make_las()
    spelled, _, encoded = model(*speech, TOKENS[:, :-1])
    logits, attention, alone = model(*speech, None)
    assert logits is attention is None
    torch.testing.assert_close(alone.ctc_log_probs, encoded.ctc_log_probs)
    loss = las_loss(None, alone, TOKENS, LENGTHS, ctc_weight=0.3)
    assert loss.total == loss.ctc > 0
    assert loss.attention == 0
    torch.testing.assert_close(loss.ctc, las_loss(spelled, encoded, TOKENS, LENGTHS, ctc_weight=0.3).ctc)
    with pytest.raises(ValueError, match="without a CTC branch"):
        las_loss(None, make_las(ctc=False)(*speech, None)[2], TOKENS, LENGTHS)


def test_the_character_limit_is_what_the_ctc_branch_has_steps_for(make_las, small_settings):
    limit = character_limit(**small_settings)
    model = make_las()
    for frames in (1, 9, 30, 41):
        encoded = model.listen(torch.zeros(1, frames, 12), torch.tensor([frames]))
        assert limit(frames) == int(encoded.ctc_lengths)
    assert character_limit(**{**small_settings, "ctc": False})(41) == 20


@pytest.mark.parametrize("kind", ["dot", "location"])
def test_gradients_reach_every_parameter_in_bf16(make_las, speech, kind):
    model = make_las(attention={"kind": kind}).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits, _, encoded = model(*speech, TOKENS[:, :-1], 0.5)
    assert logits.dtype == encoded.ctc_log_probs.dtype == torch.float32
    las_loss(logits, encoded, TOKENS, LENGTHS, 0.3, 0.1).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_attention_off_the_diagonal_written_out():
    torch.manual_seed(0)
    attention = torch.rand(2, 3, 5, 8).softmax(3)
    characters, steps = torch.tensor([5, 3]), torch.tensor([8, 6])
    expected = 0.0
    for row in range(2):
        for u in range(characters[row]):
            for s in range(8):
                gap = u / characters[row] - s / steps[row]
                expected += attention[row, :, u, s].mean() * (1 - torch.exp(-(gap**2) / (2 * 0.2**2)))
    torch.testing.assert_close(off_diagonal(attention, characters, steps), expected / 8)
    diagonal = torch.eye(6).expand(1, 1, 6, 6)
    assert off_diagonal(diagonal, torch.tensor([6]), torch.tensor([6])) == 0
    assert off_diagonal(diagonal.flip(3), torch.tensor([6]), torch.tensor([6])) > 0.5


def test_off_alignment_counts_what_is_not_where_the_next_character_is_spoken():
    """Of characters alone: <eos> may be looked for anywhere, and padding does not count."""
    spoken = torch.tensor([[0.0, 3.0, 6.0, 6.0], [0.0, 2.0, 9.0, 9.0]])  # <sos>, characters
    characters = torch.tensor([2, 1])
    weights = torch.zeros(2, 1, 4, 8)
    for row, query, step in ((0, 0, 3), (0, 1, 6), (0, 2, 0), (1, 0, 2), (1, 1, 7)):
        weights[row, 0, query, step] = 1
    assert off_alignment(weights, spoken, characters) == 0
    weights[0, 0, 1] = weights[0, 0, 1].roll(-2)  # looks at step 4, two from where the character is spoken
    expected = (1 - math.exp(-0.5)) / 3
    assert off_alignment(weights, spoken, characters).item() == pytest.approx(expected)


def test_relative_attention_is_told_where_ctc_hears_the_transcript(make_las, speech):
    model = make_las(attention={"kind": "relative"}, speller={"input_feeding": False}, ctc=True)
    tokens = torch.tensor([[SOS, 5, 9, 4], [SOS, 8, 8, EOS], [SOS, 4, EOS, PAD]])
    counted, told = (model(*speech, tokens, characters=given)[2].spoken for given in (None, torch.tensor([3, 2, 1])))
    torch.testing.assert_close(told, counted)
    assert (told[:, 0] == 0).all()
    assert (told.diff(dim=1)[0] >= 0).all()
    assert make_las()(*speech, tokens)[2].spoken is None
