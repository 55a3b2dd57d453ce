"""What wandb has of a run, read back from its files; and runs where wandb cannot be reached, or dies."""

import json
import logging
import multiprocessing
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from report.attention_maps import picture_of, save_attention_maps
from tests.conftest import SMALL, run
from training.evaluate import AttentionMap
from training.wandb_history import read_records, what_was_logged
from training.wandb_tracker import FLUSH_SETTING, WandbTracker, logged_in
from utils.checkpoint import load_checkpoint

PREDICTIONS = [("u", "A", "B", 1)]


@pytest.fixture(autouse=True)
def no_login(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_DATA_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def track(folder, mode, run_id=None, group=None):
    """A tracker that has started, and the id of its wandb run."""
    tracker = WandbTracker(folder, "an4+1", {"training": {"epochs": 3}}, run_id, mode, "project", group)
    return tracker, tracker.start()


def finish(tracker):
    """Ends the run, and wandb's own process, which goes on writing for a moment and which forks would share."""
    import wandb

    tracker.finish()
    wandb.teardown()


def history(*distances):
    """A history of these dev distances."""
    return [{"epoch": epoch, "dev_distance": float(value)} for epoch, value in enumerate(distances, 1)]


def log(tracker, rows, *more):
    tracker.log(rows, min(rows, key=lambda row: row["dev_distance"]), *more)


def set_aside(folder):
    """Renames the folders of runs that have ended: wandb names them by the second, and the next begins at once."""
    for number, path in enumerate(sorted((folder / "wandb").glob("offline-run-*"))):
        path.rename(path.with_name(f"offline-run-{number}-{path.name.rpartition('-')[2]}"))


def project_records(caplog) -> list[logging.LogRecord]:
    """Without those of wandb itself."""
    return [record for record in caplog.records if record.name.startswith("las.")]


def project_messages(caplog) -> list[str]:
    return [record.getMessage() for record in project_records(caplog)]


class Logged(list):
    """All that the files of the runs under a folder hold, one after the other, as wandb would upload it."""

    def __init__(self, folder):
        for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
            self += read_records(path)

    def of(self, kind):
        return [getattr(record, kind) for record in self if record.HasField(kind)]

    @property
    def rows(self):
        return [
            {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
            for row in self.of("history")
        ]

    @property
    def steps(self):
        return [row.step.num for row in self.of("history")]

    @property
    def summary(self):
        values = {}
        for update in self.of("summary"):
            for item in update.update:
                values[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
        return values


def test_disabled_does_not_even_import_wandb(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker, run_id = track(tmp_path, "disabled")
    log(tracker, history(1))
    tracker.log_model(tmp_path / "best.pt", history(1)[0])
    tracker.finish()
    assert run_id is None
    assert project_messages(caplog) == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_login_auto_works_offline(tmp_path, caplog):
    """What the files hold: curves over epochs, a picture under one key at every step, a table, the best, the group."""
    assert not logged_in()
    tracker, run_id = track(tmp_path, "auto", group="seeds")
    assert f"wandb: offline, kept in {tmp_path / 'wandb'}; to upload it: wandb sync " in project_messages(caplog)[0]
    for epoch in (1, 2, 3):
        attention = AttentionMap("u", ["A", "<eos>"], np.eye(2), 0.5)
        save_attention_maps(picture_of(tmp_path, epoch), [attention], "title")
        pair = picture_of(tmp_path, epoch) if epoch < 3 else None
        log(tracker, history(3, 1, 2)[:epoch], partial(picture_of, tmp_path), PREDICTIONS, pair)
    finish(tracker)
    assert len(project_messages(caplog)) == 1

    logged = Logged(tmp_path)
    (run,) = logged.of("run")
    assert (run.run_id, run.project, run.run_group, run.job_type, run.display_name) == (
        *(run_id, "project", "seeds"),
        *("train", "an4+1"),
    )
    assert json.loads(next(item for item in run.config.update if item.key == "training").value_json) == {"epochs": 3}
    metrics = {metric.name or metric.glob_name: metric for metric in logged.of("metric")}
    assert metrics["*"].step_metric == metrics["dev_distance"].step_metric == "epoch"
    assert metrics["dev_distance"].summary.min

    assert logged.steps == [1, 2, 3]
    media = tmp_path / "wandb" / "latest-run" / "files"
    for row, distance in zip(logged.rows, (3, 1, 2), strict=True):
        assert row["dev_distance"] == distance
        assert (row["attention._type"], row["attention.caption"]) == (
            "image-file",
            f"epoch {row['epoch']}, distance {distance:.2f}",
        )
        assert (media / row["attention.path"]).read_bytes() == picture_of(tmp_path, row["epoch"]).read_bytes()
        beside = "attention_first_and_best.path"
        assert (beside in row) == (row["epoch"] < 3)
        if beside in row:
            assert (media / row[beside]).read_bytes() == picture_of(tmp_path, row["epoch"]).read_bytes()
        table = json.loads((media / row["predictions.path"]).read_text())
        assert table["columns"] == ["id", "reference", "hypothesis", "distance"]
        assert table["data"] == [["u", "A", "B", 1]]
    assert logged.summary["best_dev_distance"] == 1
    assert logged.summary["best_epoch"] == 2
    assert logged.summary["dev_distance"] == {"min": 1}


def log_two_epochs(folder, sender):
    """Until it is killed."""
    tracker, run_id = track(folder, "offline")
    for rows in (history(5), history(5, 4)):
        log(tracker, rows)
    sender.send(run_id)
    threading.Event().wait()


def test_a_setting_that_this_wandb_does_not_know_is_left_out(tmp_path, monkeypatch, caplog):
    """An image's wandb is kept, and it refuses settings of later versions."""
    monkeypatch.setattr("training.wandb_tracker.FLUSH_SETTING", "x_of_a_later_version")
    tracker, run_id = track(tmp_path, "offline")
    finish(tracker)
    assert run_id is not None
    assert not any("failed" in message for message in project_messages(caplog))


def test_after_a_kill_each_epoch_is_there_once(tmp_path):
    """Those logged before it, those that its file lost, and those of a checkpoint that was never logged."""
    import wandb

    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=log_two_epochs, args=(tmp_path, sender))
    process.start()
    run_id = receiver.recv()
    flushes = hasattr(wandb.Settings(), FLUSH_SETTING)  # before 0.31 a kill may lose all of a small run's file
    deadline = time.monotonic() + 20
    while flushes and Logged(tmp_path).steps != [1, 2] and time.monotonic() < deadline:
        time.sleep(0.1)  # a second at most is lost by a kill
    process.kill()
    process.join()
    if flushes:
        assert Logged(tmp_path).steps == [1, 2]
        assert what_was_logged(tmp_path / "wandb", run_id)[0] == {1, 2}
        (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
        content = file.read_bytes()  # the last epoch did not reach the disk whole
        whole = next(size for size in range(len(content), 0, -1) if cut(file, content, size).steps == [1])
        assert whole < len(content)

    set_aside(tmp_path)
    tracker, resumed_id = track(tmp_path, "offline", run_id)
    assert resumed_id == run_id
    log(tracker, history(5, 4, 9))
    log(tracker, history(5, 4, 9, 8))
    finish(tracker)
    logged = Logged(tmp_path)
    assert [run.run_id for run in logged.of("run")] == [run_id] * (2 if flushes else 1)
    assert logged.steps == [1, 2, 3, 4]
    assert [row["dev_distance"] for row in logged.rows] == [5, 4, 9, 8]
    assert logged.summary["best_dev_distance"] == 4
    assert logged.summary["dev_distance"] == {"min": 4}

    # A damaged checkpoint: the run stands where it stood before, and epochs that were logged come again.
    set_aside(tmp_path)
    tracker, _ = track(tmp_path, "offline", run_id)
    log(tracker, history(5, 4, 9))
    log(tracker, history(5, 4, 9, 8))
    log(tracker, history(5, 4, 9, 8, 7))
    finish(tracker)
    logged = Logged(tmp_path)
    assert logged.steps == [1, 2, 3, 4, 5]
    assert logged.summary["dev_distance"] == {"min": 4}  # not that of the last piece of the run


def cut(file, content, size):
    file.write_bytes(content[:size])
    return Logged(file.parents[2])


def test_a_model_is_logged_once_and_where_it_is_better(tmp_path):
    best, run_id = tmp_path / "best.pt", None
    for distance, expected in ((3.0, 1), (3.0, 1), (2.0, 2), (2.5, 2)):
        best.write_bytes(b"weights %f" % distance)
        tracker, run_id = track(tmp_path, "offline", run_id)
        tracker.log_model(best, {"epoch": 7, "dev_distance": distance})
        finish(tracker)
        models = [artifact for artifact in Logged(tmp_path).of("artifact") if artifact.type == "model"]
        assert len(models) == expected
        set_aside(tmp_path)
    for model, distance in zip(models, (3.0, 2.0), strict=True):
        assert model.name == "an4-1"
        assert "best" in model.aliases
        assert json.loads(model.metadata) == {"epoch": 7, "dev_distance": distance}
        (content,) = model.manifest.contents
        assert content.path == "best.pt"
        assert Path(content.local_path).read_bytes() == b"weights %f" % distance
        assert Path(content.local_path).is_relative_to(tmp_path / "wandb")
    assert not list((tmp_path / "home").rglob("artifacts"))


def test_a_run_killed_and_resumed_is_one_run_with_each_epoch_once(toy_root, tmp_path):
    """train.py, killed in the middle of an epoch."""
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=toy", "wandb.mode=offline"]
    run("train.py", *arguments, "training.epochs=4", fault="kill@29", expect=-9, fresh=True)  # epochs have 12 steps
    folder = tmp_path / "toy"
    assert load_checkpoint(folder / "last.pt")["epoch"] == 2
    run("train.py", *arguments, "training.epochs=4", fresh=True)

    logged, rows = Logged(folder), load_checkpoint(folder / "last.pt")["history"]
    assert len({each.run_id for each in logged.of("run")}) == 1
    assert logged.steps == [1, 2, 3, 4]
    for row, expected in zip(logged.rows, rows, strict=True):
        assert row["dev_distance"] == expected["dev_distance"]
        assert row["attention._type"] == "image-file"
    best = min(rows, key=lambda row: row["dev_distance"])
    assert (logged.summary["best_dev_distance"], logged.summary["best_epoch"]) == (best["dev_distance"], best["epoch"])
    (model,) = [artifact for artifact in logged.of("artifact") if artifact.type == "model"]
    metadata = json.loads(model.metadata)
    assert (metadata["dev_distance"], metadata["epoch"]) == (best["dev_distance"], best["epoch"])


def test_online_the_server_knows_what_it_has(tmp_path, monkeypatch, caplog):
    """Also where the files say otherwise: what was logged offline and never uploaded is logged again."""
    import wandb

    tracker, run_id = track(tmp_path, "offline")
    for count in (1, 2, 3, 4):
        log(tracker, history(9, 8, 7, 6)[:count])
    finish(tracker)
    logged = []

    class Online:
        id, url, starting_step, summary = run_id, "https://somewhere", 2, {}
        settings = wandb.Settings(mode="online")
        define_metric = lambda self, *arguments, **more: None  # noqa: E731
        log = lambda self, values, step, commit: logged.append((step, values["dev_distance"], commit))  # noqa: E731

    monkeypatch.setattr(wandb, "init", lambda **arguments: Online())
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    caplog.clear()
    tracker, _ = track(tmp_path, "online", run_id)
    assert project_messages(caplog) == ["wandb: https://somewhere"]
    log(tracker, history(9, 8, 7, 6, 5))
    assert logged == [(2, 8, True), (3, 7, True), (4, 6, True), (5, 5, True)]


def test_online_without_a_login_does_not_ask(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked a question"))
    tracker, _ = track(tmp_path, "online")
    finish(tracker)
    assert "not logged in" in project_messages(caplog)[0]
    assert "offline" in project_messages(caplog)[1]


def test_a_login_is_seen_in_environment_and_netrc(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert logged_in()
    monkeypatch.delenv("NETRC")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert logged_in()


def test_when_wandb_fails_the_run_goes_on_and_one_line_says_so(tmp_path, monkeypatch, caplog):
    """With the traceback for the log file."""
    import wandb

    def refuse(**arguments):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    tracker, run_id = track(tmp_path, "online")
    assert run_id is None
    assert "cannot go online (no route to host)" in project_messages(caplog)[0]
    assert "training goes on without it" in project_messages(caplog)[1]
    log(tracker, history(1))
    assert len(project_messages(caplog)) == 2

    class Dying:
        id = "x"

        def log(self, *arguments, **more):
            raise RuntimeError("broken pipe\nand more")

    tracker.run, tracker.logged = Dying(), set()
    log(tracker, history(1))
    log(tracker, history(1, 1))
    finish(tracker)
    (warning,) = project_records(caplog)[2:]
    assert warning.levelno == logging.WARNING
    assert warning.getMessage() == (
        "wandb: failed (broken pipe); training goes on without it, metrics.csv has everything"
    )
    assert warning.exc_info[0] is RuntimeError


def test_wandb_that_cannot_be_imported_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker, run_id = track(tmp_path, "offline")
    assert run_id is None
    log(tracker, history(1))
    tracker.finish()
    (warning,) = project_records(caplog)
    assert warning.getMessage().startswith("wandb: failed (")
    assert warning.exc_info[0] is ModuleNotFoundError
