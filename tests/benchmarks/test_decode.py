"""python -m benchmarks.decode measures every contestant, and the textbook finds the hypotheses of the project."""

import pytest

from benchmarks import decode
from benchmarks.reference.speechbrain_las import why_missing
from utils.checkpoint import save_checkpoint
from utils.vocabulary import KAGGLE

COLUMNS = {"contestant", "rounds", "ms per utterance", "times project"}


def test_decode_measures_at_a_tiny_shape(measure_tiny, capsys):
    figures = measure_tiny(decode, "--only", ",".join(decode.NAMES))
    screen = capsys.readouterr().out
    if why_missing():
        assert why_missing() in screen
    assert all(row.keys() >= COLUMNS for row in figures["decoders"])
    same = [row["same hypotheses"] for row in figures["decoders"] if row["contestant"].startswith("textbook")]
    assert same == ["16 of 16"] * 2


def test_decode_measures_a_checkpoint_on_a_partition(
    measure_tiny, make_las, small_settings, toy_root, tmp_path, capsys
):
    checkpoint = {
        "model": make_las(scale=2.5).state_dict(),
        "model_settings": small_settings,
        "features": {"dim": 12, "time_first": True, "normalize": "mean_variance"},
        "vocabulary": list(KAGGLE.tokens),
        "epoch": 1,
    }
    path = tmp_path / "best.pt"
    save_checkpoint(path, checkpoint)
    split = ["--checkpoint", str(path), "--data", str(toy_root), "--split", "dev"]
    figures = measure_tiny(decode, *split, "--beam", "2")
    names = ["project", "project-ctc", "textbook", "textbook-ctc"]  # SpeechBrain has no such model
    assert [row["contestant"] for row in figures["decoders"]] == names
    assert [row.get("same best") for row in figures["decoders"][2:]] == ["2 of 2"] * 2
    with pytest.raises(SystemExit):
        measure_tiny(decode, *split, "--only", "speechbrain")
    assert "--only: found speechbrain, expected some of project, project-ctc" in capsys.readouterr().err
