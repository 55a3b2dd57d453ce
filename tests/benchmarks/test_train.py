"""python -m benchmarks.train measures every contestant."""

from benchmarks import train
from benchmarks.reference.speechbrain_las import why_missing

COLUMNS = {"contestant", "rounds", "ms per utterance", "times project", "padded", "utilisation"}


def test_train_measures_at_a_tiny_shape(measure_tiny, capsys):
    figures = measure_tiny(train, "--only", ",".join(train.NAMES))
    screen = capsys.readouterr().out
    if why_missing():
        assert why_missing() in screen
    assert all(row.keys() >= COLUMNS for row in figures["steps"])
    assert {row["contestant"] for row in figures["steps"]} >= {
        "project",
        "other",
        "packed",
        "padded",
        "limit",
        "limit of few rows",
    }
    assert [row["contestant"] for row in figures["listener"]] == ["listener", "lstms"]
    assert all(row["GFLOP/s"] > 0 for row in figures["products"])
    assert {"GFLOP/s", "GFLOP/s of 2 rows"} < figures["products"][0].keys()
    small, *_, large = figures["memory"]
    assert (large["frames"], large["tokens"]) == (2 * small["frames"], 2 * small["tokens"])
