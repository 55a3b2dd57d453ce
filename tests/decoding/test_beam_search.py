"""Decoders against slow references, on a scripted recogniser whose choices are clear and whose endings vary."""

import math

import pytest
import torch

from decoding.beam_search import beam_search
from decoding.greedy import ctc_greedy, greedy_search
from decoding.language_model import train_language_model
from decoding.recogniser import Recogniser, character_limits, select_rows
from models.speller import CellState, InputFeedingState
from utils.vocabulary import EOS, PAD, SOS, VOCABULARY, decode

V = len(VOCABULARY)


class Scripted:
    """What follows depends on the utterance, the last two characters and how many there were: a random table."""

    def __init__(self, seed: int, utterances: int, ending: float = 0.0):
        generator = torch.Generator().manual_seed(seed)
        self.tables = 2.5 * torch.randn(utterances, 4, V, V, generator=generator)
        self.tables[..., EOS] += ending

    def initial_state(self, memories, rows=1):
        N = len(memories[0]) * rows
        return ((torch.zeros(N, dtype=torch.long), torch.zeros(N, dtype=torch.long)),)

    def step(self, token, states, memories):
        ((before, count),) = states
        utterance = memories[0].repeat_interleave(len(token) // len(memories[0]))
        scores = self.tables[utterance, count % 4, token] + 0.5 * self.tables[utterance, 0, before]
        return scores.log_softmax(-1), ((token, count + 1),)


def slow_greedy(model, memories, limit):
    states, token, spelled = model.initial_state(memories), torch.tensor([SOS]), []
    while len(spelled) < limit:
        log_probs, states = model.step(token, states, memories)
        best = max((c for c in range(V) if c not in (PAD, SOS)), key=lambda c: float(log_probs[0, c]))
        if best == EOS:
            break
        spelled.append(best)
        token = torch.tensor([best])
    return spelled


def slow_beam(model, memories, limit, K, reward):
    """One utterance, hypotheses as Python objects, every rule of beam_search's docstring."""
    beam, finished = [([], 0.0, model.initial_state(memories))], []
    for step in range(limit + 1):
        continuations = []
        for tokens, score, states in beam:
            log_probs, after = model.step(torch.tensor([tokens[-1] if tokens else SOS]), states, memories)
            allowed = [character for character in range(V) if character not in (PAD, SOS)]
            for character in allowed:
                if character != EOS or all(log_probs[0, EOS] >= log_probs[0, other] for other in allowed):
                    continuations.append((score + reward + float(log_probs[0, character]), [*tokens, character], after))
        continuations.sort(key=lambda c: -c[0])
        for score, tokens, _ in continuations[:K]:
            if tokens[-1] == EOS:
                finished.append((score, tokens[:-1]))
        if step == limit and not finished:
            finished = [(score + reward, tokens) for tokens, score, _ in beam]
        beam = [(tokens, score, states) for score, tokens, states in continuations if tokens[-1] != EOS][:K]
        ahead = finished and max(finished)[0] >= beam[0][1]
        if (len(finished) >= K and ahead) or step == limit:
            break
    return sorted(finished, key=lambda hypothesis: -hypothesis[0])[:K]


LIMITS = torch.tensor([12, 7, 9, 1, 12, 5])
CASES = [(seed, ending) for seed in range(4) for ending in (-4.0, 1.0, 3.0)]


@pytest.mark.parametrize(("seed", "ending"), CASES)
def test_greedy_equals_slow_greedy(seed, ending):
    model = Scripted(seed, 6, ending)
    together = greedy_search(model, (torch.arange(6),), LIMITS)
    assert together == [slow_greedy(model, (torch.tensor([u]),), int(LIMITS[u])) for u in range(6)]


@pytest.mark.parametrize(("seed", "ending"), CASES)
def test_beam_of_one_equals_greedy(seed, ending):
    model, memories = Scripted(seed, 6, ending), (torch.arange(6),)
    beams = beam_search(model, memories, LIMITS, beam_size=1)
    assert [hypotheses[0].tokens for hypotheses in beams] == greedy_search(model, memories, LIMITS)


@pytest.mark.parametrize(("seed", "ending"), CASES)
@pytest.mark.parametrize(("K", "reward"), [(2, 1.0), (5, 0.0), (20, 0.7)])
def test_batched_beam_equals_slow_beam_one_utterance_at_a_time(seed, ending, K, reward):
    model = Scripted(seed, 6, ending)
    together = beam_search(model, (torch.arange(6),), LIMITS, K, reward)
    for utterance in range(6):
        expected = slow_beam(model, (torch.tensor([utterance]),), int(LIMITS[utterance]), K, reward)
        assert [hypothesis.tokens for hypothesis in together[utterance]] == [tokens for _, tokens in expected]
        for hypothesis, (score, _) in zip(together[utterance], expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)


def test_a_wide_beam_finds_the_most_probable_text():
    """Against all texts of up to two of three characters that may end where they end."""

    class Tiny(Scripted):
        def step(self, token, states, memories):
            log_probs, states = super().step(token, states, memories)
            blocked = torch.full_like(log_probs, -math.inf)
            blocked[:, [EOS, 3, 4, 5]] = log_probs[:, [EOS, 3, 4, 5]]
            return blocked, states

    model, memories = Tiny(8, 1), (torch.tensor([0]),)
    scores = {}
    for text in [[], *([a] for a in (3, 4, 5)), *([a, b] for a in (3, 4, 5) for b in (3, 4, 5))]:
        states, score, last = model.initial_state(memories), 0.0, SOS
        for character in [*text, EOS]:
            log_probs, states = model.step(torch.tensor([last]), states, memories)
            score, last = score + float(log_probs[0, character]), character
        if int(log_probs[0].argmax()) == EOS:
            scores[tuple(text)] = score
    assert len(scores) > 1
    best = max(scores, key=scores.get)
    (hypotheses,) = beam_search(model, memories, torch.tensor([2]), beam_size=13, length_reward=0.0)
    assert tuple(hypotheses[0].tokens) == best
    assert hypotheses[0].score == pytest.approx(scores[best], abs=1e-5)


def test_a_speaker_who_never_ends_is_cut_at_the_limit():
    model, memories = Scripted(0, 6, ending=-100.0), (torch.arange(6),)
    for hypotheses, limit in zip(beam_search(model, memories, LIMITS, 4), LIMITS.tolist(), strict=True):
        assert {len(hypothesis.tokens) for hypothesis in hypotheses} == {limit}
    assert [len(tokens) for tokens in greedy_search(model, memories, LIMITS)] == LIMITS.tolist()


def test_a_speaker_who_ends_at_once_gives_empty_text():
    model, memories = Scripted(0, 6, ending=100.0), (torch.arange(6),)
    assert greedy_search(model, memories, LIMITS) == [[]] * 6
    assert [hypotheses[0].tokens for hypotheses in beam_search(model, memories, LIMITS, 4)] == [[]] * 6


@pytest.mark.parametrize("attention", ["dot", "location"])
def test_a_model_decodes_a_batch_as_it_does_one_by_one(make_las, speech, attention):
    recogniser = Recogniser([make_las(seed, scale=2.0, attention={"kind": attention}) for seed in (0, 1)])
    features, lengths = speech
    limits = character_limits(lengths)

    def decode_rows(rows):
        memories = recogniser.encode(features[rows, : lengths[rows].max()], lengths[rows])
        greedy = greedy_search(recogniser, memories, limits[rows])
        return greedy, beam_search(recogniser, memories, limits[rows], 4)

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
        memories = recogniser.encode(features, lengths)
        return recogniser.step(token, recogniser.initial_state(memories), memories)[0]

    expected = (first_step(models[:1]) + first_step(models[1:])) / 2
    torch.testing.assert_close(first_step(models), expected)


def test_select_rows_takes_rows_of_every_tensor_and_keeps_the_kind_of_tuple():
    cells = (CellState(torch.arange(4), torch.arange(8).view(4, 2)),)
    state = InputFeedingState(cells, torch.arange(4) * 10, None)
    found = select_rows((state, None), torch.tensor([2, 2, 0, 1]))
    assert isinstance(found[0], InputFeedingState)
    assert isinstance(found[0].cells[0], CellState)
    assert found[1] is found[0].past_attention is None
    assert found[0].cells[0].h.tolist() == [2, 2, 0, 1]
    assert found[0].cells[0].c.tolist() == [[4, 5], [4, 5], [0, 1], [2, 3]]
    assert found[0].context.tolist() == [20, 20, 0, 10]


def test_ctc_greedy_merges_repeats_and_drops_blanks():
    labels = torch.tensor([[0, 3, 3, 0, 3, 4, 0, 5], [4, 4, 5, 5, 5, 0, 3, 3]])
    log_probs = torch.nn.functional.one_hot(labels, V).float().log()
    assert ctc_greedy(log_probs, torch.tensor([8, 6])) == [[3, 3, 4, 5], [4, 5]]


def test_decode_cuts_at_the_first_eos():
    assert decode([3, 4, PAD, 30, 29, EOS, 5]) == "AB '"
    assert decode([EOS, 5]) == ""


def test_a_language_model_is_added_with_its_weight(make_las, speech):
    model, language_model = make_las(0), train_language_model(["ABBA", "BABA"], 3)
    token = torch.tensor([3, 4, 5])

    def second_step(*fusion):
        recogniser = Recogniser([model], 0.0, *fusion)
        heard = recogniser.encode(*speech)
        _, states = recogniser.step(torch.full((3,), SOS), recogniser.initial_state(heard), heard)
        return recogniser.step(token, states, heard)[0]

    _, state = language_model.step(torch.full((3,), SOS), language_model.initial_state(3))
    expected = second_step() + 0.7 * language_model.step(token, state)[0]
    torch.testing.assert_close(second_step(language_model, 0.7), expected)


def test_an_end_must_be_the_most_probable_continuation():
    """A cheap early <eos> would win by its short length; the beam only takes it where nothing is more probable."""

    class Hasty(Scripted):
        def step(self, token, states, memories):
            ((_, count),) = states
            log_probs = torch.full((len(token), V), -20.0)
            log_probs[:, 3] = -0.9
            log_probs[:, EOS] = torch.where(count < 6, -1.0, -0.1)
            return log_probs, ((token, count + 1),)

    (hypotheses,) = beam_search(Hasty(0, 1), (torch.arange(1),), torch.tensor([20]), 4, length_reward=0.0)
    assert hypotheses[0].tokens == [3] * 6
