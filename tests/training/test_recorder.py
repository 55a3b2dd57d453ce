"""What the recorder writes and logs of an epoch, with a tracker and a report that only take notes."""

from pathlib import Path

import pandas as pd
import pytest

from training.diagnosis import PATIENCE
from training.evaluate import Evaluation, Prediction
from training.recorder import LISTED, Recorder, open_run_folder
from utils.errors import UserError
from utils.files import parse_yaml

EVALUATION = Evaluation({}, [], [Prediction(f"u{index}", "A", "B", 1) for index in range(LISTED + 5)])


def row(epoch: int, distance: float = 1.0, monotonicity: float = 0.9) -> dict:
    return {
        "epoch": epoch,
        "train_loss": 1.0,
        "dev_loss": 2.0,
        "dev_distance": distance,
        "dev_cer": 0.5,
        "dev_monotonicity": monotonicity,
        "seconds": 3.0,
    }


class Notes:
    """A tracker and a report at once."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, []

    def picture(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.png"

    def start(self) -> str:
        self.calls.append(("start",))
        return "abc123"

    def add_epoch(self, row, evaluation, is_best) -> None:
        assert (self.folder / "metrics.csv").exists()  # the page shows it
        self.calls.append(("add_epoch", row["epoch"], is_best))

    first_and_best = Path("pair.png")

    def log(self, history, best, picture, predictions, pair) -> None:
        self.calls.append(("log", len(history), best["epoch"], picture(7).name, len(predictions), pair and pair.name))

    def complete(self) -> None:
        self.calls.append(("complete",))

    def log_model(self, path, best) -> None:
        self.calls.append(("log_model", path.name, best["epoch"]))

    def finish(self) -> None:
        self.calls.append(("finish",))


def make(folder: Path, ctc_epochs: int = 0, active: bool = True) -> tuple[Recorder, Notes]:
    notes = Notes(folder)
    return Recorder(folder, notes, notes, ctc_epochs, active), notes


def test_an_epoch_is_recorded_everywhere(tmp_path):
    recorder, notes = make(tmp_path)
    assert recorder.start() == "abc123"
    history = [row(1, 3.0)]
    recorder.record(history, history[0], EVALUATION)
    history.append({**row(2, 4.123456789), "new": 1})
    recorder.record(history, history[0], EVALUATION)
    recorder.finish(history[0])
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2]
    assert metrics["dev_distance"].tolist() == [3.0, 4.12346]
    assert metrics["new"].isna().tolist() == [True, False]
    assert notes.calls == [
        ("start",),
        *(("add_epoch", 1, True), ("log", 1, 1, "7.png", LISTED, "pair.png")),
        *(("add_epoch", 2, False), ("log", 2, 1, "7.png", LISTED, None)),
        *(("complete",), ("log_model", "best.pt", 1), ("finish",)),
    ]


def test_recording_an_epoch_again_changes_nothing(tmp_path):
    recorder, _ = make(tmp_path)
    history = [row(1)]
    recorder.record(history, history[0], EVALUATION)
    content = (tmp_path / "metrics.csv").read_bytes()
    recorder.record(history, history[0], EVALUATION)
    assert (tmp_path / "metrics.csv").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_other_ranks_write_nothing(tmp_path):
    recorder, notes = make(tmp_path, active=False)
    assert recorder.start() is None
    recorder.write_settings({"a": 1}, {"b": "2"})
    recorder.record([row(1)], row(1), EVALUATION)
    recorder.finish(row(1))
    assert notes.calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_an_epoch_has_no_model_to_log(tmp_path):
    recorder, notes = make(tmp_path)
    recorder.finish(None)
    assert notes.calls == [("finish",)]


def test_settings_and_environment(tmp_path):
    recorder, _ = make(tmp_path)
    recorder.write_settings({"training": {"learning_rate": 1e-5}, "run": {"name": "ü"}}, {"torch": "2.11"})
    settings = parse_yaml((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert settings == {"training": {"learning_rate": 1e-5}, "run": {"name": "ü"}}
    assert parse_yaml((tmp_path / "environment.yaml").read_text()) == {"torch": "2.11"}


def test_an_epoch_is_announced_in_a_line(tmp_path, caplog):
    recorder, _ = make(tmp_path)
    recorder.announce(row(3), is_best=False)
    recorder.announce({**row(4), "dev_ctc_distance": 1.5}, is_best=True)
    line = "epoch   {}: train loss 1.000, dev loss 2.000, distance 1.00{}, CER 50.0%, monotonicity 0.90, 3 s"
    assert caplog.messages == [line.format(3, ""), line.format(4, " (CTC alone 1.50)") + ", best"]
    assert [record.highlight for record in caplog.records] == ["", "best"]


@pytest.mark.parametrize("ctc_epochs", [0, 3])
def test_a_run_that_is_stuck_is_diagnosed_every_few_epochs(ctc_epochs, tmp_path, caplog):
    """Counted from the first epoch that trains the Speller."""
    recorder, _ = make(tmp_path, ctc_epochs)
    for epoch in range(1, 2 * PATIENCE + 4):
        recorder.announce(row(epoch, monotonicity=0.1), is_best=False)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    epochs = [ctc_epochs + PATIENCE, ctc_epochs + 2 * PATIENCE]
    assert [line.partition(":")[0] for line in warnings] == [f"not aligned after {epoch} epochs" for epoch in epochs]


def test_a_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.dir: cannot write into .*file/a"):
        open_run_folder(tmp_path / "file" / "a")
    (tmp_path / "run" / "train.log").mkdir(parents=True)
    with pytest.raises(UserError, match=r"run\.dir: cannot write into .*run \("):
        open_run_folder(tmp_path / "run")
