"""What a checkpoint has to hold: what is good passes, and each way to be wrong is one message."""

import copy

import pytest
import torch

from utils.checkpoint_content import LanguageModelContent, ModelContent, RunContent, check_content, check_optimizer
from utils.errors import UserError

SETTINGS = {
    "listener": {"conv": [{}], "blstm_layers": 2, "pblstm_layers": 0},
    "attention": {"kind": "dot"},
    "speller": {"layers": 1},
}


def model(**changed) -> dict:
    good = {
        "model": {"weight": torch.ones(2)},
        "model_settings": SETTINGS,
        "features": {"dim": 12, "time_first": True, "normalize": "mean"},
        "vocabulary": ["A"],
        "epoch": 0,
    }
    return good | changed


def layers(section: str, **changed) -> dict:
    return {"model_settings": {**SETTINGS, section: {**SETTINGS[section], **changed}}}


def features(**changed) -> dict:
    return {"features": {**model()["features"], **changed}}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"more": "than is known"},
        {"model": {"half": torch.ones(2).half()}},
        features(dim=1),
        features(dim=8192, normalize="none"),
        layers("listener", blstm_layers=32, pblstm_layers=32, conv=[{}] * 32),
        layers("listener", blstm_layers=0, conv=[]),
        layers("speller", layers=32),
    ],
)
def test_good_ones_pass(changed):
    check_content("a.pt", model(**changed), ModelContent, "a model")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"epoch": -1}, "epoch: found -1, expected greater than or equal to 0"),
        ({"epoch": "1"}, "epoch: found '1', expected"),
        (features(dim=0), r"features\.dim: found 0, expected greater than or equal to 1"),
        (features(dim=8193), r"features\.dim: found 8193, expected less than or equal to 8192"),
        (features(time_first=1), r"features\.time_first: found 1"),
        (features(normalize="max"), r"features\.normalize: found 'max'"),
        (features(colour=1), r"unknown key features\.colour"),
        ({"model": {"w": torch.ones(2, dtype=torch.int64)}}, "a dense tensor of floats, not strided of int64"),
        ({"model": {"w": torch.ones(2).to_sparse()}}, "a dense tensor of floats, not sparse_coo of float32"),
        ({"model": {"w": torch.ones(2, dtype=torch.complex64)}}, "not strided of complex64"),
        ({"model": {"w": 1.0}}, r"model\.w: found 1\.0"),
        *((layers("listener", **{key: 33}), "at most 32 layers") for key in ("blstm_layers", "pblstm_layers")),
        *((layers("listener", **{key: -1}), "at most 32 layers") for key in ("blstm_layers", "pblstm_layers")),
        (layers("listener", conv=[{}] * 33), "at most 32 layers"),
        (layers("listener", conv=3), "at most 32 layers"),
        (layers("speller", layers=33), "at most 32 layers"),
        (layers("speller", layers=1.0), "at most 32 layers"),
        *(({"model_settings": {**SETTINGS, name: 3}}, f"a mapping {name}") for name in SETTINGS),
    ],
)
def test_what_is_wrong_is_said(changed, words):
    with pytest.raises(UserError, match=rf"^a\.pt: .*{words}.*, as in a model$"):
        check_content("a.pt", model(**changed), ModelContent, "a model")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (3, r"found something else \(a int\), expected a model$"),
        ([1], r"found something else \(a list\), expected a model$"),
        ({}, r"found something else \(\), expected a model$"),
        ({str(index): 0 for index in range(9)}, r"\('0', '1', '2', '3', '4', '5', '6', '7'\), expected a model$"),
        ({"epoch": 1, "vocabulary": []}, r"\('epoch', 'vocabulary'\), .*; missing: model, model_settings, features$"),
    ],
)
def test_what_is_something_else_is_told_by_its_keys(found, words):
    with pytest.raises(UserError, match=rf"^a\.pt: .*{words}"):
        check_content("a.pt", found, ModelContent, "a model")


