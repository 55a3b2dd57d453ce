"""CTC prefix scores against the sum over all labellings of the steps."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from decoding import ctc_prefix
from decoding.recogniser import select_rows
from utils.vocabulary import CTC_BLANK, EOS, SOS

LABELS = (CTC_BLANK, 3, 4)


@pytest.fixture
def log_probs():
    """Two utterances of 5 and 3 steps over blank and two characters, other labels nearly impossible."""
    torch.manual_seed(0)
    logits = torch.full((2, 5, 31), -60.0)
    logits[..., LABELS] = 2 * torch.randn(2, 5, 3)
    return logits.log_softmax(-1), torch.tensor([5, 3])


def collapse(path) -> tuple:
    return tuple(label for label, _ in itertools.groupby(path) if label != CTC_BLANK)


def enumerate_texts(log_probs, length) -> dict[tuple, float]:
    """Probability of each text: the sum over all paths that collapse to it."""
    texts: dict[tuple, float] = {}
    for path in itertools.product(LABELS, repeat=int(length)):
        text = collapse(path)
        probability = math.exp(sum(float(log_probs[i, label]) for i, label in enumerate(path)))
        texts[text] = texts.get(text, 0.0) + probability
    return texts


def test_padding_is_certain_blank_and_what_is_impossible_can_be_added_up():
    log_probs = torch.tensor([[[0.5, 0.5, 0.0], [0.25, 0.0, 0.75], [0.1, 0.2, 0.7]]]).log()
    frames = ctc_prefix.prepare(log_probs, torch.tensor([2]))
    half, quarter, low = math.log(0.5), math.log(0.25), -1e5
    expected = [[half, half, low], [quarter, low, math.log(0.75)], [0.0, low, low]]
    torch.testing.assert_close(frames.log_probs[0], torch.tensor(expected), check_dtype=False)
    probs = [[0.5, 0.5, 0.0], [0.25, 0.0, 0.75], [1.0, 0.0, 0.0]]
    torch.testing.assert_close(frames.probs[0], torch.tensor(probs), check_dtype=False)
    assert frames.cumulative[0, 2, 0].item() == pytest.approx(half + quarter)
    assert frames.cumulative.dtype == torch.float64


@pytest.mark.parametrize("text", [(), (3,), (3, 3), (3, 4, 3), (4, 4), (4, 3, 3)])
def test_equals_enumeration_of_all_paths(log_probs, text):
    frames = ctc_prefix.prepare(*log_probs)
    state = ctc_prefix.initial_state(frames, rows=1)
    total = torch.zeros(2)
    for token in (SOS, *text):
        if token != SOS:
            total = total + increments[:, token]  # noqa: F821 - of the step before
        increments, state = ctc_prefix.step(torch.tensor([token, token]), state, frames)
    for row, length in enumerate(log_probs[1]):
        texts = enumerate_texts(log_probs[0][row], length)
        prefix = sum(p for t, p in texts.items() if t[: len(text)] == text)
        assert total[row].exp().item() == pytest.approx(prefix, rel=1e-4, abs=1e-9)
        if prefix < 1e-9:
            continue
        for label in LABELS[1:]:
            longer = sum(p for t, p in texts.items() if t[: len(text) + 1] == (*text, label))
            assert (total[row] + increments[row, label]).exp().item() == pytest.approx(longer, rel=1e-4, abs=1e-9)
        ending = (total[row] + increments[row, EOS]).exp().item()
        assert ending == pytest.approx(texts.get(text, 0.0), rel=1e-4, abs=1e-9)


def test_rows_can_be_reordered_and_hundreds_of_steps_stay_exact():
    """Down three different prefixes, swapped on the way: the probability of the whole text is torch's CTC loss."""
    torch.manual_seed(1)
    log_probs, lengths = torch.randn(2, 400, 31).log_softmax(-1), torch.tensor([400, 333])
    texts = torch.randint(3, 31, (2, 3, 60))
    texts[:, 0, 10:20] = 7
    frames = ctc_prefix.prepare(log_probs, lengths)
    increments, state = ctc_prefix.step(torch.full((6,), SOS), ctc_prefix.initial_state(frames, rows=3), frames)
    swap = torch.tensor([2, 0, 1, 5, 3, 4])
    total = torch.zeros(6, dtype=torch.double)
    flat = texts.flatten(0, 1)
    for position in range(60):
        total = total + increments.gather(1, flat[:, position : position + 1]).squeeze(1)
        increments, state = ctc_prefix.step(flat[:, position], state, frames)
        state, flat, total, increments = select_rows(state, swap), flat[swap], total[swap], increments[swap]
    total = total + increments[:, EOS]
    expected = -F.ctc_loss(
        log_probs.repeat_interleave(3, 0).transpose(0, 1).double(),
        flat,
        lengths.repeat_interleave(3),
        torch.full((6,), 60),
        blank=CTC_BLANK,
        reduction="none",
    )
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-2)
