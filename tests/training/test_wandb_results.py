"""What test.py measured arrives in the wandb run of the training, read back from its files."""

import pytest

from decoding.history import make_row
from tests.training.test_wandb_tracker import Logged, finish, history, log, no_login, project_messages, track
from training.wandb_results import find_run_id, log_decodings
from utils.locking import sole_writer
from utils.metrics import Score

assert no_login  # a fixture for every test
SEARCH = {"mode": "beam", "beam_size": 8, "rank": "likelihood", "ctc_weight": 0.5, "lm_weight": 0, "length_reward": 0.8}
ROWS = [
    make_row("tune.py", "dev", 9, "best.pt", SEARCH, Score(0.5, 0.05, 0.1), None),
    make_row("test.py", "dev", 9, "best.pt", {**SEARCH, "mode": "greedy"}, Score(0.75, 0.075, 0.2), 1.0),
    make_row("test.py", "test", 9, "best.pt", SEARCH, None, 1.0, "submission.csv"),
]


def test_best_and_last_of_each_partition_with_their_settings(tmp_path):
    tracker, run_id = track(tmp_path, "offline")
    log(tracker, history(3, 2))
    finish(tracker)
    assert find_run_id(tmp_path / "wandb") == run_id
    log_decodings(tmp_path, "an4+1", ROWS, "offline", "project", None)
    import wandb

    wandb.teardown()
    logged = Logged(tmp_path)
    assert {record.run_id for record in logged.of("run")} == {run_id}
    found = {key: value for key, value in logged.summary.items() if key.startswith("decoded")}
    if "decoded" in found:  # as one value, or a value each
        found = {
            f"decoded.{split}.{which}.{key}": value
            for split, both in found["decoded"].items()
            for which, row in both.items()
            for key, value in row.items()
        }
    assert found["decoded.dev.best.distance"] == 0.5
    assert found["decoded.dev.best.settings"] == "beam 8, CTC 0.5, length 0.8"
    assert found["decoded.dev.last.distance"] == 0.75
    assert found["decoded.dev.last.settings"] == "greedy, CTC 0.5"
    assert "decoded.test.last.distance" not in found
    assert found["decoded.test.last.settings"] == "beam 8, CTC 0.5, length 0.8"


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_a_run_that_was_not_tracked_stays_so(mode, tmp_path):
    if mode == "disabled":
        (tmp_path / "wandb" / "run-20260101_000000-abc").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    log_decodings(tmp_path, "name", ROWS, mode, "project", None)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_trains_is_left_alone(tmp_path, caplog):
    (tmp_path / "wandb" / "offline-run-20260101_000000-abc").mkdir(parents=True)
    with sole_writer(tmp_path, "train.py"):
        log_decodings(tmp_path, "name", ROWS, "offline", "project", None)
    assert "another command is at work" in project_messages(caplog)[0]
    assert len(list((tmp_path / "wandb").iterdir())) == 1
