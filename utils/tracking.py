"""Weights & Biases, on terms a training can live with: it never asks a question and never fails the run."""

import netrc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

INIT_TIMEOUT = 30  # seconds to wait for a server before going on offline


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

    mode: auto (online where logged in, else offline), online, offline, disabled.
    run_id: id of the run to go on with, or None for a new one.   say: gets a line about what was decided.
    """

    def __init__(
        self,
        mode: str,
        project: str,
        name: str,
        folder: Path,
        settings: dict,
        run_id: str | None,
        say: Callable[[str], None],
    ):
        self.run, self.say, self.failed = None, say, False
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
        if mode == "online" and not logged_in():
            say("wandb: not logged in (wandb login); going on offline")  # wandb would stop and ask
            mode = "offline"
        for attempt in (mode, "offline"):
            try:
                self.run = wandb.init(
                    project=project,
                    name=name,
                    dir=str(folder),
                    config=settings,
                    id=run_id,
                    resume="allow",
                    mode=attempt,
                    settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT),
                )
                break
            except Exception as error:
                if attempt == "offline":
                    self._give_up(error)
                    return
                say(f"wandb: cannot go online ({_first_line(error)}); going on offline")
        where = f"{self.run.url}" if attempt == "online" else f"{self.run.settings.mode}, kept in {folder / 'wandb'}"
        say(f"wandb: {where}")

    @property
    def run_id(self) -> str | None:
        return self.run.id if self.run else None

    def log(
        self,
        epoch: int,
        metrics: dict[str, float],
        maps: Path | None = None,
        predictions: Sequence[tuple[str, str, str, int]] = (),
        summary: dict[str, float] | None = None,
    ) -> None:
        """An epoch: curves, the picture of its attention maps, `(id, reference, hypothesis, distance)` rows."""
        if self.run is None:
            return
        try:
            values = dict(metrics)
            if maps is not None:
                values["attention"] = self.wandb.Image(str(maps), caption=f"epoch {epoch}")
            if predictions:
                columns = ["id", "reference", "hypothesis", "distance"]
                values["predictions"] = self.wandb.Table(columns=columns, data=[list(row) for row in predictions])
            self.run.log(values, step=epoch)
            self.run.summary.update(summary or {})
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
