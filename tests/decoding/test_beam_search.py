"""Beam search against a slow reference."""

import math

import pytest
import torch

from benchmarks.pretend_cuda import PretendCuda
from decoding.beam_search import beam_search
from decoding.greedy import greedy_search
from tests.decoding.scripted import CASES, LIMITS, Scripted, ScriptedOnGpu, V
from utils.vocabulary import EOS, PAD, SOS


def slow_beam(model, encoded, limit, K, reward):
    """One utterance, hypotheses as Python objects, every rule of beam_search's docstring."""
    beam, finished = [([], 0.0, model.initial_state(encoded))], []
    for step in range(limit + 1):
        continuations = []
        for tokens, score, states in beam:
            log_probs, after = model.step(torch.tensor([tokens[-1] if tokens else SOS]), states, encoded)
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


@pytest.mark.parametrize(("seed", "ending"), CASES)
def test_beam_of_one_equals_greedy(seed, ending):
    model, encoded = Scripted(seed, 6, ending), (torch.arange(6),)
    beams = beam_search(model, encoded, LIMITS, beam_size=1)
    assert [hypotheses[0].tokens for hypotheses in beams] == greedy_search(model, encoded, LIMITS)


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
            log_probability = score - reward * (len(hypothesis.tokens) + 1)
            assert hypothesis.log_probability == pytest.approx(log_probability, abs=1e-4)


def test_a_wide_beam_finds_the_most_probable_text():
    """Against all texts of up to two of three characters that may end where they end."""

    class Tiny(Scripted):
        def step(self, token, states, encoded):
            log_probs, states = super().step(token, states, encoded)
            blocked = torch.full_like(log_probs, -math.inf)
            blocked[:, [EOS, 3, 4, 5]] = log_probs[:, [EOS, 3, 4, 5]]
            return blocked, states

    model, encoded = Tiny(8, 1), (torch.tensor([0]),)
    scores = {}
    for text in [[], *([a] for a in (3, 4, 5)), *([a, b] for a in (3, 4, 5) for b in (3, 4, 5))]:
        states, score, last = model.initial_state(encoded), 0.0, SOS
        for character in [*text, EOS]:
            log_probs, states = model.step(torch.tensor([last]), states, encoded)
            score, last = score + float(log_probs[0, character]), character
        if int(log_probs[0].argmax()) == EOS:
            scores[tuple(text)] = score
    assert len(scores) > 1
    best = max(scores, key=scores.get)
    (hypotheses,) = beam_search(model, encoded, torch.tensor([2]), beam_size=13, length_reward=0.0)
    assert tuple(hypotheses[0].tokens) == best
    assert hypotheses[0].score == pytest.approx(scores[best], abs=1e-5)


def test_a_speaker_who_never_ends_is_cut_at_the_limit():
    model, encoded = Scripted(0, 6, ending=-100.0), (torch.arange(6),)
    for hypotheses, limit in zip(beam_search(model, encoded, LIMITS, 4), LIMITS.tolist(), strict=True):
        assert {len(hypothesis.tokens) for hypothesis in hypotheses} == {limit}
    assert [len(tokens) for tokens in greedy_search(model, encoded, LIMITS)] == LIMITS.tolist()


def test_a_speaker_who_ends_at_once_gives_empty_text():
    model, encoded = Scripted(0, 6, ending=100.0), (torch.arange(6),)
    assert greedy_search(model, encoded, LIMITS) == [[]] * 6
    assert [hypotheses[0].tokens for hypotheses in beam_search(model, encoded, LIMITS, 4)] == [[]] * 6


def test_an_end_must_be_the_most_probable_continuation():
    """A cheap early <eos> would win by its short length; the beam only takes it where nothing is more probable."""

    class Hasty(Scripted):
        def step(self, token, states, encoded):
            ((_, count),) = states
            log_probs = torch.full((len(token), V), -20.0)
            log_probs[:, 3] = -0.9
            log_probs[:, EOS] = torch.where(count < 6, -1.0, -0.1)
            return log_probs, ((token, count + 1),)

    (hypotheses,) = beam_search(Hasty(0, 1), (torch.arange(1),), torch.tensor([20]), 4, length_reward=0.0)
    assert hypotheses[0].tokens == [3] * 6


def test_finished_utterances_leave_the_batch_once_a_quarter_of_it_has_finished():
    """Six that run to their limits, 12, 7, 9, 1, 12 and 5 characters: a step later they are done."""
    rows = []

    class Counted(Scripted):
        def step(self, token, states, encoded):
            rows.append(len(token))
            return super().step(token, states, encoded)

    beam_search(Counted(0, 6, ending=-100.0), (torch.arange(6),), LIMITS, beam_size=2)
    assert [count // 2 for count in rows] == [6] * 6 + [4] * 2 + [3] * 2 + [2] * 3
    rows.clear()
    beam_search(Counted(0, 6, ending=100.0), (torch.arange(6),), LIMITS, beam_size=1)
    assert rows == [6]  # all have ended with the first step, and the search with them


@pytest.mark.parametrize(("limits", "asked"), [([20, 20, 20], 3), ([7, 7, 7], 1), ([12, 5, 20], 3)])
def test_on_a_gpu_it_asks_every_eighth_step_and_at_the_limit_who_has_finished(limits, asked):
    limits = torch.tensor(limits)
    expected = beam_search(Scripted(0, 3, ending=-100.0), (torch.arange(3),), limits, 4)
    with PretendCuda() as gpu:
        model, encoded = ScriptedOnGpu(0, 3, ending=-100.0), (torch.arange(3).to(gpu.device),)
        with gpu.count() as counted:
            found = beam_search(model, encoded, limits, 4)
    assert [[each.tokens for each in beam] for beam in found] == [[each.tokens for each in beam] for beam in expected]
    waits = [line for line in counted.syncs if line.startswith("nonzero")]
    assert len({*waits}) <= 2  # who has not finished, and, where that pays, who has
    assert max(map(waits.count, waits)) == asked
