import sys

import pytest

from utils.tracking import Tracker, logged_in
from utils.visualization import AttentionMap, save_attention_maps


@pytest.fixture(autouse=True)
def no_login(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def track(tmp_path, mode, said):
    return Tracker(mode, "project", "name", tmp_path, {"training": {"epochs": 3}}, None, said.append)


def test_disabled_does_not_even_import_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = []
    tracker = track(tmp_path, "disabled", said)
    tracker.log(1, {"loss": 1.0})
    tracker.finish()
    assert tracker.run_id is None
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_login_auto_works_offline(tmp_path):
    assert not logged_in()
    said = []
    tracker = track(tmp_path, "auto", said)
    assert "offline" in said[0]
    picture = tmp_path / "map.png"
    save_attention_maps(picture, [AttentionMap("u", ["A", "<eos>"], [[1, 0], [0, 1]], 0.5)], "title")
    rows = [("u", "A", "B", 1)]
    tracker.log(1, {"dev_distance": 3.0}, picture, rows, {"best_dev_distance": 3.0})
    tracker.log(2, {"dev_distance": 2.0}, picture, rows, {"best_dev_distance": 2.0})
    assert tracker.run.summary["best_dev_distance"] == 2.0
    assert tracker.run_id
    tracker.finish()
    (kept,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(kept.glob("*.wandb"))
    assert list(kept.glob("files/media/images/attention_*.png"))
    assert list(kept.glob("files/media/table/predictions_*.json"))
    assert len(said) == 1


def test_online_without_a_login_does_not_ask(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked a question"))
    said = []
    tracker = track(tmp_path, "online", said)
    tracker.finish()
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
    tracker.log(1, {"loss": 1.0})

    class Dying:
        id = "x"

        def log(self, *arguments, **more):
            raise RuntimeError("broken pipe")

    tracker.run = Dying()
    tracker.log(1, {"loss": 1.0})
    tracker.log(2, {"loss": 1.0})
    tracker.finish()
    assert [line for line in said if "broken pipe" in line] == said[2:]
    assert len(said) == 3
