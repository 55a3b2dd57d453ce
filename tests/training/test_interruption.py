"""Killed or asked to stop at any moment: the run that goes on ends as the unbroken one did, bit for bit.

    LAS_KILLS=25 python -m pytest -s tests/training/test_interruption.py   # make test does 4 at random moments

Each run is a process of its own, forked from one that has imported everything, so that the kills hit work.
"""

import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import train
from config import load_config
from corpora.loading import load_labelled
from dataset import FeatureDataset, make_loader
from decoding.transcribe import fill_batches
from tests.conftest import SMALL, fork_context, run
from tests.faults import injected
from training.evaluate import evaluate
from training.recorder import Recorder
from utils.checkpoint import load_checkpoint, model_from
from utils.device import choose_precision

CPU = torch.device("cpu")
KILLS = int(os.environ.get("LAS_KILLS", "4"))
PLACES = {  # of the random kills
    "training": (train.Trainer, "train_epoch"),
    "evaluation": (train.Trainer, "evaluate"),
    "recording": (Recorder, "record"),
    "writing": (train.Trainer, "save"),
}
STEPS = 12  # per epoch
WITHIN_EPOCHS = "training.checkpoint_minutes=0.000001"  # after every batch
NOT_COMPARED = {"config", "environment", "seconds", "utterances_per_second", "data_wait"}  # names and clocks


def run_watched(arguments, place, times, sender):
    """Trains; `place` always tells where it is, `times[i]` how often it got there, `sender` each arrival and leaving.

    Both lie in shared memory, where they outlive the process.
    """
    torch.set_num_threads(1)

    def watch(owner, name, here):
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            before, place.value = place.value, here
            times[here] += 1
            sender.send((here, time.monotonic()))
            result = function(*args, **kwargs)
            place.value = before
            sender.send((-1 - here, time.monotonic()))
            return result

        setattr(owner, name, watched)

    for here, (owner, name) in enumerate(PLACES.values()):
        watch(owner, name, here)
    train.main(load_config(overrides=arguments))


def launch(arguments):
    context = fork_context()
    place, times = context.RawValue("i", -1), context.RawArray("i", len(PLACES))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_watched, args=(arguments, place, times, sender))
    process.start()
    sender.close()
    return SimpleNamespace(process=process, place=place, times=times, receiver=receiver)


def arrivals(watched):
    """`(place, time)` until the process ends."""
    while True:
        try:
            yield watched.receiver.recv()
        except (EOFError, ConnectionResetError):
            return


class Unbroken(SimpleNamespace):
    """A run that nothing interrupted, in `folder`, and the `arguments` that made it.

    `durations[more][place]`: how long it was there each time, with the further arguments `more`.
    """


@pytest.fixture(scope="module")
def unbroken(toy_root, tmp_path_factory) -> Unbroken:
    """With all that must be resumed: schedules that follow the metrics, epochs of the Listener alone, an average."""
    folder = tmp_path_factory.mktemp("unbroken")
    arguments = [
        *SMALL,
        f"data.root={toy_root}",
        f"run.dir={folder}",
        "training.epochs=3",
        "training.schedule=plateau",
        "training.plateau_patience=1",
        "training.ctc_epochs=1",
        "training.teacher_forcing={start: 0.9, stages: [{from_epoch: 2, factor: 0.9, floor: 0.5}]}",
    ]
    durations = {}
    for more in ((), (WITHIN_EPOCHS,)):
        watched, came, stays = launch([*arguments, "run.name=unbroken" + "-saved" * len(more), *more]), {}, {}
        for place, at in arrivals(watched):
            if place >= 0:
                came[place] = at
            else:
                stays.setdefault(-1 - place, []).append(at - came[-1 - place])
        watched.process.join()
        assert watched.process.exitcode == 0
        durations[more] = stays
    return Unbroken(folder=folder, arguments=arguments, durations=durations)


def final(folder: Path) -> tuple[dict, dict, list]:
    """All that a run leaves to go on from, to decode with, and to look at."""
    metrics = pd.read_csv(folder / "metrics.csv").to_dict("records")
    return load_checkpoint(folder / "last.pt"), load_checkpoint(folder / "best.pt"), metrics


def assert_same(found, expected, where=""):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected.keys() - NOT_COMPARED:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif torch.is_tensor(expected):
        assert torch.equal(found, expected), where
    else:
        assert found == expected or (found != found and expected != expected), where


