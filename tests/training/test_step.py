"""TrainStep on a small model without dropout, and the average of its weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dataset import Batch, Utterance, collate
from models.las import las_loss, off_alignment, off_diagonal
from training.step import ExponentialMovingAverage, TrainStep
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.vocabulary import KAGGLE

TEXTS = ["ABE", "BAD CAB", "DEAD", "A", "CAB"]


@pytest.fixture
def batch() -> Batch:
    """Five utterances, which three micro-batches cannot share evenly."""
    torch.manual_seed(1)
    return collate(
        [
            Utterance(index, torch.randn(40 + 7 * index, 12), torch.tensor(KAGGLE.encode(text)))
            for index, text in enumerate(TEXTS)
        ]
    )


@pytest.fixture
def make_step(make_las):
    """A step over a model that always begins with the same weights."""

    def make(**settings) -> TrainStep:
        settings = {
            "accumulate": 1,
            "weight_decay": 0.01,
            "clip_norm": 5.0,
            "ctc_weight": 0.3,
            "label_smoothing": 0.1,
            "ema_steps": 10,
            "ctc_only_warmup": False,
        } | settings
        utterances = [Path(f"train/mfcc/u{index}.npy") for index in range(len(TEXTS))]
        return TrainStep(make_las(), SINGLE_PROCESS, "float32", utterances, **settings)

    return make


def take(step: TrainStep, batch: Batch, **changed):
    schedule = {"learning_rate": 1e-2, "teacher_forcing_rate": 1.0, "guided_attention": 0.5, "train_speller": True}
    return step(batch, characters=batch.characters, **(schedule | changed))


def weights_of(module: nn.Module) -> dict:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_step_returns_the_losses_and_updates_all_weights(make_step, batch):
    step = make_step()
    before = weights_of(step.model)
    with torch.no_grad():
        logits, _, encoded = step.model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
        expected = las_loss(logits, encoded, batch.tokens, batch.token_lengths, 0.3, 0.1)
    result = take(step, batch)
    torch.testing.assert_close(result.losses, torch.stack(expected))
    assert result.updated
    assert result.gradient_norm > 0
    changed = {name for name, value in step.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in step.model.named_parameters()}
    assert step.optimizer.param_groups[0]["lr"] == 1e-2
    losses = [float(take(step, batch).losses[0]) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_gradient_is_of_the_loss_with_guided_attention(make_step, batch):
    """Before clipping, as is the norm that is returned."""
    step = make_step(clip_norm=1e9)
    result = take(step, batch)
    model = make_step().model
    logits, attention, encoded = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
    loss = las_loss(logits, encoded, batch.tokens, batch.token_lengths, 0.3, 0.1).total
    loss = loss + 0.5 * off_diagonal(attention, batch.token_lengths - 1, encoded.memory.lengths)
    loss.backward()
    for found, expected in zip(step.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    clipped = take(make_step(clip_norm=1e-3), batch)
    assert clipped.gradient_norm == pytest.approx(float(result.gradient_norm), rel=1e-5)


def test_three_micro_batches_are_one_batch(make_step, batch):
    whole, parts = make_step(), make_step(accumulate=3)
    for _ in range(3):
        expected, found = take(whole, batch), take(parts, batch)
        torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.gradient_norm, expected.gradient_norm, rtol=1e-3, atol=1e-5)
    for found, expected in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_steps_that_train_the_listener_alone(make_step, batch):
    step = make_step(ctc_only_warmup=True)
    before = weights_of(step.model)
    result = take(step, batch, train_speller=False)
    assert result.losses[0] == result.losses[2] > 0
    assert result.losses[1] == 0
    changed = {name.split(".")[0] for name, value in step.model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"listener", "ctc"}


def test_a_gradient_that_is_not_finite_changes_nothing_and_names_the_utterances(make_step, batch, caplog):
    step = make_step()
    take(step, batch)
    before, average, state = weights_of(step.model), weights_of(step.ema_model), step.state_dict()
    bad = batch._replace(features=batch.features * float("nan"))
    for _ in range(2):
        result = take(step, bad)
        assert not result.updated
        assert not torch.isfinite(result.gradient_norm)
    assert_equal(step.model.state_dict(), before)
    assert_equal(step.ema_model.state_dict(), average)
    assert step.state_dict()["averaged_steps"] == state["averaged_steps"] == 1
    assert caplog.messages == ["skipped a batch whose gradient is not finite: u0, u1, u2, u3, u4"] * 2
    assert take(step, batch).updated  # a good one in between, and counting begins anew
    take(step, bad.rows(slice(1, 3))._replace(followers=torch.tensor([-1, 4])))  # u4 is concatenated to u2
    assert caplog.messages[2:] == ["skipped a batch whose gradient is not finite: u1, u2, u4"]
    assert take(step, batch).updated
    for _ in range(2):
        take(step, bad)
    with pytest.raises(UserError, match=r"3 batches in a row gave no finite gradient; .*training\.learning_rate"):
        take(step, bad)
    assert len(caplog.messages) == 6


class Scaler:
    """A GradScaler of a fixed scale that takes notes."""

    def __init__(self, scale: float, enabled: bool = True):
        self.get_scale, self.is_enabled, self.updates = lambda: scale, lambda: enabled, 0

    def scale(self, loss):
        return loss

    def unscale_(self, optimizer):
        pass

    def step(self, optimizer):
        optimizer.step()

    def update(self):
        self.updates += 1


@pytest.mark.parametrize(
    ("scale", "enabled", "bad_loss", "overflow"),
    [(2.0, True, False, True), (1.0, True, False, False), (2.0, False, False, False), (2.0, True, True, False)],
)
def test_an_overflow_is_no_fault_of_the_batch_while_the_scale_can_come_down(
    scale, enabled, bad_loss, overflow, make_step, batch, caplog
):
    step = make_step()
    step.scaler = Scaler(scale, enabled)
    for parameter in step.model.parameters():
        parameter.register_hook(lambda gradient: gradient * float("inf"))
    if bad_loss:
        batch = batch._replace(features=batch.features * float("nan"))
    for _ in range(2):
        result = take(step, batch)
        assert (result.updated, result.overflow) == (False, overflow)
    assert step.scaler.updates == 2
    assert len(caplog.messages) == (0 if overflow else 2)
    for _ in range(2 if overflow else 0):  # however many there are
        take(step, batch)
    if not overflow:
        with pytest.raises(UserError, match="3 batches in a row"):
            take(step, batch)


@pytest.mark.parametrize("which", ["model", "ema_model"])
def test_weights_that_are_not_finite_end_a_run(which, make_step):
    step = make_step()
    step.check_finite()
    next(getattr(step, which).parameters()).data.view(-1)[0] = float("inf")
    with pytest.raises(UserError, match="the weights are not finite any more"):
        step.check_finite()


def test_no_memory_asks_for_more_micro_batches(make_step, batch, monkeypatch):
    step = make_step(accumulate=2)

    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step.model, "forward", fail)
    with pytest.raises(UserError, match=r"a batch of 5 utterances of up to 68 frames: .*training\.accumulate=4,"):
        take(step, batch)
    monkeypatch.setattr(step.model, "forward", lambda *arguments: batch.features.view(3, 7))
    with pytest.raises(RuntimeError, match="shape"):  # any other error is a bug
        take(step, batch)


def test_a_restored_step_goes_on_as_the_one_that_was_saved(make_step, batch, tmp_path):
    step = make_step()
    for _ in range(3):
        take(step, batch)
    torch.save({"model": step.ema_model.state_dict(), **step.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["averaged_steps"] == 3
    other = make_step()
    other.load_state_dict(state["model"], state)
    for each in (step, other):
        take(each, batch)
    assert_equal(other.model.state_dict(), step.model.state_dict())
    assert_equal(other.ema_model.state_dict(), step.ema_model.state_dict())
    assert not all(torch.equal(a, b) for a, b in zip(step.model.parameters(), step.ema_model.parameters(), strict=True))


# ----------------------------------------------------------------------------------------------------------------- EMA


@pytest.mark.parametrize("horizon", [0, 5, 200])
def test_the_average_equals_the_one_written_out(horizon):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = ExponentialMovingAverage(model, horizon)
    expected = None
    for step in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model)
        now = model.weight.detach().clone()
        share = 1.0 if expected is None else max(1 / max(1, horizon), 9 / (10 + step))
        expected = now if expected is None else expected + share * (now - expected)
    assert torch.allclose(average.model.weight, expected, atol=1e-5)
    if horizon == 0:
        assert torch.equal(average.model.weight, model.weight)


def test_the_average_is_nearer_to_the_centre_than_the_last_weights():
    torch.manual_seed(0)
    model = nn.Linear(50, 50, bias=False)
    average = ExponentialMovingAverage(model, 20)
    for _ in range(200):
        with torch.no_grad():
            model.weight.normal_()
        average.update(model)
    assert average.model.weight.std() < 0.3 * model.weight.std()


def test_the_expected_distance_changes_the_step_and_not_the_reported_losses(make_step, batch):
    plain, minimising = make_step(), make_step()
    one, other = take(plain, batch), take(minimising, batch, minimise_distance=True)
    assert torch.equal(one.losses, other.losses)
    assert one.gradient_norm != other.gradient_norm
    assert minimising.model.training


def test_relative_attention_is_guided_by_ctc(make_las, batch):
    """The same loss, but away from where the CTC branch hears the characters."""
    relative = {"attention": {"kind": "relative"}, "speller": {"input_feeding": False}, "ctc": True}
    settings = {"accumulate": 1, "weight_decay": 0.01, "clip_norm": 1e9, "ctc_weight": 0.3, "label_smoothing": 0.1}
    paths = [Path(f"u{index}.npy") for index in range(len(TEXTS))]
    step = TrainStep(
        make_las(**relative), SINGLE_PROCESS, "float32", paths, **settings, ema_steps=10, ctc_only_warmup=False
    )
    take(step, batch)
    model = make_las(**relative)
    logits, attention, encoded = model(batch.features, batch.feature_lengths, batch.tokens[:, :-1])
    loss = las_loss(logits, encoded, batch.tokens, batch.token_lengths, 0.3, 0.1).total
    (loss + 0.5 * off_alignment(attention, encoded.spoken, batch.token_lengths - 2)).backward()
    for found, expected in zip(step.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
