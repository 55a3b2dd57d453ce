import errno

import pytest

from utils.cli import run_command
from utils.errors import Stopped, UserError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("config.yaml: no"), 2, "error: config.yaml: no"),
        (
            OSError(errno.ENOSPC, "No space left", "runs/a/last.pt"),
            2,
            "'runs/a/last.pt'; what was written is whole",
        ),
        (Stopped(15, "in epoch 3; go on"), 143, "stopped by SIGTERM in epoch 3; go on"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_ends_a_command_is_one_message_and_an_exit_code(error, code, said, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == code
    assert said in capsys.readouterr().err


def test_bugs_keep_their_traceback():
    def main():
        raise OSError(errno.EPIPE, "a bug")

    with pytest.raises(OSError, match="a bug"):
        run_command(main)
