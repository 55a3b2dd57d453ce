import re

from config import DEFAULTS, known_keys
from utils.cli import describe_command, describe_keys


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
