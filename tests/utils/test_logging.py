"""The screen as a person sees it: through a terminal of 80 columns, and through a pipe."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
COLUMNS = 80
TALK = """
import sys
from pathlib import Path
from tqdm import tqdm
from train import BAR
from utils.cli import run_command
from utils.errors import UserError
from utils.logging import make_logger
say = make_logger(Path(sys.argv[1])).info
for index in (bar := tqdm(range(30), "epoch 1/1", bar_format=BAR, dynamic_ncols=True, leave=False, disable=None)):
    bar.set_postfix_str("loss 1.234, distance 12.34, lr 1.0e-03, tf 1.00, |g| 1.23, 123.4 utt/s, waiting 100%")
    bar.refresh()
    if index == 10:
        say("warning: a word of it")
    if index == 20:
        say("epoch   1: train loss 1.000, best")
say("done, it was the best")
def fail():
    raise UserError("no such thing")
run_command(fail)
"""


def on_a_terminal(arguments, environment):
    """All that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        arguments, cwd=HOME, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # how a terminal ends on Linux
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    assert process.wait() == 2
    return written.decode()


def screen(written):
    """The lines that are left on the screen: a carriage return goes back, what follows writes over what was there."""
    lines = []
    for line in re.sub(r"\x1b\[\d*m", "", written).replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            assert len(part) <= COLUMNS, part  # or it would run on into another line
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return [line for line in lines if line]


@pytest.fixture
def environment():
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**kept, "TERM": "xterm-256color"}


def test_lines_bar_and_colours_on_a_terminal(tmp_path, environment):
    log = tmp_path / "train.log"
    written = on_a_terminal([sys.executable, "-c", TALK, str(log)], environment)
    said = ["warning: a word of it", "epoch   1: train loss 1.000, best", "done, it was the best"]
    assert screen(written) == [*said, "error: no such thing"]
    assert "epoch 1/1" in written
    assert "loss 1.234, distance" in written
    assert "\033[33mwarning: a word of it\033[0m" in written
    assert "1.000, \033[32mbest\033[0m" in written
    assert "\033[31merror:\033[0m no such thing" in written
    assert written.count("\033[0m") == 3
    assert [line[21:] for line in log.read_text().splitlines()] == said

    plain = on_a_terminal([sys.executable, "-c", TALK, str(log)], {**environment, "NO_COLOR": "1"})
    assert screen(plain) == [*said, "error: no such thing"]
    assert "\033[3" not in plain


def test_nothing_but_the_lines_in_a_pipe(tmp_path, environment):
    arguments = [sys.executable, "-c", TALK, str(tmp_path / "train.log")]
    result = subprocess.run(arguments, cwd=HOME, env=environment, capture_output=True, text=True)
    assert result.stdout == "warning: a word of it\nepoch   1: train loss 1.000, best\ndone, it was the best\n"
    assert result.stderr == "error: no such thing\n"