def assert_ends_like(unbroken: Unbroken, name: str):
    for found, expected in zip(final(unbroken.folder / name), final(unbroken.folder / "unbroken"), strict=True):
        assert_same(found, expected)


def test_an_unbroken_run_is_the_same_with_checkpoints_within_its_epochs(unbroken):
    last, best, metrics = final(unbroken.folder / "unbroken")
    saved, saved_best, saved_metrics = final(unbroken.folder / "unbroken-saved")
    for one, other in ((saved["weights"], last["weights"]), (saved_best["model"], best["model"])):
        assert_same(one, other)
    assert_same(saved_metrics, metrics)
    assert not all(torch.equal(last["model"][key], last["weights"][key]) for key in last["model"])  # averaged, last


def test_the_averaged_model_is_what_is_evaluated(unbroken):
    """In the last epoch, whose last weights the checkpoint has as well."""
    last, config = load_checkpoint(unbroken.folder / "unbroken" / "last.pt"), load_config(overrides=unbroken.arguments)
    (dev,) = load_labelled(config.data.root, {"dev": [config.data.dev]}, config.data.normalize)
    loader = make_loader(FeatureDataset(dev), fill_batches(dev.lengths, 1000), 0, CPU)
    precision = choose_precision(config.training.precision, CPU)
    averaged, latest = (
        evaluate(model_from({**last, "model": last[key]}).eval(), loader, [0], CPU, precision).metrics["dev_loss"]
        for key in ("model", "weights")
    )
    assert averaged == pytest.approx(last["history"][-1]["dev_loss"], rel=1e-4)
    assert latest != pytest.approx(averaged, rel=1e-3)


# ---------------------------------------------------------------------------------------------------- at known moments

BEFORE_THE_FIFTH_BATCH_OF_EPOCH_2 = STEPS + 5


@pytest.mark.parametrize(
    ("name", "more", "code", "epochs", "batches"),
    [
        ("killgroup", (), -9, 1, 0),
        ("killgroup", (WITHIN_EPOCHS,), -9, 1, 4),
        ("sigterm", (), 143, 1, 5),  # the batch that it interrupts is finished; the next one is not waited for
        ("sigint", (), 130, 1, 5),
    ],
    ids=["killed", "killed-with-checkpoints-within-the-epoch", "SIGTERM", "Ctrl-C"],
)
def test_stopped_within_an_epoch_it_ends_with_the_same_weights(unbroken, name, more, code, epochs, batches):
    """The signal reaches the loader's worker, too, as from a terminal."""
    run_name = f"{name}-{batches}"
    arguments = [*unbroken.arguments, f"run.name={run_name}", *more]
    fault = f"{name}@{BEFORE_THE_FIFTH_BATCH_OF_EPOCH_2}"
    result = run("train.py", *arguments, "data.workers=1", fault=fault, expect=code)
    stopped = load_checkpoint(unbroken.folder / run_name / "last.pt")
    assert (stopped["epoch"], stopped["averaged_steps"]) == (epochs, epochs * STEPS + batches)
    where = f"after epoch {epochs}"
    if batches:
        assert stopped["partial"]["batch"] == batches
        where += f" and {batches} batches"
    if code > 0:
        message = f"stopped by {name.upper()} {where} of {STEPS}; the same command goes on from there"
        assert result.stderr.strip() == message
    assert f"resuming {unbroken.folder / run_name} {where}\n" in run("train.py", *arguments).stdout
    assert_ends_like(unbroken, run_name)


@pytest.mark.parametrize(("name", "batch"), [("sigterm", 3), ("sigint", 4)], ids=["first-dev-batch", "last-dev-batch"])
def test_a_signal_during_evaluation(unbroken, name, batch):
    """Dev has two batches. At its first, the trained epoch is saved and evaluated by the run that goes on; at its last,
    evaluation is over, and the epoch is finished. Nothing of the next epoch is trained."""
    run_name = f"{name}-evaluation-{batch}"
    arguments = [*unbroken.arguments, f"run.name={run_name}"]
    code = {"sigterm": 143, "sigint": 130}[name]
    result = run("train.py", *arguments, fault=f"{name}@evaluation:{batch}", expect=code)
    stopped = load_checkpoint(unbroken.folder / run_name / "last.pt")
    assert stopped["averaged_steps"] == 2 * STEPS
    if batch == 3:
        assert (stopped["epoch"], stopped["partial"]["batch"]) == (1, STEPS)
        where = f"after epoch 1 and {STEPS} batches"
        assert f"stopped by {name.upper()} {where} of {STEPS}; the same command" in result.stderr
    else:
        assert (stopped["epoch"], stopped["partial"]) == (2, None)
        where = "after epoch 2"
        assert f"stopped by {name.upper()} {where}; the same command" in result.stderr
    resumed = run("train.py", *arguments)
    assert f"resuming {unbroken.folder / run_name} {where}\n" in resumed.stdout
    assert ("epoch   2: " in resumed.stdout) == (batch == 3)
    assert "epoch   3: " in resumed.stdout
    assert_ends_like(unbroken, run_name)


