"""The screen as a person sees it: through a terminal of 80 columns, and through a pipe."""

import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from utils.logging import NO_LABEL, RankFilter, add_log_file, coloured, printable, setup_logging

HOME = Path(__file__).parents[2]
COLUMNS = 80
TALK = """
import logging, sys
from pathlib import Path
from tqdm import tqdm
from training.progress import BAR
from utils.cli import run_command
from utils.errors import UserError
from utils.logging import add_log_file
logger = logging.getLogger("las.somewhere")
def talk():
    add_log_file(Path(sys.argv[1]))
    for index in (bar := tqdm(range(30), "epoch 1/1", bar_format=BAR, dynamic_ncols=True, leave=False, disable=None)):
        bar.set_postfix_str("loss 1.234, distance 12.34, lr 1.0e-03, tf 1.00, |g| 1.23, 123.4 utt/s, waiting 100%")
        bar.refresh()
        if index == 10:
            logger.warning("a word of it")
        if index == 20:
            logger.info("epoch   1: train loss 1.000, best", extra={"highlight": "best"})
    logger.info("done, it was the best")
    raise UserError("no such thing")
run_command(talk)
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
    assert [line[21:] for line in log.read_text().splitlines()] == [*said, "error: no such thing"]

    plain = on_a_terminal([sys.executable, "-c", TALK, str(log)], {**environment, "NO_COLOR": "1"})
    assert screen(plain) == [*said, "error: no such thing"]
    assert "\033[3" not in plain


def test_nothing_but_the_lines_in_a_pipe(tmp_path, environment):
    arguments = [sys.executable, "-c", TALK, str(tmp_path / "train.log")]
    result = subprocess.run(arguments, cwd=HOME, env=environment, capture_output=True, text=True)
    assert result.stdout == "warning: a word of it\nepoch   1: train loss 1.000, best\ndone, it was the best\n"
    assert result.stderr == "error: no such thing\n"


@pytest.fixture
def commands_log(tmp_path):
    """The console's handlers and a log file, as in a command."""
    setup_logging()
    add_log_file(tmp_path / "train.log")
    return tmp_path / "train.log"


def test_levels_choose_label_and_stream(commands_log, capsys):
    logger = logging.getLogger("las.module")
    logger.debug("hidden")
    logger.info("a line")
    logger.warning("careful")
    logger.error("wrong")
    logger.critical("a bug")
    logger.warning("as it stands", extra=NO_LABEL)
    logger.error("stopped by SIGTERM", extra=NO_LABEL)
    out, err = capsys.readouterr()
    assert out == "a line\nwarning: careful\nas it stands\n"
    assert err == "error: wrong\nerror: a bug\nstopped by SIGTERM\n"
    lines = commands_log.read_text().splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  .*", line) for line in lines)
    expected = ["a line", "warning: careful", "error: wrong", "error: a bug", "as it stands", "stopped by SIGTERM"]
    assert [line[21:] for line in lines] == expected


LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


@pytest.mark.parametrize(("rank", "passed"), [(0, LEVELS), (1, LEVELS[3:]), (7, LEVELS[3:])])
def test_the_rank_filter_passes_errors_alone_of_other_ranks(rank, passed):
    records = [logging.LogRecord("las.x", level, "x.py", 1, "text", (), None) for level in LEVELS]
    assert [record.levelno for record in records if RankFilter(rank).filter(record)] == list(passed)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "expected"),
    [
        (Terminal(), {}, "\033[31mwrong\033[0m"),
        (Terminal(), {"NO_COLOR": ""}, "\033[31mwrong\033[0m"),  # empty counts as not set (no-color.org)
        (Terminal(), {"NO_COLOR": "1"}, "wrong"),
        (Terminal(), {"TERM": "dumb"}, "wrong"),
        (io.StringIO(), {}, "wrong"),
    ],
)
def test_colours_are_for_terminals_that_have_them(monkeypatch, stream, variables, expected):
    for name, value in {"NO_COLOR": None, "TERM": "xterm", **variables}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert coloured("wrong", "red", stream) == expected


