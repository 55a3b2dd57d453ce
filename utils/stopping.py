"""Ctrl-C and SIGTERM as a request: the batch at hand is finished and all that was computed saved."""

import signal
from types import FrameType


class Stopped(Exception):
    """Somebody asked for it. The message says where things stand; the exit code is that of the signal."""

    def __init__(self, signum: int, message: str):
        super().__init__(f"stopped by {signal.Signals(signum).name} {message}")
        self.exit_code = 128 + signum


class StopRequest:
    """Within its context, `signum` is the signal that has come, 0 before. A second one stops the process at once."""

    def __init__(self):
        self.signum = 0
        self._before = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self.__exit__()
