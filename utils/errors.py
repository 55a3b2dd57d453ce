"""What a command may end with that is no bug."""

import signal


class UserError(Exception):
    """Bad input. The message names the file or key, what was found, what was expected and what to do."""


class Stopped(Exception):
    """Somebody asked for it. The message says where things stand; the exit code is that of the signal."""

    def __init__(self, signum: int, message: str):
        super().__init__(f"stopped by {signal.Signals(signum).name} {message}")
        self.exit_code = 128 + signum


class BadFile(Exception):
    """A file that cannot be used: what was found, what was expected."""

    def __init__(self, found: str, expected: str):
        super().__init__(f"found {found}, expected {expected}")
        self.found, self.expected = found, expected