def test_what_an_encoding_cannot_express_is_escaped():
    assert printable("café 한 \udce9") == "café 한 \\udce9"
    assert printable("café 한 \udce9", "latin-1") == "café \\ud55c \\udce9"
    assert printable("café", "ascii") == "caf\\xe9"


def test_a_swallowed_exception_is_a_line_on_the_console_and_a_traceback_in_the_file(commands_log, capsys):
    try:
        raise KeyError("inner")
    except KeyError:
        logging.getLogger("las.module").warning("report.html: cannot be written", exc_info=True)
    assert capsys.readouterr().out == "warning: report.html: cannot be written\n"
    logged = commands_log.read_text()
    assert "Traceback (most recent call last):" in logged
    assert "KeyError: 'inner'" in logged


@pytest.mark.parametrize(("rank", "said"), [("0", ["info", "warning", "error"]), ("1", ["error"])])
def test_other_ranks_say_errors_alone(monkeypatch, tmp_path, capsys, rank, said):
    monkeypatch.setenv("RANK", rank)
    setup_logging()
    add_log_file(tmp_path / "train.log")
    for level in ("info", "warning", "error"):
        getattr(logging.getLogger("las.module"), level)(level)
    out, err = capsys.readouterr()
    assert [line.split(": ")[-1] for line in (out + err).splitlines()] == said
    assert len((tmp_path / "train.log").read_text().splitlines()) == len(said)


def test_other_libraries_are_not_echoed(commands_log, capsys):
    logging.getLogger("somebody.else").warning("noise")
    assert "noise" not in capsys.readouterr().out
    assert "noise" not in commands_log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_on_a_full_disk_does_not_stop_the_run(tmp_path, capsys):
    setup_logging()
    (tmp_path / "train.log").symlink_to("/dev/full")
    add_log_file(tmp_path / "train.log")
    logging.getLogger("las.module").info("a line")
    out, err = capsys.readouterr()
    assert (out, err) == ("a line\n", "")
    setup_logging()  # as the next command does


def test_a_command_that_sets_up_again_closes_its_files(commands_log):
    setup_logging()
    logging.getLogger("las.module").info("later")
    assert "later" not in commands_log.read_text()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp949"])
def test_characters_that_a_console_cannot_show(encoding):
    code = "from utils.logging import setup_logging; import logging; setup_logging(); "
    code += "logging.getLogger('las.x').info('caf\\u00e9 \\ud55c \\udce9')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run([sys.executable, "-c", code], cwd=HOME, env=environment, capture_output=True)
    assert result.returncode == 0
    assert result.stderr == b""
    assert result.stdout.startswith(b"caf")
    assert b"\\udce9" in result.stdout


def test_a_second_run_in_the_same_process_has_a_log_of_its_own(tmp_path):
    """Without a command around it, as in a notebook."""
    logging.getLogger("las").setLevel(logging.NOTSET)
    for name in ("first", "second"):
        add_log_file(tmp_path / name)
        logging.getLogger("las.test").info(name)
    for name in ("first", "second"):
        assert (tmp_path / name).read_text(encoding="utf-8").endswith(f"  {name}\n")
        assert len((tmp_path / name).read_text(encoding="utf-8").splitlines()) == 1


LOST = """
import logging, sys
from pathlib import Path
from tqdm import tqdm
from utils.cli import run_command
from utils.logging import add_log_file
def talk():
    add_log_file(Path(sys.argv[1]))
    for index in tqdm(range(2000), disable=False):
        logging.getLogger("las.somewhere").info(f"line {index} " + "x" * 100)
run_command(talk)
"""


@pytest.mark.parametrize("how", ["| head -2", ">&- 2>&-", "2>&1 | true"])
def test_where_its_output_goes_away_a_command_goes_on_and_its_log_has_all(tmp_path, how):
    log = tmp_path / "train.log"
    script = f"set -o pipefail; {sys.executable} -c '{LOST}' {log} {how}"
    result = subprocess.run(["bash", "-c", script], cwd=HOME, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Error" not in result.stderr
    assert log.read_text().count("line ") == 2000
