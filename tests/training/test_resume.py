"""Where a run stands, its checkpoints, and what it can go on from."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from training import resume
from training.resume import (
    Checkpointer,
    TrainState,
    check_data_root,
    check_same_data,
    check_same_run,
    describe_changes,
    load_last,
    start_from,
    vocabulary_to_train,
)
from training.step import TrainStep
from utils.checkpoint import describe_model, load_checkpoint, previous, save_checkpoint
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.features import FeatureConfig, FeatureFormat
from utils.vocabulary import KAGGLE, SPECIAL, TextForm, Vocabulary, describe_vocabulary

PARTIAL = {"batch": 4, "totals": torch.tensor([1.0, 2.0, 3.0, 4.0]), "characters": 99, "seconds": 1.5}
WHOLE = {  # what a run's checkpoint has beside the model
    "history": [],
    "wandb_run_id": None,
    "weights": {},
    "averaged_steps": 0,
    "optimizer": {"state": {}, "param_groups": []},
}
FORMAT = FeatureFormat(12, True, "mean")


def row(epoch: int, distance: float = 1.0) -> dict:
    return {"epoch": epoch, "dev_distance": distance}


@pytest.fixture
def make_step(make_las):
    def make(**sections) -> TrainStep:
        options = {"accumulate": 1, "weight_decay": 0.01, "clip_norm": 5.0, "ctc_weight": 0.3, "label_smoothing": 0.1}
        model = make_las(**sections)
        return TrainStep(model, SINGLE_PROCESS, "float32", [], ema_steps=10, ctc_only_warmup=False, **options)

    return make


@pytest.fixture
def constant(small_settings) -> dict:
    """What does not change in the checkpoints of a run."""
    described = describe_model(small_settings, FORMAT, FeatureConfig(n_mfcc=12), 120)
    return {**described, "config": {"training": {"epochs": 3}}}


def checkpointer_of(folder: Path, constant: dict, minutes: float = 10.0) -> Checkpointer:
    folder.mkdir(exist_ok=True)
    return Checkpointer(folder, constant, minutes)


def train(step: TrainStep, seed: int = 0) -> None:
    """Some update of all weights."""
    torch.manual_seed(seed)
    for parameter in step.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    step.optimizer.step()
    step.ema.update(step.model)


# ---------------------------------------------------------------------------------------------------------- TrainState


def test_a_state_knows_the_epoch_that_is_next():
    state = TrainState()
    assert (state.epoch, state.next_batch, str(state)) == (1, 0, "epoch 0")
    state.partial = PARTIAL
    assert (state.epoch, state.next_batch, str(state)) == (1, 4, "epoch 0 and 4 batches")
    state.finish_epoch(row(1, 3.0))
    assert (state.epoch, state.next_batch, str(state)) == (2, 0, "epoch 1")
    state.finish_epoch(row(2, 5.0))
    assert state.best(ctc_epochs=0) == row(1, 3.0)
    assert state.best(ctc_epochs=1) == row(2, 5.0)  # an epoch that trained the Listener alone is not the best


# -------------------------------------------------------------------------------------------------------- Checkpointer


def test_what_was_saved_is_restored(make_step, constant, tmp_path):
    step, checkpointer = make_step(), checkpointer_of(tmp_path, constant)
    assert checkpointer.restore(load_last(tmp_path), step) == TrainState()
    for _ in range(2):
        train(step)
    state = TrainState([row(1)], PARTIAL, "abc123")
    checkpointer.save(step, state, is_best=False)
    assert not (tmp_path / "best.pt").exists()

    other = make_step()
    found = checkpointer_of(tmp_path, constant).restore(load_last(tmp_path), other)
    assert (found.history, found.wandb_run_id) == (state.history, "abc123")
    assert found.partial.keys() == PARTIAL.keys()
    for each in (step, other):
        train(each, seed=1)
    for one, expected in ((other.model, step.model), (other.ema_model, step.ema_model)):
        for name, weights in expected.state_dict().items():
            assert torch.equal(one.state_dict()[name], weights), name


def test_the_best_checkpoint_is_a_model_alone(make_step, constant, tmp_path):
    """Of the averaged weights, without what only training needs; it is kept until there is a better one."""
    step, checkpointer, state = make_step(), checkpointer_of(tmp_path, constant), TrainState([row(1, 3.0)])
    train(step)
    checkpointer.save(step, state, is_best=True)
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["epoch"] == 1
    assert best.keys().isdisjoint({"weights", "optimizer", "averaged_steps", "partial"})
    for name, weights in step.ema_model.state_dict().items():
        assert torch.equal(best["model"][name], weights)
    content = (tmp_path / "best.pt").read_bytes()
    train(step)
    state.finish_epoch(row(2, 4.0))
    checkpointer.save(step, state, is_best=False)
    assert (tmp_path / "best.pt").read_bytes() == content
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 2
    assert load_checkpoint(previous(tmp_path / "last.pt"))["epoch"] == 1


def test_a_checkpoint_is_due_some_minutes_after_the_one_before(make_step, constant, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(resume, "time", clock)
    checkpointer = checkpointer_of(tmp_path, constant, minutes=10)
    due = []
    for clock.now in (1, 599, 601):
        due.append(checkpointer.due)
    checkpointer.save(make_step(), TrainState(), is_best=False)
    for clock.now in (601, 1200, 1202):
        due.append(checkpointer.due)
    assert due == [False, False, True] * 2


def test_a_checkpoint_of_other_features_or_of_another_model_is_not_restored(make_step, constant, tmp_path):
    checkpointer_of(tmp_path, constant).save(make_step(), TrainState([row(1)]), is_best=False)
    found = load_last(tmp_path)
    other = {**constant, "features": vars(FeatureFormat(15, False, "mean"))}
    message = "data.root: found features of dim 15, expected 12, time_first False, expected True, as "
    with pytest.raises(UserError, match=re.escape(f"{message}{tmp_path} was trained on")):
        checkpointer_of(tmp_path, other).restore(found, make_step(feature_dim=15))
    step = make_step(speller={"hidden": 48})
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    with pytest.raises(UserError, match=r"last\.pt: its model is another one than these settings make: speller\."):
        checkpointer_of(tmp_path, constant).restore(found, step)
    assert all(torch.equal(value, before[name]) for name, value in step.model.state_dict().items())


# ----------------------------------------------------------------------------------------------------------- load_last


@pytest.fixture
def checkpoint(make_las, constant):
    return {"model": make_las().state_dict(), **constant, "epoch": 1}


def test_a_damaged_checkpoint_gives_way_to_the_one_before(checkpoint, tmp_path, caplog):
    """One bit in the weights is enough: torch.load alone would not notice."""
    last = tmp_path / "last.pt"
    checkpoint = WHOLE | checkpoint
    assert load_last(tmp_path) is None
    for epoch in (1, 2, 3):
        save_checkpoint(last, {**checkpoint, "epoch": epoch}, keep_previous=True)
    assert load_last(tmp_path)["epoch"] == 3
    assert caplog.messages == []
    content = bytearray(last.read_bytes())
    weights = checkpoint["model"]["listener.layers.0.conv.weight"].numpy().tobytes()
    content[content.index(weights[:64]) + 5] ^= 1
    last.write_bytes(content)
    assert load_last(tmp_path)["epoch"] == 2
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert "last.pt: cannot be read as a checkpoint (the checksum of" in warning.getMessage()
    assert "last.previous.pt: 2 epochs are kept, what came after is lost" in warning.getMessage()
    last.write_bytes(content[:1000])
    assert load_last(tmp_path)["epoch"] == 2
    last.unlink()  # killed between the two renamings
    assert load_last(tmp_path)["epoch"] == 2
    previous(last).unlink()
    last.write_bytes(content)
    with pytest.raises(UserError, match="the checksum of"):
        load_last(tmp_path)


def test_the_checkpoint_before_may_be_within_an_epoch(checkpoint, tmp_path, caplog):
    last = tmp_path / "last.pt"
    save_checkpoint(last, WHOLE | checkpoint | {"partial": PARTIAL})
    save_checkpoint(last, WHOLE | checkpoint, keep_previous=True)
    last.write_bytes(b"")
    assert load_last(tmp_path)["partial"]["batch"] == 4
    assert "last.previous.pt: 1 epoch and 4 batches are kept" in caplog.text


def test_both_checkpoints_damaged(checkpoint, tmp_path):
    for path in (tmp_path / "last.pt", previous(tmp_path / "last.pt")):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"/last\.pt: cannot be read (.|\n)*last\.previous\.pt: cannot be read"):
        load_last(tmp_path)


def test_a_model_alone_is_not_gone_on_from(checkpoint, tmp_path):
    del checkpoint["config"]
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    with pytest.raises(UserError, match=r"last\.pt: found a checkpoint without history, .*training\.start_from"):
        load_last(tmp_path)


# ------------------------------------------------------------------------------------------------------- check_same_run

OLD = {
    "training.batch_size": 8,
    "training.learning_rate": 0.1,
    "training.epochs": 3,
    "data.workers": 2,
    "wandb.mode": 1,
}


def test_the_same_settings_say_nothing_and_those_that_are_new_are_logged(caplog):
    check_same_run(Path("runs/a"), OLD, OLD)
    check_same_run(Path("runs/a"), {**OLD, "training.gone": 1}, OLD)
    assert caplog.messages == []
    check_same_run(Path("runs/a"), OLD, {**OLD, "training.new": 1})
    assert caplog.messages == ["settings that did not exist then: training.new 1"]


def test_another_dev_partition_makes_another_run():
    """The best epoch is chosen by distances that have to be of the same utterances."""
    with pytest.raises(UserError, match=r"data\.dev: was 'dev', is now 'test'"):
        check_same_run(Path("runs/a"), {"data.dev": "dev"}, {"data.dev": "test"})


def test_settings_that_may_change_are_logged(caplog):
    check_same_run(Path("runs/a"), OLD, {**OLD, "training.epochs": 5, "data.workers": 0})
    assert caplog.messages == ["changed since: training.epochs 3 -> 5, data.workers 2 -> 0"]


def test_settings_that_make_another_run_are_refused_all_at_once(caplog):
    new = {**OLD, "training.epochs": 5, "training.batch_size": 9, "training.learning_rate": 0.2}
    with pytest.raises(UserError) as refused:
        check_same_run(Path("runs/a"), OLD, new)
    assert str(refused.value) == (
        "runs/a was trained with other settings:\n"
        "  training.batch_size: was 8, is now 9\n"
        "  training.learning_rate: was 0.1, is now 0.2\n"
        "Choose another run.name, or remove runs/a to start over."
    )
    assert caplog.messages == []


# ------------------------------------------------------------------------------------------ start_from, check_data_root


def test_a_new_run_starts_from_the_parts_of_a_model_that_fit(checkpoint, make_las, tmp_path, caplog):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    model = make_las(seed=1, speller={"hidden": 48})
    speller = model.speller.output_bias.clone()
    start_from(str(tmp_path / "a.pt"), model)
    assert torch.equal(model.ctc.weight, checkpoint["model"]["ctc.weight"])
    assert torch.equal(model.speller.output_bias, speller)
    assert caplog.messages == [f"starting from {tmp_path / 'a.pt'}: listener, ctc; new: speller"]


def test_of_a_model_with_another_vocabulary_the_listener_alone_fits(checkpoint, make_las, tmp_path, caplog):
    """Also where it has as many tokens: they mean other characters."""
    other = Vocabulary((*SPECIAL, *map(chr, range(0xAC00, 0xAC00 + 28))))
    save_checkpoint(tmp_path / "a.pt", {**checkpoint, **describe_vocabulary(other)})
    model = make_las(seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(str(tmp_path / "a.pt"), model)
    for name, value in model.state_dict().items():
        taken = torch.equal(value, checkpoint["model"][name])
        assert taken if name.startswith("listener.") else torch.equal(value, before[name]), name
    assert f"{tmp_path / 'a.pt'}: listener; new: speller, ctc" in caplog.text
    assert "its vocabulary is another, 31 tokens ('갛', " in caplog.text
    assert "here Kaggle's 31 tokens (A-Z, ', space): of it, the Listener alone fits" in caplog.text
    with pytest.raises(UserError, match=r"(?s)speller: found a vocabulary of 31 tokens .*, expected Kaggle's"):
        start_from(str(tmp_path / "a.pt"), make_las(feature_dim=15))


def test_a_resumed_run_keeps_its_vocabulary(tmp_path):
    korean, form = Vocabulary((*SPECIAL, *"가나다")), TextForm()
    found = describe_vocabulary(korean)
    assert vocabulary_to_train(form, None, tmp_path) == form
    assert vocabulary_to_train(form, found, tmp_path) == korean
    assert vocabulary_to_train(korean, found, tmp_path) == korean
    with pytest.raises(UserError, match=r"data\.vocabulary: found Kaggle's .*, expected 6 tokens \('다', .* run\.name"):
        vocabulary_to_train(KAGGLE, found, tmp_path)


def test_a_start_from_a_model_of_no_common_part_says_what_differs(checkpoint, make_las, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    other = make_las(feature_dim=15, listener={"hidden": 16}, speller={"hidden": 32})
    with pytest.raises(UserError, match=r"(?s)sizes.*\n  listener: .*found \(32, 12, 3\), expected \(32, 15, 3\)"):
        start_from(str(tmp_path / "a.pt"), other)


def test_data_that_is_not_where_it_was_trained_on(tmp_path):
    check_data_root(tmp_path, "nowhere")  # nothing is known: the loader complains
    (tmp_path / "config.yaml").write_text("data: {root: data/an4}")
    with pytest.raises(UserError, match=r"found no folder nowhere; .* was trained with data\.root=data/an4: repeat"):
        check_data_root(tmp_path, "nowhere")
    check_data_root(tmp_path, str(tmp_path))
    check_data_root(tmp_path, "data/an4")


# ---------------------------------------------------------------------------------------------------------------- data


def saved_with(data: dict) -> dict:
    return {"data": Checkpointer(Path(), {}, 1.0, data).data, "partial": PARTIAL}


DATA = {f"train/u{number}": number for number in range(6)}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({**DATA, "train/new": 9}, r"of 6 utterances 1 added \(train/new\)\. Put the data back"),
        ({name: DATA[name] for name in list(DATA)[4:]}, r"4 removed \(train/u0, train/u1, train/u2, \.\.\.\)"),
        ({**DATA, "train/u3": 7}, r"1 changed \(train/u3\)"),
        (dict(reversed(DATA.items())), "another order"),
    ],
)
def test_other_data_than_before_is_refused_by_name_or_accepted(now, words, caplog):
    found = saved_with(DATA)
    with pytest.raises(UserError, match=rf"runs/a was trained on other data: .*{words}.*") as refused:
        check_same_data(Path("runs/a"), found, now, accept=False)
    assert "data.accept_changes=true" in str(refused.value)
    check_same_data(Path("runs/a"), found, now, accept=True)
    assert found["partial"] is None  # its batches were others
    assert "going on with other data than before" in caplog.text


def test_the_same_data_is_no_word_and_an_old_checkpoint_says_that_it_cannot_tell(caplog):
    found = saved_with(DATA)
    check_same_data(Path("runs/a"), found, dict(DATA), accept=False)
    assert found["partial"] is PARTIAL
    assert not caplog.messages
    check_same_data(Path("runs/a"), {}, DATA, accept=False)
    assert "does not tell what it was trained on" in caplog.text


def test_another_environment_is_told():
    before = {"torch": "2.8.0", "device": "Tesla T4", "commit": "abc"}
    assert describe_changes(before, {**before, "torch": "2.11.0", "python": "3.13"}) == "torch 2.8.0 -> 2.11.0"
    assert describe_changes(before, before) == describe_changes({}, before) == ""


# ----------------------------------------------------------------------------------------------- malformed checkpoints


def spoil(found: dict, key: str, value) -> None:
    """Sets `found[a][b]` for the key a.b; * is any one entry."""
    *way, last = key.split(".")
    for name in way:
        found = found[next(iter(found)) if name == "*" else int(name) if name.isdigit() else name]
    found[next(iter(found)) if last == "*" else last] = value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("history", [1, 2], r"history\.0: found 1, expected .*dictionary"),
        ("history", [{"epoch": "one"}], r"history\.0\.epoch"),
        ("config", "settings", r"config: found 'settings', expected"),
        ("partial", {"batch": -1}, r"missing|partial"),
        ("averaged_steps", -1, "averaged_steps: found -1"),
        ("averaged_steps", "many", "averaged_steps: found 'many'"),
        ("epoch", 1.5, "epoch: found 1.5"),
        (
            "weights.*",
            torch.zeros(3, dtype=torch.complex64),
            "expected a dense tensor of floats, not strided of complex64",
        ),
        ("model.*", torch.zeros(3).to_sparse(), "expected a dense tensor of floats, not sparse_coo of float32"),
        ("model.*", "text", "model"),
        ("model_settings", {"listener": 1}, "a mapping listener"),
        ("model_settings.listener.blstm_layers", 3_000_000, "at most 32 layers"),
        ("model_settings.speller.layers", "two", "at most 32 layers"),
        ("features.dim", "twelve", r"features\.dim: found 'twelve'"),
        ("features.normalize", "median", r"features\.normalize"),
        ("vocabulary", [1, 2], r"vocabulary\.0"),
        ("optimizer", {}, "optimizer"),
        ("optimizer.state.0.exp_avg", torch.zeros(7), r"found exp_avg of shape \(7,\) for parameter 0, expected \("),
        ("optimizer.state.0.exp_avg_sq", 3, "expected a tensor"),
        ("optimizer.state.0.step", torch.tensor(float("nan")), "found step that is not finite"),
        ("optimizer.param_groups", [], "found 0 parameters, expected"),
        ("data", {"names": 1, "digests": torch.zeros(1)}, r"data\.names"),
        ("environment", {"torch": 2}, r"environment\.torch"),
    ],
)
def test_a_malformed_checkpoint_is_one_message(make_step, constant, tmp_path, key, value, words):
    step, checkpointer = make_step(), checkpointer_of(tmp_path, constant)
    train(step)
    checkpointer.save(step, TrainState([row(1)]), is_best=False)
    previous(tmp_path / "last.pt").unlink(missing_ok=True)
    found = torch.load(tmp_path / "last.pt", weights_only=True)
    spoil(found, key, value)
    torch.save(found, tmp_path / "last.pt")
    with pytest.raises(UserError, match=rf"last\.pt: .*(?:{words})"):
        checkpointer.restore(load_last(tmp_path), make_step())
