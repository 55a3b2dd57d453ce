"""Contestants are timed in turns."""

import time

import torch

from benchmarks.measure import Contestant, interleave, quartiles, ratios


def test_rounds_take_turns_and_a_slow_contestant_gets_fewer():
    calls, seconds = [], {"fast": 0.0, "slow": 0.05}

    def contestant(name: str) -> Contestant:
        def run(number: int) -> int:
            calls.append((name, number))
            time.sleep(seconds[name])
            return number

        return Contestant(name, lambda number: number, run)

    measurements = interleave([contestant("fast"), contestant("slow")], 3, 0.04, torch.device("cpu"))
    assert calls == [("fast", -1), ("slow", -1), ("fast", 0), ("slow", 0), ("fast", 1), ("fast", 2)]
    assert measurements["fast"].results == [0, 1, 2]
    assert len(measurements["slow"].seconds) == 1


def test_whose_turn_is_first_moves_on():
    calls = []
    contestants = [Contestant(name, lambda number: number, lambda _, name=name: calls.append(name)) for name in "abc"]
    interleave(contestants, 3, 1.0, torch.device("cpu"))
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"


def test_quartiles_and_ratios():
    assert quartiles([3.0, 1.0, 2.0]) == (1.5, 2.0, 2.5)
    assert ratios([2.0], [4.0, 1.0]).median == 0.5
