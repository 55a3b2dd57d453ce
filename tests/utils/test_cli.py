"""How commands end, and the text of their --help."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import config
from config import DEFAULTS, help_on_keys, known_keys, load_config
from utils.cli import describe_command, run_command
from utils.errors import Interrupted, UserError
from utils.files import parse_yaml
from utils.logging import add_log_file

HOME = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("config.yaml: no"), 2, "error: config.yaml: no"),
        (
            OSError(errno.ENOSPC, "No space left", "runs/a/last.pt"),
            2,
            "'runs/a/last.pt'; what was written is whole",
        ),
        (Interrupted(15, "in epoch 3; go on"), 143, "stopped by SIGTERM in epoch 3; go on"),
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


def test_bugs_are_in_the_log_with_their_traceback(tmp_path, capsys):
    def main():
        add_log_file(tmp_path / "train.log")
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run_command(main)
    logged = (tmp_path / "train.log").read_text()
    assert "this is a bug" in logged
    assert "KeyError: 'a bug'" in logged
    assert "Traceback" in logged
    assert "Traceback" not in capsys.readouterr().err  # Python writes it there


@pytest.mark.parametrize(
    "error",
    [
        UserError("data.root: no"),
        UserError("a worker's traceback\nutils.errors.UserError: data.root: no"),
        OSError(errno.ENOSPC, "No space left", "runs/a/last.pt"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),  # the same, before torch has noticed
        Interrupted(15, "in epoch 3; go on"),
        KeyboardInterrupt(),
    ],
)
def test_what_ends_a_command_is_in_its_log(error, tmp_path, capsys):
    def main():
        add_log_file(tmp_path / "train.log")
        raise error

    with pytest.raises(SystemExit):
        run_command(main)
    shown = capsys.readouterr().err
    logged = (tmp_path / "train.log").read_text()
    assert shown.strip().removeprefix("error: ") in logged
    assert "Traceback" not in logged
    assert "a worker's traceback" not in shown


def test_a_command_returns_what_its_function_does():
    assert run_command(lambda: 7) == 7


# --------------------------------------------------------------------------------------------------------------- help


def check_help(text: str) -> None:
    """That it has every key once, in sections."""
    for key in known_keys():
        assert len(re.findall(rf"^  {re.escape(key)}=", text, re.M)) == 1, key
    sections = [line for line in text.splitlines()[1:] if re.fullmatch(r"\w+:", line)]
    assert sections == ["run:", "data:", "augment:", "model:", "training:", "decoding:", "wandb:", "test:"]


def test_every_key_is_described():
    described = help_on_keys()
    check_help(described)
    assert max(map(len, described.splitlines())) <= 80
    assert "  training.epochs=100               passes over the training partitions\n" in described
    assert "  model.listener.conv=[{channels: 256, kernel: 3, stride: 2}]\n" in described
    entries = re.split(r"^  (?=\w+\.)", described, flags=re.M)[1:]
    assert len(entries) == len(known_keys())
    for entry in entries:
        meaning = " ".join(line[36:] for line in entry.splitlines()).strip()
        assert len(meaning) > 5, entry


LINES = DEFAULTS.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Replaces config.yaml by a text, as a user edits it, and returns what --help says of the keys."""

    def edit(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(config, "DEFAULTS", path)
        before = load_config(DEFAULTS)
        assert load_config(path) == before
        described = help_on_keys()
        check_help(described)
        return described

    return edit


@pytest.mark.parametrize("number", [number for number, line in enumerate(LINES) if "#" in line])
def test_any_comment_may_go(edited, number):
    lines = [*LINES]
    lines[number] = lines[number].partition("#")[0].rstrip()
    edited("\n".join(lines))


def test_all_comments_may_go_and_any_style_and_order_may_come(edited):
    settings = parse_yaml("\n".join(LINES))
    edited("\n".join(line.partition("#")[0].rstrip() for line in LINES))
    edited(yaml.dump(settings, default_flow_style=False))  # lists in block style, keys in another order
    edited(yaml.dump(settings, default_flow_style=True))
    edited(yaml.dump(dict(reversed(settings.items())), sort_keys=False, indent=7))


def test_comments_of_lists_in_block_style_and_of_quoted_values(edited):
    text = "\n".join(LINES)
    text = text.replace("  train: [train-clean-100]  ", "  train:  # what to learn from\n    - train-clean-100\n   ", 1)
    text = text.replace("  dev: dev-clean  ", '  dev: "dev-clean"  # a # in quotes\n   ', 1)
    described = edited(text)
    assert "  data.train=[train-clean-100]      what to learn from\n" in described
    assert "  data.dev=dev-clean                a # in quotes\n" in described


def test_keys_that_are_missing_are_said_to_be(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(line for line in LINES if "weight_decay" not in line), encoding="utf-8")
    monkeypatch.setattr(config, "DEFAULTS", path)
    described = help_on_keys()
    check_help(described)
    assert "  training.weight_decay=            (missing in config.yaml)" in described


def test_a_file_that_is_no_configuration_is_a_message(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    monkeypatch.setattr(config, "DEFAULTS", path)
    for content in ("a: [", "- 1", "training: 3", "trainig: {}"):
        path.write_text(content)
        with pytest.raises(UserError, match=re.escape(str(path))):
            help_on_keys()


WATCH = """
import atexit, runpy, sys
HEAVY = ("torch", "torchaudio", "pandas", "matplotlib", "wandb", "numpy")
atexit.register(lambda: print("imported:", *(name for name in HEAVY if name in sys.modules)))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            f"{command} {argument}"
            for command in ("train.py", "test.py", "tune.py")
            for argument in ("--help", "a.b=3")
        ),
        "train.py training.epoch=3",
        "test.py --beam",
        "train.py training.epochs=x",
        "report/__main__.py nowhere",
    ],
)
def test_nothing_heavy_is_imported_before_arguments_are_valid(arguments):
    command = [sys.executable, "-c", WATCH, *arguments.split()]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    result = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True)
    assert result.returncode == (0 if "--help" in arguments else 2)
    assert result.stdout.splitlines()[-1].strip() == "imported:"
    assert "Traceback" not in result.stderr


def test_a_commands_examples_below_one_another():
    docstring = "Trains a model.\n\npython train.py     # with defaults\npython train.py a=1 # no example\n"
    assert describe_command(docstring) == (
        "Trains a model.\n\n  python train.py\n      with defaults\npython train.py a=1 # no example"
    )
