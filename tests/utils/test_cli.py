import errno
import re

import pytest

from config import DEFAULTS, known_keys
from utils.cli import describe_command, describe_keys, run_command
from utils.errors import Interrupted, UserError


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


def test_every_key_is_described():
    described = describe_keys(DEFAULTS)
    for key in known_keys():
        assert f"  {key}=" in described, key
    assert max(map(len, described.splitlines())) <= 80
    sections = [line for line in described.splitlines()[1:] if re.fullmatch(r"\w+:", line)]
    assert sections == ["run:", "data:", "augment:", "model:", "training:", "decoding:", "wandb:", "test:"]
    assert "  training.epochs=100               passes over the training partitions\n" in described
    entries = re.split(r"^  (?=\w+\.)", described, flags=re.M)[1:]
    assert len(entries) == len(known_keys())
    for entry in entries:
        meaning = " ".join(line[36:] for line in entry.splitlines()).strip()
        assert len(meaning) > 5, entry


def test_a_commands_examples_below_one_another():
    docstring = "Trains a model.\n\npython train.py     # with defaults\npython train.py a=1 # no example\n"
    assert describe_command(docstring) == (
        "Trains a model.\n\n  python train.py\n      with defaults\npython train.py a=1 # no example"
    )
