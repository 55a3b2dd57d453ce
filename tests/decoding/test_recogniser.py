"""One or several models as one recogniser: rows, ensembles, a language model."""

import pytest
import torch

from decoding import ctc_prefix
from decoding.beam_search import beam_search
from decoding.greedy import greedy_search
from decoding.language_model import train_language_model
from decoding.recogniser import Recogniser, character_limits, select_rows
from models.speller import CellState, InputFeedingState
from utils.vocabulary import SOS


@pytest.mark.parametrize("attention", ["dot", "location"])
def test_a_model_decodes_a_batch_as_it_does_one_by_one(make_las, speech, attention):
    recogniser = Recogniser([make_las(seed, scale=2.0, attention={"kind": attention}) for seed in (0, 1)])
    features, lengths = speech
    limits = character_limits(lengths)

    def decode_rows(rows):
        encoded = recogniser.encode(features[rows, : lengths[rows].max()], lengths[rows])
        greedy = greedy_search(recogniser, encoded, limits[rows])
        return greedy, beam_search(recogniser, encoded, limits[rows], 4)

    greedy, beams = decode_rows(slice(0, 3))
    assert any(greedy)
    for row in range(3):
        alone_greedy, alone_beams = decode_rows(slice(row, row + 1))
        assert alone_greedy[0] == greedy[row]
        assert [h.tokens for h in alone_beams[0]] == [h.tokens for h in beams[row]]


def test_an_ensemble_averages_log_probabilities(make_las, speech):
    wide = make_las(1, speller={"hidden": 48}, listener={"hidden": 20})
    models = [make_las(0), wide]
    features, lengths = speech
    token = torch.tensor([5, 6, 7])

    def first_step(models):
        recogniser = Recogniser(models)
        encoded = recogniser.encode(features, lengths)
        return recogniser.step(token, recogniser.initial_state(encoded), encoded)[0]

    expected = (first_step(models[:1]) + first_step(models[1:])) / 2
    torch.testing.assert_close(first_step(models), expected)


def test_the_ctc_branch_has_its_share_of_a_score(make_las, speech):
    """(1 - w) log P_attention + w log P_ctc; in an ensemble, a model without the branch counts with its attention."""
    w, models, token = 0.3, [make_las(0), make_las(1, ctc=False)], torch.full((3,), SOS)

    def first_step(models, weight):
        recogniser = Recogniser(models, weight)
        encoded = recogniser.encode(*speech)
        return recogniser.step(token, recogniser.initial_state(encoded), encoded)[0]

    branch = models[0].listen(*speech)
    frames = ctc_prefix.prepare(branch.ctc_log_probs, branch.ctc_lengths)
    ctc, _ = ctc_prefix.step(token, ctc_prefix.initial_state(frames, rows=1), frames)
    mixed = (1 - w) * first_step(models[:1], 0.0) + w * ctc
    torch.testing.assert_close(first_step(models[:1], w), mixed, check_dtype=False)
    expected = (mixed + first_step(models[1:], 0.0)) / 2
    torch.testing.assert_close(first_step(models, w), expected, check_dtype=False)


def test_what_has_no_weight_is_not_computed(make_las, speech):
    model, language_model = make_las(0), train_language_model(["ABBA"], 2)
    for plain in (Recogniser([model]), Recogniser([model], 0.0, language_model), Recogniser([model], 0.0, None, 0.5)):
        assert plain.precision == "float32"
        encoded = plain.encode(*speech)
        assert encoded[0].ctc is None
        state = plain.initial_state(encoded, rows=2)
        assert (state.ctc, state.language_model) == ((None,), None)
    recogniser = Recogniser([model], 0.1, language_model, 0.1)
    state = recogniser.initial_state(recogniser.encode(*speech), rows=2)
    assert len(state.ctc[0].last) == len(state.language_model) == len(state.spellers[0].context) == 6


def test_limits_leave_room_for_fast_speech():
    assert character_limits(torch.tensor([1, 30, 1500])).tolist() == [10, 20, 510]


def test_select_rows_takes_rows_of_every_tensor_and_keeps_the_kind_of_tuple():
    cells = (CellState(torch.arange(4), torch.arange(8).view(4, 2)),)
    state = InputFeedingState(cells, torch.arange(4) * 10, None)
    found = select_rows((state, None), torch.tensor([2, 2, 0, 1]))
    assert isinstance(found[0], InputFeedingState)
    assert isinstance(found[0].cells[0], CellState)
    assert found[1] is found[0].past is None
    assert found[0].cells[0].h.tolist() == [2, 2, 0, 1]
    assert found[0].cells[0].c.tolist() == [[4, 5], [4, 5], [0, 1], [2, 3]]
    assert found[0].context.tolist() == [20, 20, 0, 10]


def test_a_language_model_is_added_with_its_weight(make_las, speech):
    model, language_model = make_las(0), train_language_model(["ABBA", "BABA"], 3)
    token = torch.tensor([3, 4, 5])

    def second_step(*fusion):
        recogniser = Recogniser([model], 0.0, *fusion)
        encoded = recogniser.encode(*speech)
        _, states = recogniser.step(torch.full((3,), SOS), recogniser.initial_state(encoded), encoded)
        return recogniser.step(token, states, encoded)[0]

    _, state = language_model.step(torch.full((3,), SOS), language_model.initial_state(3))
    expected = second_step() + 0.7 * language_model.step(token, state)[0]
    torch.testing.assert_close(second_step(language_model, 0.7), expected)
