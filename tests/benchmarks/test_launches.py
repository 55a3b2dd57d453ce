"""python -m benchmarks.launches counts a step at a tiny shape, a loop by extrapolation."""

import json

import pytest

from benchmarks import launches
from benchmarks.shapes import SHAPES
from config import load_config
from tests.conftest import SMALL


@pytest.fixture
def tiny_shape(monkeypatch):
    kaggle = SHAPES["kaggle"]
    train = kaggle.train._replace(frames=(40, 60.0, 80), tokens=(14.0, 20))
    monkeypatch.setitem(SHAPES, "kaggle", kaggle._replace(train=train, batch_size=2, feature_dim=12))


def test_the_table(run_benchmark, tiny_shape, tmp_path, capsys):
    written = tmp_path / "launches.json"
    run_benchmark(launches, *SMALL, "--json", str(written))
    screen = capsys.readouterr().out
    assert "per character" in screen
    rows = json.loads(written.read_text(encoding="utf-8"))["steps"]
    assert [row["configuration"] for row in rows] == [
        "config.yaml, changed, forcing 1.0",
        "config.yaml, changed, forcing 0.9",
    ]
    assert all(row["syncs"] == 1 for row in rows)
    assert 0 < rows[0]["per character"] < rows[1]["per character"] < 70


def test_a_longer_transcript_is_what_was_extrapolated(tiny_shape):
    config = load_config(overrides=SMALL)
    row, counted = launches.row_of("", config, 1.0), launches.count_step(config, 1.0, 2, 60, 14, 12)
    assert row["kernels"] == pytest.approx(counted.kernels, abs=2)
    assert row["GB"] == pytest.approx(counted.gigabytes, rel=0.02)
