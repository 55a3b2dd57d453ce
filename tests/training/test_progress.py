"""Times to expect, what an epoch sums up, and how a run is described."""

import sys
from types import SimpleNamespace

import pytest
import torch

from corpora.loading import load_labelled
from training import progress
from training.progress import EpochProgress, EtaEstimator, describe_device, describe_run, duration, memory_used
from training.step import StepResult
from utils.distributed import DistributedContext
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told to go on."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def estimate(eta, clock, seconds):
    """What the estimator says after each of steps that take so long."""
    estimates = []
    for each in seconds:
        clock[0] += each
        estimates.append(eta.step(CPU))
    return estimates


def test_an_estimate_is_given_once_without_the_slow_first_steps(clock):
    estimates = estimate(EtaEstimator(100, 100, 14, None), clock, [30.0] * 5 + [1.0] * 40)
    assert [index for index, line in enumerate(estimates) if line] == [19]
    assert estimates[19].startswith("about 100 s per epoch, 23 min for 14 (dev passes come on top); ")


def test_the_estimate_of_a_short_epoch_and_of_a_resumed_one(clock):
    estimates = estimate(EtaEstimator(12, 3, 4, None), clock, [5.0, 2.0, 2.0])
    assert estimates[-1].startswith("about 24 s per epoch, 96 s for 4")
    assert estimate(EtaEstimator(50, 1, 2, None), clock, [3.0])[0].startswith("about 2 min per epoch, 5 min for 2")


def test_a_limit_of_time_and_epochs_that_are_not_like_the_first(clock):
    assert "10 min at most" in estimate(EtaEstimator(100, 100, 14, 10.0), clock, [1.0] * 20)[-1]
    assert "23 min for 14" in estimate(EtaEstimator(100, 100, 14, 60.0), clock, [1.0] * 20)[-1]
    assert estimate(EtaEstimator(100, 100, None, None), clock, [1.0] * 20)[-1].startswith("about 100 s per epoch; ")


# ------------------------------------------------------------------------------------------------------------ an epoch


class Loader(list):
    """So many batches, from the first of those that are left; each takes a second of the clock to prepare."""

    def __init__(self, clock, count: int, first: int = 0):
        super().__init__(range(count))
        self.clock, self.first = clock, first

    def __iter__(self):
        for index in range(self.first, len(self)):
            self.clock[0] += 1
            yield SimpleNamespace(to=lambda device, index=index: (index, device))


class Eta:
    """Says something after its second step."""

    count = 0

    def step(self, device):
        self.count += 1
        return "two steps" if self.count == 2 else None


def epoch_of(partial=None, history=(), context=None) -> EpochProgress:
    return EpochProgress("epoch", 60, partial, history, Eta(), CPU, context or DistributedContext())


def result(value: float, norm: float, updated: bool = True, overflow: bool = False) -> StepResult:
    return StepResult(value * torch.tensor([1.0, 2.0, 3.0]), torch.tensor(norm), updated, overflow)


def test_an_epoch_sums_up_its_steps(clock, caplog):
    epoch = epoch_of(history=[{"dev_distance": distance} for distance in (9.0, 8.0, 3.25)])
    seen = []
    for index, batch in epoch.watch(Loader(clock, 12)):
        seen.append((index, batch))
        clock[0] += 3  # of each step: a quarter of the time is spent waiting
        if index == 4:
            epoch.update(result(float("nan"), float("nan"), updated=False), 99, 1e-3, 0.9)
        else:
            epoch.update(result(index, 2.0 * index), 10 + index, 1e-3, 0.9)
        if index == 10:
            shown = epoch._bar.postfix
        elif index == 5:
            assert epoch._bar.postfix.startswith("loss 0.000, ")  # of the first step
    assert seen == [(index, (index, CPU)) for index in range(12)]
    weights = [(index, 10 + index) for index in range(12) if index != 4]
    mean = sum(index * characters for index, characters in weights) / sum(characters for _, characters in weights)
    expected = {"train_loss": mean, "train_attention_loss": 2 * mean, "train_ctc_loss": 3 * mean}
    assert epoch.means() == pytest.approx({**expected, "gradient_norm": 2 * mean, "data_wait": 0.25})
    assert epoch.seconds == 48
    assert epoch.utterances_per_second == 60 / 48
    assert caplog.messages == ["expected  two steps"]
    weights = weights[:-1]
    mean = sum(index * characters for index, characters in weights) / sum(characters for _, characters in weights)
    speed = 11 / 12 * 60 / 44
    assert shown == f"loss {mean:.3f}, distance 3.25, lr 1.0e-03, tf 0.90, |g| 20.00, {speed:.1f} utt/s, waiting 25%"
    assert "|g| 22.00" in epoch._bar.postfix  # the last step is shown, whatever its number


