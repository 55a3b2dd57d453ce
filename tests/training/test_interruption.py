"""SIGKILL at random moments: the run that goes on ends as the unbroken one did, bit for bit.

    LAS_KILLS=25 python -m pytest -s tests/training/test_interruption.py   # make test does 4

Each run is a process of its own, forked from one that has imported everything, so that the kills hit work.
"""

import contextlib
import multiprocessing
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
from tests.conftest import SMALL
from utils.checkpoint import load_checkpoint
from utils.distributed import SINGLE_PROCESS

KILLS = int(os.environ.get("LAS_KILLS", "4"))
PLACES = {"training": "_train_epoch", "evaluation": "evaluate", "drawing": "draw_epoch", "writing": "_save"}
WITHIN_EPOCHS = "training.checkpoint_minutes=0.000001"  # after every batch
NOT_COMPARED = {"config", "environment", "seconds", "utterances_per_second", "data_wait"}  # names and clocks


def run_watched(arguments, place, times, sender):
    """Trains; `place` always tells where it is, `times[i]` how often it got there, `sender` each arrival and leaving.

    Both lie in shared memory, where they outlive the process.
    """
    torch.set_num_threads(1)
    names = list(PLACES)

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

    for here, name in enumerate(names):
        watch(train.Trainer if PLACES[name].startswith("_") else train, PLACES[name], here)
    train.train(load_config(overrides=arguments), torch.device("cpu"), SINGLE_PROCESS)


@pytest.fixture(scope="module")
def launch():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_interruption"])

    def start(arguments):
        place, times = context.RawValue("i", -1), context.RawArray("i", len(PLACES))
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=run_watched, args=(arguments, place, times, sender))
        process.start()
        sender.close()
        return SimpleNamespace(process=process, place=place, times=times, receiver=receiver)

    return start


def arrivals(run):
    """`(place, time)` until the process ends."""
    while True:
        try:
            yield run.receiver.recv()
        except (EOFError, ConnectionResetError):
            return


@pytest.fixture(scope="module")
def unbroken(toy_root, tmp_path_factory, launch):
    """A run with all that must be resumed, the arguments that made it, and how long it was where, by occasion."""
    folder = tmp_path_factory.mktemp("unbroken")
    arguments = [
        *SMALL,
        f"data.root={toy_root}",
        f"run.dir={folder}",
        "training.epochs=3",
        "training.schedule=plateau",
        "training.ctc_epochs=1",
        "training.teacher_forcing={start: 0.9, stages: [{from_epoch: 2, factor: 0.9, floor: 0.5}]}",
    ]
    durations = {}
    for more in ((), (WITHIN_EPOCHS,)):
        run, came, stays = launch([*arguments, "run.name=unbroken" + "-saved" * len(more), *more]), {}, {}
        for place, at in arrivals(run):
            if place >= 0:
                came[place] = at
            else:
                stays.setdefault(-1 - place, []).append(at - came[-1 - place])
        run.process.join()
        assert run.process.exitcode == 0
        durations[more] = stays
    return folder, arguments, durations


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


def test_an_unbroken_run_is_the_same_with_checkpoints_within_its_epochs(unbroken):
    folder, _, _ = unbroken
    last, best, metrics = final(folder / "unbroken")
    saved, saved_best, saved_metrics = final(folder / "unbroken-saved")
    for one, other in ((saved["weights"], last["weights"]), (saved_best["model"], best["model"])):
        assert_same(one, other)
    assert_same(saved_metrics, metrics)


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_moment(unbroken, launch, number):
    """In each of the places in turn: at a random one of the occasions, after a random share of its time.

    Every second run has checkpoints within its epochs. One run in three is killed again when it goes on.
    """
    folder, arguments, durations = unbroken
    generator = np.random.default_rng([number, KILLS])
    more = (WITHIN_EPOCHS,) if number // len(PLACES) % 2 else ()
    mine = [*arguments, f"run.name=killed-{number}", *more]
    hit = []
    for _ in range(1 + (number % 3 == 2)):
        target = (number + len(hit)) % len(PLACES)
        stays = durations[more][target]
        occasion = 0 if hit else int(generator.integers(len(stays)))  # not much may be left to do
        delay = float(generator.uniform(0, stays[occasion]))
        run = launch(mine)
        for place, _ in arrivals(run):
            if place == target and run.times[target] > occasion:
                time.sleep(delay)
                run.process.kill()
                break
        run.process.join()
        if run.process.exitcode:
            assert run.process.exitcode == -9
            hit.append(list(PLACES)[run.place.value] if run.place.value >= 0 else "between")
    temporary = sorted(path.name for path in (folder / f"killed-{number}").glob("*.tmp"))
    run = launch(mine)
    for _ in arrivals(run):
        pass
    run.process.join()
    assert run.process.exitcode == 0
    for found, expected in zip(final(folder / f"killed-{number}"), final(folder / "unbroken"), strict=True):
        assert_same(found, expected)
    print(
        f"\nkill {number}: hit {', '.join(hit) or 'nothing, it was done'}; left half-written: {temporary or 'nothing'}"
    )
    HITS.update(hit)


HITS = Counter()


def test_killed_after_the_last_checkpoint_metrics_are_whole(toy_root, tmp_path, monkeypatch):
    keep = train.save_checkpoint

    def keep_and_die(path, checkpoint, **options):
        keep(path, checkpoint, **options)
        if path.name == "last.pt" and checkpoint["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_checkpoint", keep_and_die)
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=last", "training.epochs=2"]
    for _ in range(2):  # the second time there is nothing to do
        with contextlib.suppress(KeyboardInterrupt):
            train.train(load_config(overrides=arguments), torch.device("cpu"), SINGLE_PROCESS)
    assert pd.read_csv(tmp_path / "last" / "metrics.csv")["epoch"].tolist() == [1, 2]


def test_the_kills_hit_work():
    if not HITS:
        pytest.skip("no kills in this session")
    print(f"\n{sum(HITS.values())} kills: {dict(HITS)}")
    assert sum(HITS.values()) >= KILLS * 0.8
