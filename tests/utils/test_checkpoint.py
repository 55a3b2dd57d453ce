import pickle

import pytest
import torch

from utils.checkpoint import load_checkpoint, load_models, model_from, save_checkpoint
from utils.errors import UserError
from utils.vocabulary import VOCABULARY


@pytest.fixture
def checkpoint(make_las, small_settings):
    return {
        "model": make_las().state_dict(),
        "model_settings": small_settings,
        "features": {"dim": 12, "time_first": True, "normalize": "mean"},
        "vocabulary": list(VOCABULARY),
        "epoch": 1,
    }


def test_a_checkpoint_alone_rebuilds_its_model(checkpoint, make_las, speech, tmp_path):
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    model = model_from(load_checkpoint(tmp_path / "best.pt")).eval()
    expected = make_las().listen(*speech)
    found = model.listen(*speech)
    assert torch.equal(found.ctc_log_probs, expected.ctc_log_probs)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_failed_save_leaves_the_old_checkpoint(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)

    def fail(checkpoint, file):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {**checkpoint, "epoch": 2})
    assert load_checkpoint(path)["epoch"] == 1


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def test_what_is_not_a_checkpoint_is_refused(checkpoint, tmp_path, capsys):
    path = tmp_path / "x.pt"
    with pytest.raises(UserError, match=r"x\.pt: found no checkpoint; train first: python train\.py"):
        load_checkpoint(path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    save_checkpoint(tmp_path / "runs" / "demo" / "best.pt", checkpoint)
    with pytest.raises(UserError, match=r"found no checkpoint; runs that have one: demo \(run\.name=\.\.\.\)"):
        load_checkpoint(tmp_path / "runs" / "las" / "best.pt")
    save_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], pickle.dumps(Evil())):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.pt: cannot be read as a checkpoint"):
            load_checkpoint(path)
    torch.save({"weights": Evil()}, path)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)
    assert "this ran" not in capsys.readouterr().out
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match=r"found something else \('model'\), .* missing .*: model_settings, features, "):
        load_checkpoint(path)
    torch.save({**checkpoint, "vocabulary": ["<pad>", "a"]}, path)
    with pytest.raises(UserError, match=r"a model of 2 tokens, expected .* 31: token 1 is 'a', here '<sos>'"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_their_settings(checkpoint):
    checkpoint["model_settings"]["speller"]["hidden"] = 65
    with pytest.raises(UserError, match=r"do not fit .* found \(256, \d+\), expected \(260, \d+\).*; and \d+ more"):
        model_from(checkpoint)


def test_models_of_other_features_are_no_ensemble(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    save_checkpoint(tmp_path / "b.pt", {**checkpoint, "features": {**checkpoint["features"], "dim": 15}})
    with pytest.raises(UserError, match=r"b\.pt: found features of dim 15, expected 12, as in .*a\.pt"):
        load_models([tmp_path / "a.pt", tmp_path / "b.pt"])
