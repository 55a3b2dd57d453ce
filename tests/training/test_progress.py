import sys

import pytest
import torch

from corpora.loading import load_labelled
from training import progress
from training.progress import EtaEstimator, describe_device, describe_run, duration, memory_used

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
    assert lines[2] == f"model     {sum(p.numel() for p in model.parameters()):,} parameters, time reduction 4x"
    frames = sum(train.lengths) / sum(map(len, train.texts))
    steps = f"{frames / 4:.2f} steps for attention, {frames / 4:.2f} for CTC"
    assert lines[3] == f"alignment {frames:.1f} frames per character: {steps}"
    assert lines[4] == "training  3 epochs"
    assert "CTC" not in described(CPU, 1, "float32", {"train": train}, make_las(ctc=False), "", caplog=caplog)[3]
