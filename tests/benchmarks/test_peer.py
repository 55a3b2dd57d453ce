"""python -m benchmarks.peer trains SpeechBrain's model as train.py trains ours, and scores how it decodes."""

import re

import pytest
import torch

from benchmarks import peer
from benchmarks.reference.speechbrain_las import why_missing
from decoding.greedy import greedy_search
from decoding.recogniser import Recogniser, character_limits
from models.las import LAS

ROW = re.compile(r"^ *(CTC alone, greedy|beam \d, CTC [\d.]+) +([\d.,]+) +([\d.]+) +([\d.]+)", re.M)


class StandIn(LAS):
    """Ours in place of SpeechBrain's, which is not among the requirements."""

    def __init__(self, *sizes: int, parameters: int, **model_kwargs):
        super().__init__(*sizes, **model_kwargs)


@torch.no_grad()
def greedy_of_the_stand_in(model, features, lengths, beam_size, ctc_weight, steps):
    assert steps is None  # not the fixed number of the speed benchmark
    recogniser = Recogniser([model], ctc_weight)
    return greedy_search(recogniser, recogniser.encode(features, lengths), character_limits(lengths))


def train_peer(run_benchmark, small_config, toy_root, *overrides: str) -> None:
    keys = [f"data.root={toy_root}", "data.train=[train]", "data.dev=dev", "training.batch_size=8", *overrides]
    run_benchmark(peer, "--config", str(small_config), *keys)


@pytest.fixture
def without_speechbrain(monkeypatch):
    monkeypatch.setattr(peer, "why_missing", lambda: None)
    monkeypatch.setattr(peer, "SpeechBrainLAS", StandIn)
    monkeypatch.setattr(peer, "speechbrain_search", greedy_of_the_stand_in)


def test_peer_learns_and_every_decoding_is_scored(without_speechbrain, run_benchmark, small_config, toy_root, capsys):
    train_peer(run_benchmark, small_config, toy_root, "training.epochs=3", "training.ctc_epochs=2")
    screen = capsys.readouterr().out
    epochs = re.findall(r"epoch +(\d): train loss ([\d.]+), CTC ([\d.]+);", screen)
    assert [epoch for epoch, _, _ in epochs] == ["1", "2", "3"]
    assert [float(attention) for _, attention, _ in epochs[:2]] == [0, 0]  # the Listener alone
    assert float(epochs[2][1]) > 0
    assert float(epochs[2][2]) < 0.8 * float(epochs[0][2])
    rows = ROW.findall(screen)
    assert [name for name, *_ in rows] == ["CTC alone, greedy", *(f"beam 8, CTC {w:g}" for w in peer.CTC_WEIGHTS)]
    last = re.findall(r"distance ([\d.]+), CER ([\d.]+)%", screen)[-1]
    assert float(rows[0][1]) == pytest.approx(float(last[0]), abs=0.01)  # of the same weights


def test_peer_ends_when_its_minutes_are_over(without_speechbrain, run_benchmark, small_config, toy_root, capsys):
    train_peer(run_benchmark, small_config, toy_root, "training.epochs=50", "training.max_minutes=0.0001")
    assert capsys.readouterr().out.count("epoch ") == 1


@pytest.mark.skipif(why_missing() is not None, reason="SpeechBrain is not installed")
def test_speechbrain_itself_is_trained_and_searched(run_benchmark, small_config, toy_root, capsys):
    train_peer(run_benchmark, small_config, toy_root, "training.epochs=1")
    assert len(ROW.findall(capsys.readouterr().out)) == 1 + len(peer.CTC_WEIGHTS)


@pytest.mark.skipif(why_missing() is None, reason="SpeechBrain is installed")
def test_without_speechbrain_one_line_says_so(run_benchmark, small_config, toy_root, capsys):
    with pytest.raises(SystemExit):
        train_peer(run_benchmark, small_config, toy_root)
    assert "SpeechBrain is not installed: pip install speechbrain" in capsys.readouterr().err