def test_what_is_missing_deep_inside_is_not_said_to_be_something_else():
    with pytest.raises(UserError, match=r"a\.pt: features\.dim is missing"):
        check_content("a.pt", model(features={"time_first": True, "normalize": "mean"}), ModelContent, "a model")


def test_a_run_may_lack_what_older_ones_lack():
    optimizer = {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"params": [0]}]}
    run = model(
        history=[{"epoch": 1, "dev_distance": 2.5}], config={}, wandb_run_id=None, weights={}, averaged_steps=0
    ) | {"optimizer": optimizer}
    check_content("a.pt", run, RunContent, "a run")
    partial = {"batch": 0, "totals": torch.zeros(4), "characters": 0, "seconds": 1.5}
    data = {"names": "a b", "digests": torch.zeros(2)}
    whole = run | {"partial": partial, "data": data, "environment": {"torch": "2"}}
    check_content("a.pt", whole, RunContent, "a run")
    for key, value in (("partial", {**partial, "batch": -1}), ("data", {}), ("averaged_steps", -1), ("history", [1])):
        with pytest.raises(UserError, match=rf"a\.pt: {key}"):
            check_content("a.pt", whole | {key: value}, RunContent, "a run")


def test_a_language_model_is_of_floats_and_of_places():
    good = {"log_probs": torch.zeros(1, 3), "following": torch.zeros(1, 3, dtype=torch.int32), "vocabulary": ["A"]}
    check_content("lm.pt", good, LanguageModelContent, "a language model")
    with pytest.raises(UserError, match=r"lm\.pt: log_probs: .*a dense tensor of floats"):
        check_content("lm.pt", good | {"log_probs": good["following"]}, LanguageModelContent, "a language model")


@pytest.fixture
def parameters():
    return [torch.ones(2, 3), torch.ones(3)]


@pytest.fixture
def state(parameters):
    optimizer = torch.optim.AdamW([{"params": parameters[:1]}, {"params": parameters[1:]}])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return copy.deepcopy(optimizer.state_dict())


def test_an_optimizer_of_these_parameters_passes(state, parameters):
    check_optimizer("a.pt", state, parameters)
    del state["state"][0]  # it never had a gradient
    check_optimizer("a.pt", state, parameters)


@pytest.mark.parametrize(
    ("index", "name", "value", "words"),
    [
        (0, "exp_avg", torch.ones(3, 2), r"found exp_avg of shape \(3, 2\) for parameter 0, expected \(2, 3\)"),
        (1, "exp_avg_sq", torch.ones(()), r"found exp_avg_sq of shape \(\) for parameter 1, expected \(3,\)"),
        (1, "step", torch.ones(1), r"found step of shape \(1,\) for parameter 1, expected \(\)"),
        (2, "exp_avg", torch.ones(3), r"found exp_avg of shape \(3,\) for parameter 2, expected None"),
        (0, "step", 3, r"found step of a int, expected a tensor"),
        (0, "exp_avg", torch.full((2, 3), float("nan")), r"found exp_avg that is not finite"),
        (1, "exp_avg", torch.tensor([0.0, float("inf"), 0.0]), r"found exp_avg that is not finite"),
        (1, "exp_avg", torch.ones(3, dtype=torch.int64), r"exp_avg: expected a dense tensor of floats"),
    ],
)
def test_an_optimizer_of_others_is_refused(index, name, value, words, state, parameters):
    state["state"].setdefault(index, {})[name] = value
    with pytest.raises(UserError, match=rf"^a\.pt: optimizer: {words}"):
        check_optimizer("a.pt", state, parameters)


@pytest.mark.parametrize(("groups", "count"), [([{"params": [0]}], 1), ([{"params": [0, 1, 2]}], 3), ([{}], -1)])
def test_parameters_are_counted(groups, count, state, parameters):
    with pytest.raises(UserError, match=rf"^a\.pt: optimizer: found {count} parameters, expected 2, as the model has"):
        check_optimizer("a.pt", {**state, "param_groups": groups}, parameters)
