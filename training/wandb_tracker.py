"""Weights & Biases, on terms a training can live with: it never asks a question and never fails the run."""

import logging
import math
import netrc
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from training.wandb_history import what_was_logged

INIT_TIMEOUT = 30  # seconds to wait for a server before going on offline
FLUSH_SETTING = "x_transaction_log_flush_interval"  # of wandb 0.31; versions before it refuse it
FLUSH_SECONDS = 1.0  # what a killed run loses of its file; wandb's own 15 s are several epochs of a small run
MINIMA = ("dev_distance", "dev_cer", "dev_wer")  # of these a summary keeps the least, not the last

logger = logging.getLogger(f"las.{__name__}")


def logged_in() -> bool:
    """Whether wandb would find credentials without asking: in the environment or in a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if name and netrc.netrc(os.path.expanduser(name)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


class WandbTracker:
    """One wandb run; with mode `disabled`, or once wandb has failed, every call does nothing.

    Args:
        folder: of the run; wandb's files go below it.
        name: of the run.
        settings: the run's configuration, for wandb's table.
        run_id: id of the wandb run to resume, or None for a new one.
        mode: auto (online if logged in, else offline), online, offline, disabled.
        project: name of the wandb project.
        group: of runs that belong together, or None.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        settings: dict[str, Any],
        run_id: str | None,
        mode: str,
        project: str,
        group: str | None,
    ):
        self.folder, self.name, self.settings, self.mode = folder, name, settings, mode
        self.project, self.group = project, group
        self._resumed_id, self.failed = run_id, False
        self.run: Any = None  # wandb.Run
        self.wandb: Any = None  # the module
        self.logged: set[int] = set()  # epochs that the wandb run has
        self.model_distance = math.inf  # dev distance of the best checkpoint that it has

    def start(self) -> str | None:
        """Starts or resumes the wandb run and returns its id, or None if there is none."""
        mode = self.mode
        if mode == "disabled":
            return None
        try:
            import wandb  # takes seconds, and is not needed when disabled
        except Exception as error:
            self._give_up(error)
            return None
        self.wandb = wandb
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # wandb's telemetry, which warns at exit
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
            if mode == "disabled":
                return None
        if mode == "online" and not logged_in():
            logger.info("wandb: not logged in (wandb login); going on offline")  # wandb would stop and ask
            mode = "offline"
        try:
            self.run = self._init(mode)
            self._define_metrics()
        except Exception as error:
            self._give_up(error)
            return None
        kept = self.folder / "wandb"
        upload = f"offline, kept in {kept}; to upload it: wandb sync {kept}/offline-run-*"
        logger.info(f"wandb: {self.run.url if self._online else upload}")
        return self.run.id

    def _init(self, mode: str) -> Any:
        """The run in that mode, or offline if wandb cannot go online."""
        # Media and models that wait for an upload: with the run, not in the home directory.
        os.environ.setdefault("WANDB_DATA_DIR", str((self.folder / "wandb").resolve()))
        settings = self.wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT)
        current = hasattr(settings, FLUSH_SETTING)
        if current:
            setattr(settings, FLUSH_SETTING, FLUSH_SECONDS)
        arguments = {
            "project": self.project,
            "group": self.group,
            "job_type": "train",
            "name": self.name,
            "dir": str(self.folder),
            "config": self.settings,
            "id": self._resumed_id,
            "settings": settings,
        }
        offline = {"mode": "offline", "resume": "allow" if current else None}  # before: no effect, a warning
        try:
            return self.wandb.init(**(offline if mode == "offline" else {"mode": mode, "resume": "allow"}), **arguments)
        except Exception as error:
            if mode == "offline":
                raise
            logger.info(f"wandb: cannot go online ({_first_line(error)}); going on offline")
            return self.wandb.init(**offline, **arguments)

    def _define_metrics(self) -> None:
        """Curves over epochs, minima in the summary; finds out what a resumed run has already."""
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")
        for name in MINIMA:
            self.run.define_metric(name, step_metric="epoch", summary="min")
        self.logged, self.model_distance = what_was_logged(self.folder / "wandb", self.run.id)
        if self._online:
            self.logged = set(range(self.run.starting_step))  # the server knows better

    @property
    def _online(self) -> bool:
        return self.run.settings.mode == "online"

    def log(
        self,
        history: Sequence[dict],
        best: dict,
        picture: Callable[[int], Path] | None = None,
        predictions: Sequence[tuple[str, str, str, int]] = (),
        first_and_best: Path | None = None,
    ) -> None:
        """Logs the epochs that the wandb run does not have yet: the last one, and those that a killed run lost.

        Args:
            history: metrics of each epoch.
            best: the row of the best epoch.
            picture: path of an epoch's attention maps.
            predictions: of the last epoch.
            first_and_best: picture of the first epoch's attention beside the last one's, if that is the best.
        """
        if self.run is None:
            return
        try:
            for row in history:
                epoch = row["epoch"]
                if epoch in self.logged:
                    continue
                values = dict(row)
                if picture is not None and picture(epoch).exists():
                    # The same key at every step: wandb shows one picture and a slider through the steps.
                    caption = f"epoch {epoch}, distance {row['dev_distance']:.2f}"
                    values["attention"] = self.wandb.Image(str(picture(epoch)), caption=caption)
                if first_and_best is not None and first_and_best.exists() and row is history[-1]:
                    values["attention_first_and_best"] = self.wandb.Image(str(first_and_best))
                if predictions and row is history[-1]:
                    columns = ["id", "reference", "hypothesis", "distance"]
                    values["predictions"] = self.wandb.Table(columns=columns, data=[list(row) for row in predictions])
                self.run.log(values, step=epoch, commit=True)  # else it would wait for the next epoch
                self.logged.add(epoch)
            summary = {"best_dev_distance": best["dev_distance"], "best_epoch": best["epoch"]}
            # wandb's own minimum forgets what was before a run was resumed.
            summary |= {name: {"min": min(row[name] for row in history)} for name in MINIMA if name in best}
            self.run.summary.update(summary)
        except Exception as error:
            self._give_up(error)

    def summarise(self, values: dict[str, Any]) -> None:
        """Adds to the summary of the run."""
        if self.run is None:
            return
        try:
            self.run.summary.update(values)
        except Exception as error:
            self._give_up(error)

    def log_model(self, path: Path, best: dict) -> None:
        """Logs the checkpoint `path` as an artifact, if its epoch `best` is better than those logged before."""
        if self.run is None or best["dev_distance"] >= self.model_distance:
            return
        try:
            name = re.sub(r"[^A-Za-z0-9_.-]", "-", self.name)
            metadata = {key: best[key] for key in ("epoch", *MINIMA) if key in best}
            artifact = self.wandb.Artifact(name, type="model", metadata=metadata)
            artifact.add_file(str(path), skip_cache=True)
            self.run.log_artifact(artifact, aliases=["best"])
            self.model_distance = best["dev_distance"]
        except Exception as error:
            self._give_up(error)

    def finish(self) -> None:
        """Ends the wandb run, and stops wandb from complaining at the exit of Python if it has failed."""
        try:
            if self.run is not None:
                self.run.finish()
        except Exception as error:
            self._give_up(error)
        if self.failed:
            with suppress(Exception):
                self.wandb.teardown()

    def _give_up(self, error: Exception) -> None:
        self.run, self.failed = None, True
        logger.warning(
            f"wandb: failed ({_first_line(error)}); training goes on without it, metrics.csv has everything",
            exc_info=error,
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
