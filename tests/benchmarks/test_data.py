"""python -m benchmarks.data measures every loader."""

from benchmarks import data

COLUMNS = {"loader", "passes", "utterances per second", "waiting"}


def test_data_measures_at_a_tiny_shape(measure_tiny, capsys):
    figures = measure_tiny(data, "--only", "ram-0,off-2,mmap-0")
    assert [row["loader"] for row in figures["loader"]] == ["ram-0", "off-2", "mmap-0"]
    assert all(row.keys() >= COLUMNS for row in figures["loader"])
    assert "found: " not in capsys.readouterr().out  # no line for the corpus of each contestant
