"""Weights & Biases, on terms a training can live with: it never asks a question and never fails the run."""

import netrc
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

from training.wandb_history import what_was_logged

INIT_TIMEOUT = 30  # seconds to wait for a server before going on offline
FLUSH_SECONDS = 1.0  # what a killed run loses of its file; wandb's own 15 s are several epochs of a small run
MINIMA = ("dev_distance", "dev_cer", "dev_wer")  # of these a summary keeps the least, not the last


def logged_in() -> bool:
    """Whether wandb would find credentials without asking: in the environment or in a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if name and netrc.netrc(os.path.expanduser(name)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


class Tracker:
    """One wandb run; with mode `disabled`, or once wandb has failed, every call does nothing.

    mode: auto (online where logged in, else offline), online, offline, disabled.   group: runs that belong together.
    run_id: id of the run to go on with, or None for a new one.   say: gets a line about what was decided.
    """

    def __init__(
        self,
        mode: str,
        project: str,
        group: str | None,
        name: str,
        folder: Path,
        settings: dict,
        run_id: str | None,
        say: Callable[[str], None],
    ):
        self.run, self.say, self.name, self.failed = None, say, name, False
        if mode == "disabled":
            return
        try:
            import wandb  # takes seconds, and is not needed when disabled
        except Exception as error:
            self._give_up(error)
            return
        self.wandb = wandb
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
            if mode == "disabled":
                return
        if mode == "online" and not logged_in():
            say("wandb: not logged in (wandb login); going on offline")  # wandb would stop and ask
            mode = "offline"
        # Media and models that wait for an upload: with the run, not in the home directory.
        os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb").resolve()))
        for attempt in (mode, "offline"):
            try:
                self.run = wandb.init(
                    project=project,
                    group=group,
                    job_type="train",
                    name=name,
                    dir=str(folder),
                    config=settings,
                    id=run_id,
                    resume="allow",
                    mode=attempt,
                    settings=wandb.Settings(
                        silent=True,
                        console="off",
                        init_timeout=INIT_TIMEOUT,
                        x_transaction_log_flush_interval=FLUSH_SECONDS,
                    ),
                )
                break
            except Exception as error:
                if attempt == "offline":
                    self._give_up(error)
                    return
                say(f"wandb: cannot go online ({_first_line(error)}); going on offline")
        offline = self.run.settings.mode != "online"
        try:
            self.run.define_metric("epoch", hidden=True)
            self.run.define_metric("*", step_metric="epoch")
            for name in MINIMA:
                self.run.define_metric(name, step_metric="epoch", summary="min")
            self.logged, self.model_distance = what_was_logged(folder / "wandb", self.run.id)
            if not offline:
                self.logged = set(range(self.run.starting_step))  # the server knows better
        except Exception as error:
            self._give_up(error)
            return
        upload = f"offline, kept in {folder / 'wandb'}; to upload it: wandb sync {folder / 'wandb'}/offline-run-*"
        say(f"wandb: {upload if offline else self.run.url}")

    @property
    def run_id(self) -> str | None:
        return self.run.id if self.run else None

    def log(
        self,
        history: Sequence[dict],
        best: dict,
        picture: Callable[[int], Path] | None = None,
        predictions: Sequence[tuple[str, str, str, int]] = (),
    ) -> None:
        """The epochs of `history` that the run does not have yet, by `epoch`: the last, and what a killed run lost.

        best: one of them.   picture: where an epoch's attention maps are.   predictions: of the last epoch,
        `(id, reference, hypothesis, distance)` rows.
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

    def log_model(self, path: Path, best: dict) -> None:
        """The checkpoint `path` as an artifact of the run, if it is better than those logged before."""
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
        """Whatever became of wandb: it shall not complain when Python ends."""
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
        self.say(f"wandb: failed ({_first_line(error)}); training goes on without it, metrics.csv has everything")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
