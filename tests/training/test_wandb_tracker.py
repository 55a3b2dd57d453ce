import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from report.attention_maps import AttentionMap, picture_of, save_attention_maps
from tests.conftest import SMALL
from training.wandb_history import read_records, what_was_logged
from training.wandb_tracker import Tracker, logged_in
from utils.checkpoint import load_checkpoint

HOME = Path(__file__).parents[2]
PREDICTIONS = [("u", "A", "B", 1)]


@pytest.fixture(autouse=True)
def no_login(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_DATA_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def track(tmp_path, mode, said, run_id=None, group=None):
    settings = {"training": {"epochs": 3}}
    return Tracker(mode, "project", group, "an4+1", tmp_path, settings, run_id, said.append)


def finish(tracker):
    """Also ends wandb's own process, which goes on writing for a moment, and which child processes would share."""
    import wandb

    tracker.finish()
    wandb.teardown()


def epochs(*distances):
    """A history of these dev distances."""
    return [{"epoch": epoch, "dev_distance": float(value)} for epoch, value in enumerate(distances, 1)]


def log(tracker, history, *more):
    tracker.log(history, min(history, key=lambda row: row["dev_distance"]), *more)


class Kept(list):
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


def test_disabled_does_not_even_import_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = []
    tracker = track(tmp_path, "disabled", said)
    log(tracker, epochs(1))
    tracker.log_model(tmp_path / "best.pt", epochs(1)[0])
    tracker.finish()
    assert tracker.run_id is None
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_login_auto_works_offline(tmp_path):
    """What the files hold: curves over epochs, a picture under one key at every step, a table, the best, the group."""
    assert not logged_in()
    said = []
    tracker = track(tmp_path, "auto", said, group="seeds")
    assert f"offline, kept in {tmp_path / 'wandb'}; to upload it: wandb sync " in said[0]
    for epoch in (1, 2, 3):
        attention = AttentionMap("u", ["A", "<eos>"], [[1, 0], [0, 1]], 0.5)
        save_attention_maps(picture_of(tmp_path, epoch), [attention], "title")
        log(tracker, epochs(3, 1, 2)[:epoch], partial(picture_of, tmp_path), PREDICTIONS)
    run_id = tracker.run_id
    finish(tracker)
    assert len(said) == 1

    kept = Kept(tmp_path)
    (run,) = kept.of("run")
    assert (run.run_id, run.project, run.run_group, run.job_type, run.display_name) == (
        *(run_id, "project", "seeds"),
        *("train", "an4+1"),
    )
    assert json.loads(next(item for item in run.config.update if item.key == "training").value_json) == {"epochs": 3}
    metrics = {metric.name or metric.glob_name: metric for metric in kept.of("metric")}
    assert metrics["*"].step_metric == metrics["dev_distance"].step_metric == "epoch"
    assert metrics["dev_distance"].summary.min

    assert kept.steps == [1, 2, 3]
    media = tmp_path / "wandb" / "latest-run" / "files"
    for row, distance in zip(kept.rows, (3, 1, 2), strict=True):
        assert row["dev_distance"] == distance
        assert (row["attention._type"], row["attention.caption"]) == (
            "image-file",
            f"epoch {row['epoch']}, distance {distance:.2f}",
        )
        assert (media / row["attention.path"]).read_bytes() == picture_of(tmp_path, row["epoch"]).read_bytes()
        table = json.loads((media / row["predictions.path"]).read_text())
        assert table["columns"] == ["id", "reference", "hypothesis", "distance"]
        assert table["data"] == [["u", "A", "B", 1]]
    assert kept.summary["best_dev_distance"] == 1
    assert kept.summary["best_epoch"] == 2
    assert kept.summary["dev_distance"] == {"min": 1}


KILLED = """
import os, signal, sys, time
from pathlib import Path
from tests.training.test_wandb_tracker import epochs, log, track
tracker = track(Path(sys.argv[1]), "offline", [])
log(tracker, epochs(5)); log(tracker, epochs(5, 4))
print(tracker.run_id, flush=True)
time.sleep(60)
"""


def test_after_a_kill_each_epoch_is_there_once(tmp_path):
    """Those logged before it, those that its file lost, and those of a checkpoint that was never logged."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], cwd=HOME, stdout=subprocess.PIPE, text=True)
    run_id = process.stdout.readline().strip()
    deadline = time.monotonic() + 20
    while Kept(tmp_path).steps != [1, 2] and time.monotonic() < deadline:  # a second at most is lost by a kill
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert Kept(tmp_path).steps == [1, 2]
    assert what_was_logged(tmp_path / "wandb", run_id)[0] == {1, 2}
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    if file.stat().st_size:  # the last epoch did not reach the disk whole
        content = file.read_bytes()
        whole = next(size for size in range(len(content), 0, -1) if cut(file, content, size).steps == [1])
    assert whole < len(content)

    time.sleep(1)  # wandb names folders by the second
    tracker = track(tmp_path, "offline", [], run_id)
    assert tracker.run_id == run_id
    log(tracker, epochs(5, 4, 9))
    log(tracker, epochs(5, 4, 9, 8))
    finish(tracker)
    kept = Kept(tmp_path)
    assert [run.run_id for run in kept.of("run")] == [run_id, run_id]
    assert kept.steps == [1, 2, 3, 4]
    assert [row["dev_distance"] for row in kept.rows] == [5, 4, 9, 8]
    assert kept.summary["best_dev_distance"] == 4
    assert kept.summary["dev_distance"] == {"min": 4}

    # A damaged checkpoint: the run stands where it stood before, and epochs that were logged come again.
    time.sleep(1)
    tracker = track(tmp_path, "offline", [], run_id)
    log(tracker, epochs(5, 4, 9))
    log(tracker, epochs(5, 4, 9, 8))
    log(tracker, epochs(5, 4, 9, 8, 7))
    finish(tracker)
    kept = Kept(tmp_path)
    assert kept.steps == [1, 2, 3, 4, 5]
    assert kept.summary["dev_distance"] == {"min": 4}  # not that of the last piece of the run


def cut(file, content, size):
    file.write_bytes(content[:size])
    return Kept(file.parents[2])


def test_a_model_is_logged_once_and_where_it_is_better(tmp_path):
    best, run_id = tmp_path / "best.pt", None
    for distance, expected in ((3.0, 1), (3.0, 1), (2.0, 2), (2.5, 2)):
        best.write_bytes(b"weights %f" % distance)
        tracker = track(tmp_path, "offline", [], run_id)
        run_id = tracker.run_id
        tracker.log_model(best, {"epoch": 7, "dev_distance": distance})
        finish(tracker)
        models = [artifact for artifact in Kept(tmp_path).of("artifact") if artifact.type == "model"]
        assert len(models) == expected
        time.sleep(1)
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
    """train.py from outside, killed in the middle of an epoch."""
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=toy", "wandb.mode=offline"]
    command = [sys.executable, "train.py", *arguments, "training.epochs=4"]
    process = subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            break
    process.kill()
    process.wait()
    folder = tmp_path / "toy"
    subprocess.run(command, cwd=HOME, check=True, capture_output=True)

    kept, history = Kept(folder), load_checkpoint(folder / "last.pt")["history"]
    assert len({run.run_id for run in kept.of("run")}) == 1
    assert kept.steps == [1, 2, 3, 4]
    for row, expected in zip(kept.rows, history, strict=True):
        assert row["dev_distance"] == expected["dev_distance"]
        assert row["attention._type"] == "image-file"
    best = min(history, key=lambda row: row["dev_distance"])
    assert (kept.summary["best_dev_distance"], kept.summary["best_epoch"]) == (best["dev_distance"], best["epoch"])
    (model,) = [artifact for artifact in kept.of("artifact") if artifact.type == "model"]
    metadata = json.loads(model.metadata)
    assert (metadata["dev_distance"], metadata["epoch"]) == (best["dev_distance"], best["epoch"])


def test_online_the_server_knows_what_it_has(tmp_path, monkeypatch):
    """Also where the files say otherwise: what was logged offline and never uploaded is logged again."""
    import wandb

    tracker = track(tmp_path, "offline", [])
    for count in (1, 2, 3, 4):
        log(tracker, epochs(9, 8, 7, 6)[:count])
    finish(tracker)
    logged = []

    class Online:
        id, url, starting_step, summary = tracker.run_id, "https://somewhere", 2, {}
        settings = wandb.Settings(mode="online")
        define_metric = lambda self, *arguments, **more: None  # noqa: E731
        log = lambda self, values, step, commit: logged.append((step, values["dev_distance"], commit))  # noqa: E731

    monkeypatch.setattr(wandb, "init", lambda **arguments: Online())
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    said = []
    tracker = Tracker("online", "project", None, "name", tmp_path, {}, tracker.run_id, said.append)
    assert said == ["wandb: https://somewhere"]
    log(tracker, epochs(9, 8, 7, 6, 5))
    assert logged == [(2, 8, True), (3, 7, True), (4, 6, True), (5, 5, True)]


def test_online_without_a_login_does_not_ask(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked a question"))
    said = []
    tracker = track(tmp_path, "online", said)
    finish(tracker)
    assert "not logged in" in said[0]
    assert "offline" in said[1]


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


def test_when_wandb_fails_the_run_goes_on_and_one_line_says_so(tmp_path, monkeypatch):
    import wandb

    said = []

    def refuse(**arguments):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    tracker = track(tmp_path, "online", said)
    assert "cannot go online (no route to host)" in said[0]
    assert "training goes on without it" in said[1]
    log(tracker, epochs(1))

    class Dying:
        id = "x"

        def log(self, *arguments, **more):
            raise RuntimeError("broken pipe")

    tracker.run, tracker.logged = Dying(), set()
    log(tracker, epochs(1))
    log(tracker, epochs(1, 1))
    finish(tracker)
    assert [line for line in said if "broken pipe" in line] == said[2:]
    assert len(said) == 3
