"""make gpu, at tiny sizes on the CPU: every section gives figures, and one that fails stops none after it."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu
from tests.conftest import HOME


def results_of(run_benchmark, folder, *flags) -> dict:
    run_benchmark(gpu, "--device", "cpu", "--tiny", "--out", str(folder), *flags)
    return json.loads((folder / "gpu.json").read_text(encoding="utf-8"))


def test_every_section_measures(run_benchmark, tmp_path):
    found = results_of(run_benchmark, tmp_path / "out")
    assert list(found) == ["command", *gpu.SECTIONS]
    assert not [row for rows in found.values() for row in rows if "failed" in row]
    exact = [row for row in found["Agreement with the CPU"] if row["precision"] == "float32"]
    assert len(exact) == 4
    assert all(row["beams equal"] and row["greedy texts equal"] and row["gradient, cosine"] > 0.999 for row in exact)
    assert {row["settings"] for row in found["Training steps at Kaggle's mean shape"]} == {
        "config.yaml",
        "configs/seed.yaml",
        "config.yaml with location attention",
    }
    assert found["Decoding, beam 8 with CTC"][0]["utterances"] == 12
    table = (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8")
    assert "### The Listener's LSTMs\n\n| BLSTM | precision |" in table


def test_a_section_that_fails_is_told_and_the_others_go_on(run_benchmark, tmp_path, monkeypatch):
    def fail(bench):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(gpu, "SECTIONS", {"bad": fail, "Environment": gpu.environment})
    found = results_of(run_benchmark, tmp_path)
    assert found["bad"] == [{"failed": "RuntimeError: no such kernel"}]
    assert found["Environment"]


def test_when_time_is_over_the_rest_is_left_out(run_benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "SECTIONS", {"a": lambda bench: [{"left": bench.left}]})
    assert results_of(run_benchmark, tmp_path, "--minutes", "1e-9")["a"] == [{"left out": "no time left"}]


def test_a_folder_that_cannot_be_made_is_named(run_benchmark, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        run_benchmark(gpu, "--device", "cpu", "--tiny", "--out", str(tmp_path / "file" / "out"))
    assert "--out: found" in capsys.readouterr().err


def test_it_needs_no_more_than_it_says():
    """A machine for an hour may have PyTorch and little else."""
    others = ["torchaudio", "wandb", "matplotlib", "soundfile", "speechbrain"]
    code = f"import sys; import benchmarks.gpu; print([name for name in {others} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
