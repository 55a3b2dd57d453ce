"""Checkpoint files: whole, without code, and what their models are."""

import pickle

import pytest
import torch

from utils.checkpoint import (
    check_finite,
    describe_model,
    differences,
    load_checkpoint,
    load_models,
    model_from,
    previous,
    save_checkpoint,
)
from utils.errors import UserError
from utils.features import FeatureConfig, FeatureFormat
from utils.vocabulary import KAGGLE


@pytest.fixture
def checkpoint(make_las, small_settings):
    return {
        "model": make_las().state_dict(),
        "model_settings": small_settings,
        "features": {"dim": 12, "time_first": True, "normalize": "mean"},
        "vocabulary": list(KAGGLE.tokens),
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
    with pytest.raises(UserError, match=r"x\.pt: found more than tensors and plain values, which is not read"):
        load_checkpoint(path)
    assert "this ran" not in capsys.readouterr().out
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match=r"found something else \('model'\), .* missing: model_settings, features, "):
        load_checkpoint(path)
    torch.save({**checkpoint, "vocabulary": ["<pad>", "a"]}, path)
    with pytest.raises(UserError, match=r"a model of 2 tokens \('<pad>', 'a'\), expected <pad>, <sos>, <eos> and then"):
        load_checkpoint(path)
    torch.save({**checkpoint, "vocabulary": [*KAGGLE.tokens, "A"]}, path)
    with pytest.raises(UserError, match="a vocabulary with tokens twice"):
        load_checkpoint(path)
    torch.save({**checkpoint, "text_form": {"units": "letters"}}, path)
    with pytest.raises(UserError, match=r"text_form: found \{'units': 'letters'\}"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_their_settings(checkpoint):
    checkpoint["model_settings"]["speller"]["hidden"] = 65
    with pytest.raises(UserError, match=r"do not fit .* found \(256, \d+\), expected \(260, \d+\).*; and \d+ more"):
        model_from(checkpoint)


def test_models_of_other_vocabularies_are_no_ensemble(checkpoint, tmp_path):
    turned = [*KAGGLE.tokens[:3], *reversed(KAGGLE.characters)]
    others = {"order": {"vocabulary": turned}, "form": {"text_form": {"case": "upper"}}}
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    for name, differs in others.items():
        save_checkpoint(tmp_path / f"{name}.pt", {**checkpoint, **differs})
        assert len(load_models([tmp_path / f"{name}.pt"]).vocabulary) == 31
    with pytest.raises(
        UserError, match=r"order\.pt: found a vocabulary of 31 tokens \('A', .*, expected Kaggle's 31 tok"
    ):
        load_models([tmp_path / "a.pt", tmp_path / "order.pt"])
    with pytest.raises(UserError, match=r"form\.pt: found texts of .*case='upper'.*, expected .*case='keep'"):
        load_models([tmp_path / "a.pt", tmp_path / "form.pt"])


def test_models_of_other_features_are_no_ensemble(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    save_checkpoint(tmp_path / "b.pt", {**checkpoint, "features": {**checkpoint["features"], "dim": 15}})
    with pytest.raises(UserError, match=r"b\.pt: found features of dim 15, expected 12, as in .*a\.pt"):
        load_models([tmp_path / "a.pt", tmp_path / "b.pt"])


def test_the_checkpoint_before_is_kept_where_that_is_asked_for(checkpoint, tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint, keep_previous=True)
    assert not previous(path).exists()
    save_checkpoint(path, {**checkpoint, "epoch": 2}, keep_previous=True)
    save_checkpoint(path, {**checkpoint, "epoch": 3}, keep_previous=True)
    assert [load_checkpoint(one)["epoch"] for one in (path, previous(path))] == [3, 2]
    save_checkpoint(path, {**checkpoint, "epoch": 4})
    assert [load_checkpoint(one)["epoch"] for one in (path, previous(path))] == [4, 2]
    assert previous(path).name == "last.previous.pt"


def test_a_damaged_checkpoint_does_not_push_out_the_good_one_before_it(checkpoint, tmp_path):
    path = tmp_path / "last.pt"
    for epoch in (1, 2):
        save_checkpoint(path, {**checkpoint, "epoch": epoch}, keep_previous=True)
    path.write_bytes(path.read_bytes()[:1000])
    save_checkpoint(path, {**checkpoint, "epoch": 3}, keep_previous=True)
    assert [load_checkpoint(one)["epoch"] for one in (path, previous(path))] == [3, 1]


def test_a_flipped_byte_is_found_by_its_checksum(checkpoint, tmp_path):
    """torch.load would not notice it in the weights."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    content = bytearray(path.read_bytes())
    weights = checkpoint["model"]["speller.output.weight"].numpy().tobytes()
    content[bytes(content).index(weights) + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt: cannot be read as a checkpoint \(the checksum of .* is wrong\)"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_no_model(checkpoint, tmp_path, value):
    names = sorted(name for name, weight in checkpoint["model"].items() if weight.numel() > 1)[:5]
    for name in names:
        checkpoint["model"][name].view(-1)[-1] = value
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    with pytest.raises(UserError, match=r"a\.pt: found weights that are not finite \(.*, .*, .* and 2 more\)"):
        load_models([tmp_path / "a.pt"])
    check_finite("a", {"step": 3, "weight": torch.ones(2)})


def test_an_ensemble_is_what_its_checkpoints_say(checkpoint, small_settings, tmp_path, caplog):
    """The shortest of the usual lengths; a feature configuration if all of them have one."""
    features, mel = FeatureFormat(12, True, "mean"), FeatureConfig(n_mels=12)
    paths = [tmp_path / f"{name}.pt" for name in "ab"]
    for path, frames in zip(paths, (900, 700), strict=True):
        described = describe_model(small_settings, features, mel, frames)
        save_checkpoint(path, {"model": checkpoint["model"], "epoch": 7, **described})
    loaded = load_models(paths)
    assert len(loaded.models) == 2
    assert loaded[1:] == (features, mel, 700, KAGGLE)
    assert caplog.messages == [f"decoding with {path}, epoch 7" for path in paths]
    save_checkpoint(paths[0], checkpoint)  # from before there were feature configurations
    assert load_models(paths)[1:] == (features, None, 700, KAGGLE)


def test_runs_that_have_a_checkpoint_are_told(checkpoint, tmp_path):
    for number in range(12):
        (tmp_path / f"run{number:02d}").mkdir()
        (tmp_path / f"run{number:02d}" / "best.pt").touch()
    names = ", ".join(f"run{number:02d}" for number in range(10))
    with pytest.raises(UserError, match=rf"runs that have one: {names} \(run\.name=\.\.\.\)"):
        load_checkpoint(tmp_path / "mine" / "best.pt")
    with pytest.raises(UserError, match="train first"):
        load_checkpoint(tmp_path / "mine" / "last.pt")


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, ""), (4, " and 1 more")])
def test_up_to_three_weights_are_named(count, more):
    weights = {f"w{index}": torch.tensor([float("nan")]) for index in range(count)} | {"good": torch.ones(1)}
    names = ", ".join(f"w{index}" for index in range(min(count, 3)))
    with pytest.raises(UserError, match=rf"a: found weights that are not finite \({names}{more}\); expected"):
        check_finite("a", weights)


def test_differences_are_of_shapes_of_what_is_missing_and_of_what_is_unknown():
    expected = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    found = {"a": torch.ones(2), "b": torch.ones(3, 1), "d": torch.ones(())}
    lines = ["b: found (3, 1), expected (3,)", "c: found none, expected (1,)", "d: found (), expected none"]
    assert differences(found, expected) == "; ".join(lines)
    assert differences(found, expected | {"e": torch.ones(1)}).endswith("; and 1 more")
    assert differences(expected, expected) == ""


@pytest.mark.parametrize(("frames", "expected"), [((0, 700), 700), ((None, 1), 1), ((-3, 0), None), ((2.5, "9"), None)])
def test_lengths_that_say_nothing_are_left_out(frames, expected, checkpoint, tmp_path):
    paths = [tmp_path / f"{name}.pt" for name in "ab"]
    for path, length in zip(paths, frames, strict=True):
        save_checkpoint(path, {**checkpoint, "p95_frames": length})
    assert load_models(paths).p95_frames == expected
