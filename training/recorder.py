"""Everything that people look at after an epoch: metrics.csv, attention maps, the report, wandb, a line in the log."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from training.diagnosis import PATIENCE, diagnose
from training.evaluate import Evaluation
from training.progress import describe_epoch
from training.wandb_tracker import WandbTracker
from utils.errors import UserError
from utils.files import atomic_write, make_folders, to_yaml
from utils.logging import add_log_file
from utils.vocabulary import KAGGLE, Vocabulary, format_vocabulary

LOG = "train.log"  # in a run's folder
LISTED = 24  # dev utterances in wandb's table of predictions

logger = logging.getLogger(f"las.{__name__}")


class Report(Protocol):
    """What the recorder needs of a run's pictures and page (report.build.RunReport)."""

    def add_epoch(self, row: dict[str, Any], evaluation: Evaluation, is_best: bool) -> None: ...

    def complete(self) -> None: ...

    def picture(self, epoch: int) -> Path: ...

    @property
    def first_and_best(self) -> Path: ...


class Recorder:
    """Writes what people look at. Only rank 0 does; on other ranks every call does nothing.

    Recording an epoch again, as a run does that was killed before its checkpoint, changes nothing.

    Args:
        folder: of the run.
        tracker: the wandb run.
        report: the pictures and the page.
        ctc_epochs: first epochs that train the Listener alone, whose alignment is not diagnosed.
        active: whether this is rank 0.
    """

    def __init__(self, folder: Path, tracker: WandbTracker, report: Report, ctc_epochs: int, active: bool):
        self.folder, self.tracker, self.report = folder, tracker, report
        self.ctc_epochs, self.active = ctc_epochs, active

    def write_settings(self, settings: dict[str, Any], info: dict[str, str], vocabulary: Vocabulary = KAGGLE) -> None:
        """config.yaml: the settings as they were resolved; environment.yaml: machine, model and data.

        Where the vocabulary is not Kaggle's, vocabulary.txt, which data.vocabulary of another run can name.
        """
        if not self.active:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {"config.yaml": to_yaml(settings), "environment.yaml": to_yaml(info)}
        if vocabulary.tokens != KAGGLE.tokens:
            files["vocabulary.txt"] = format_vocabulary(vocabulary)
        for name, content in files.items():
            with atomic_write(self.folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8", newline="\n")

    def start(self) -> str | None:
        """Starts or resumes the wandb run and returns its id, if there is one."""
        return self.tracker.start() if self.active else None

    def record(self, history: Sequence[dict[str, Any]], best: dict[str, Any], evaluation: Evaluation) -> None:
        """Records the last epoch of `history`; `best` is the row of the best epoch in it."""
        if not self.active:
            return
        with atomic_write(self.folder / "metrics.csv") as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False, float_format="%.6g")
        self.report.add_epoch(history[-1], evaluation, best is history[-1])
        pair = self.report.first_and_best if best is history[-1] else None
        self.tracker.log(history, best, self.report.picture, evaluation.predictions[:LISTED], pair)

    def announce(self, row: dict[str, Any], is_best: bool) -> None:
        """Logs an epoch that is recorded and saved, and, every few epochs, what is wrong with the run."""
        best = "best" if is_best else ""
        logger.info(describe_epoch(row) + (f", {best}" if best else ""), extra={"highlight": best})
        spelling = row["epoch"] - self.ctc_epochs
        if spelling > 0 and spelling % PATIENCE == 0:
            for problem in diagnose(row, row["epoch"]):
                logger.warning(problem)

    def finish(self, best: dict[str, Any] | None) -> None:
        """Completes the page and hands the best checkpoint to wandb, if there is one, and ends its run."""
        if not self.active:
            return
        if best is not None:
            self.report.complete()
            self.tracker.log_model(self.folder / "best.pt", best)
        self.tracker.finish()


def open_run_folder(folder: Path) -> list[Path]:
    """Makes the folder of a run and logs to its train.log from here on; returns the folders that were not there before.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        made = make_folders(folder)
        add_log_file(folder / LOG)
    except OSError as error:
        raise UserError(f"run.dir: cannot write into {folder} ({error})") from None
    return made