def test_an_epoch_that_was_left_goes_on(clock):
    first = epoch_of()
    for index, _ in first.watch(Loader(clock, 5)):
        first.update(result(index, 1.0), 10, 1e-3, 1.0)
        if index == 2:
            partial = first.partial(batch=3)
            break
    assert (partial["batch"], partial["characters"], partial["seconds"]) == (3, 30, 3.0)
    assert first.utterances_per_second == 3 / 5 * 60 / 3  # as at the end of an epoch that max_minutes cut short
    assert partial["totals"].tolist() == [30.0, 60.0, 90.0, 30.0]
    clock[0] += 1000  # which do not count
    rest = epoch_of(partial)
    for index, _ in rest.watch(Loader(clock, 5, first=3)):
        assert index == 3 + (rest.seconds == 5)
        rest.update(result(index, 1.0), 10, 1e-3, 1.0)
    assert rest.means()["train_loss"] == pytest.approx(2.0)
    assert rest.seconds == 5.0
    assert "distance" not in rest._bar.postfix


def test_ranks_add_up_what_each_has_seen(clock, monkeypatch):
    monkeypatch.setattr(DistributedContext, "all_reduce_sum", lambda context, values: values)
    partial = {"batch": 1, "totals": torch.tensor([8.0, 8.0, 8.0, 8.0]).double(), "characters": 4, "seconds": 1.0}
    shares = []
    for rank in range(2):
        epoch = epoch_of(partial, context=DistributedContext(rank, 2))
        epoch.update(result(1.0, 3.0), 6, 1e-3, 1.0)
        shares.append(epoch.partial(batch=2))
    totals = shares[0]["totals"] + shares[1]["totals"]
    assert totals.tolist() == [8 + 2 * 6, 8 + 2 * 12, 8 + 2 * 18, 8 + 3 * 6]  # what was before, once; the norm is one
    assert [share["characters"] for share in shares] == [10, 10]


def test_an_epoch_without_a_finite_gradient_is_refused_unless_it_only_overflowed(clock):
    epoch = epoch_of()
    clock[0] += 1
    epoch.update(result(1.0, float("nan"), updated=False), 10, 1e-3, 1.0)
    with pytest.raises(UserError, match="no batch of this epoch gave a finite gradient"):
        epoch.means()
    epoch.update(result(1.0, float("inf"), updated=False, overflow=True), 10, 1e-3, 1.0)
    assert "train_loss" in epoch.means()


# --------------------------------------------------------------------------------------------------------- description


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7100, "118 min"), (9000, "2.5 hours")]
)
def test_durations_in_the_unit_that_people_use(seconds, text):
    assert duration(seconds) == text
    assert duration(200_000) == "2.3 days"


def test_device_and_memory(monkeypatch):
    threads = torch.get_num_threads()
    assert describe_device(CPU).endswith(f", {threads} thread{'' if threads == 1 else 's'}")
    assert describe_device(CPU, 4).startswith("4 x CPU, ")
    if sys.platform != "win32":
        assert float(memory_used(CPU).split()[0]) > 0.1  # torch alone takes more
        usage = SimpleNamespace(ru_maxrss=3 * 2**20)  # kB
        monkeypatch.setattr("resource.getrusage", lambda who: usage)
        monkeypatch.setattr(sys, "platform", "linux")
        assert memory_used(CPU) == "3.0 GiB of memory"
        usage.ru_maxrss = 2**31
        monkeypatch.setattr(sys, "platform", "darwin")  # bytes there
        assert memory_used(CPU) == "2.0 GiB of memory"
        monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_used(CPU) == ""

    class Properties:
        total_memory = 80 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    cuda = torch.device("cuda", 0)
    assert describe_device(cuda, 8) == "8 x NVIDIA H100, 80 GiB"
    assert memory_used(cuda) == "3.0 of 80 GiB of GPU memory"


def described(*arguments, caplog) -> list[str]:
    caplog.clear()
    describe_run(*arguments)
    return caplog.messages[:]


def test_what_is_trained_on_what(toy_root, make_las, caplog):
    train, dev = load_labelled(toy_root, {"train": ["train"], "dev": ["dev"]}, "none")
    model = make_las()
    lines = described(CPU, 4, "bf16", {"train+more": train, "dev": dev}, model, "3 epochs", caplog=caplog)
    hours = sum(train.lengths) / 360_000
    assert lines[0] == f"device    {describe_device(CPU, 4)}, bf16"
    assert lines[1].startswith(f"data      train+more 96 utterances, {hours:.2f} hours; dev 12 utterances, ")
    parameters = sum(p.numel() for p in model.parameters())
    assert lines[2] == f"model     {parameters:,} parameters, time reduction 4x, location attention"
    frames = sum(train.lengths) / sum(map(len, train.texts))
    steps = f"{frames / 4:.2f} steps for attention, {frames / 4:.2f} for CTC"
    assert lines[3] == f"alignment {frames:.1f} frames per character: {steps}"
    assert lines[4] == "training  3 epochs"
    assert "CTC" not in described(CPU, 1, "float32", {"train": train}, make_las(ctc=False), "", caplog=caplog)[3]