@pytest.mark.parametrize("place", ["record", "saved"])
def test_a_signal_at_the_end_of_an_epoch(unbroken, place):
    """While it is recorded, and after its checkpoint: not a batch of the next is trained."""
    run_name = f"end-{place}"
    arguments = [*unbroken.arguments, f"run.name={run_name}"]
    count = {"record": 2, "saved": 4}[place]  # an epoch is saved twice, trained and evaluated
    result = run("train.py", *arguments, fault=f"sigterm@{place}:{count}", expect=143)
    assert result.stderr == "stopped by SIGTERM after epoch 2; the same command goes on from there\n"
    assert result.stdout.count("epoch   2: ") == 1  # it is finished, and announced
    stopped = load_checkpoint(unbroken.folder / run_name / "last.pt")
    assert (stopped["epoch"], stopped["partial"], stopped["averaged_steps"]) == (2, None, 2 * STEPS)
    assert f"resuming {unbroken.folder / run_name} after epoch 2\n" in run("train.py", *arguments).stdout
    assert_ends_like(unbroken, run_name)


def test_killed_after_the_last_checkpoint_metrics_are_whole(toy_root, tmp_path, monkeypatch):
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=last", "training.epochs=2"]
    for _ in range(2):  # the second time there is nothing to do
        with contextlib.suppress(KeyboardInterrupt), injected("interrupt@saved:4"):
            train.main(load_config(overrides=arguments))
    assert load_checkpoint(tmp_path / "last" / "last.pt")["epoch"] == 2
    assert pd.read_csv(tmp_path / "last" / "metrics.csv")["epoch"].tolist() == [1, 2]


# ---------------------------------------------------------------------------------------------------- at random moments

HITS = Counter()


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_moment(unbroken, number):
    """In each of the places in turn: at a random one of the occasions, after a random share of its time.

    Every second run has checkpoints within its epochs. One run in three is killed again when it goes on.
    """
    generator = np.random.default_rng([number, KILLS])
    more = (WITHIN_EPOCHS,) if number // len(PLACES) % 2 else ()
    mine = [*unbroken.arguments, f"run.name=killed-{number}", *more]
    hit = []
    for _ in range(1 + (number % 3 == 2)):
        target = (number + len(hit)) % len(PLACES)
        stays = unbroken.durations[more][target]
        occasion = 0 if hit else int(generator.integers(len(stays)))  # not much may be left to do
        delay = float(generator.uniform(0, stays[occasion]))
        watched = launch(mine)
        for place, _ in arrivals(watched):
            if place == target and watched.times[target] > occasion:
                time.sleep(delay)
                watched.process.kill()
                break
        watched.process.join()
        if watched.process.exitcode:
            assert watched.process.exitcode == -9
            hit.append(list(PLACES)[watched.place.value] if watched.place.value >= 0 else "between")
    temporary = sorted(path.name for path in (unbroken.folder / f"killed-{number}").glob("*.tmp"))
    watched = launch(mine)
    for _ in arrivals(watched):
        pass
    watched.process.join()
    assert watched.process.exitcode == 0
    assert_ends_like(unbroken, f"killed-{number}")
    print(
        f"\nkill {number}: hit {', '.join(hit) or 'nothing, it was done'}; left half-written: {temporary or 'nothing'}"
    )
    HITS.update(hit)


def test_the_kills_hit_work():
    if not HITS:
        pytest.skip("no kills in this session")
    print(f"\n{sum(HITS.values())} kills: {dict(HITS)}")
    assert sum(HITS.values()) >= KILLS * 0.8
