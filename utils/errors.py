"""Exceptions that are no bugs, bad input and a request to stop, and the wording of messages on settings."""

import difflib
import signal
from collections.abc import Collection, Mapping

from pydantic_core import ErrorDetails

ABBREVIATIONS = {  # what other projects call the last part of a key
    "lr": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    "grad_clip": "clip_norm",
    "max_grad_norm": "clip_norm",
    "grad_accum": "accumulate",
    "gradient_accumulation_steps": "accumulate",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "num_workers": "workers",
    "beam": "beam_size",
    "beam_width": "beam_size",
    "smoothing": "label_smoothing",
    "warmup": "warmup_epochs",
    "hidden_size": "hidden",
    "num_heads": "heads",
    "num_layers": "layers",
    "ema": "average_epochs",
    "amp": "precision",
}
LONGEST_SHOWN = 80  # characters of a value in a message


class UserError(Exception):
    """Bad input. The message names the file or key, what was found, what was expected and what to do."""


def name_source(message: str, sources: Mapping[str, str]) -> str:
    """`message`, with the file or command line that set the key it begins with before it: `command line: data.root: `.

    Args:
        message: of a UserError.
        sources: the file or command line that set each dotted key.
    """
    source = sources.get(message.partition(": ")[0])
    return message if source is None else f"{source}: {message}"


class BadFile(Exception):
    """A file that cannot be used.

    Args:
        found: what the file holds, as a noun phrase: "an empty file".
        expected: what it should hold: "a .npy array".
    """

    def __init__(self, found: str, expected: str):
        super().__init__(f"found {found}, expected {expected}")
        self.found, self.expected = found, expected


class Interrupted(Exception):
    """A signal asked the command to stop, and everything computed so far has been saved.

    Args:
        signum: the signal, such as `signal.SIGTERM`; 0 if it has reached another rank only.
        message: where the run stands and how to continue it.
    """

    def __init__(self, signum: int, message: str):
        signum = signum or signal.SIGTERM
        super().__init__(f"stopped by {signal.Signals(signum).name} {message}")
        self.exit_code = 128 + signum


def nearest_key(key: str, keys: Collection[str]) -> str:
    """The end of a message on an unknown key: the known key most like it, by its whole name or by its last part."""
    *sections, leaf = key.split(".")
    usual = ".".join([*sections, ABBREVIATIONS.get(leaf, leaf)])
    nearest = [usual] if usual in keys else difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    if not nearest:
        leaf = ABBREVIATIONS.get(leaf, leaf)
        by_leaf = {known.rsplit(".", 1)[-1]: known for known in keys}
        leaves = difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.6)
        nearest = [by_leaf[leaf] for leaf in leaves]
    return f"; did you mean {nearest[0]}?" if nearest else "; python train.py --help lists all keys"


def explain_validation_error(problem: ErrorDetails, sources: Mapping[str, str], default_source: str) -> str:
    """One finding of pydantic as a message: source, key, what was found and what was expected.

    Args:
        problem: an element of `ValidationError.errors()`.
        sources: the file or command line that set each dotted key, those that override others last.
        default_source: of keys that nobody set.
    """
    key = ".".join(map(str, problem["loc"]))
    set_by = [known for known in sources if key == known or key.startswith(known + ".")]
    if not set_by:  # a rule of a whole section: of the keys that its message names, the one that was set last
        set_by = [known for known in sources if known.startswith(f"{key}.") and known in problem["msg"]]
    source = sources[set_by[-1]] if set_by else default_source
    if problem["type"] == "missing":
        return f"{source}: {key} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{source}: unknown key {key}"
    expected = problem["msg"]
    for opening in ("Input should be ", "a valid ", "Value error, "):
        expected = expected.removeprefix(opening)
    shown = " ".join(repr(problem["input"]).split())
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
    found = "" if isinstance(problem["input"], dict) else f"found {shown}, "
    return f"{source}: {key}: {found}expected {expected}"
