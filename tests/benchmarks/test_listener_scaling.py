"""The plot of the Listener's time."""

import json

from benchmarks import train


def test_plot_draws_the_growth(run_benchmark, small_config, tmp_path):
    picture, written = tmp_path / "growth.png", tmp_path / "growth.json"
    sizes = ["--plot-frames", "20,40", "--plot-batches", "1,2"]
    flags = ["--config", str(small_config), "--rounds", "1", "--json", str(written)]
    run_benchmark(train, *flags, "--plot", str(picture), *sizes)
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = json.loads(written.read_text(encoding="utf-8"))["growth"]
    assert [(row["utterances"], row["frames"]) for row in rows] == [(1, 20), (1, 40), (2, 20), (2, 40)]
    assert all(row["µs per frame"]["median"] > 0 for row in rows)
