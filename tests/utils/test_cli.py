"""How commands end, and the text of their --help."""

import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from random import Random

import pytest
import yaml

import arguments
import config
from config import DEFAULTS, help_on_keys, known_keys, load_config
from utils.cli import (
    GracefulShutdown,
    describe_command,
    is_override,
    read_key_comments,
    run_command,
)
from utils.errors import Interrupted, UserError
from utils.failures import DISK_ERRORS, SHORTAGES
from utils.files import parse_yaml
from utils.logging import add_log_file

HOME = Path(__file__).parents[2]


FULL = OSError(errno.ENOSPC, "No space left", "runs/a/last.pt")
KILLED = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore of it")
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")  # the same, before torch has noticed
FROM_A_WORKER = UserError("Traceback (most recent call last):\n  ...\nutils.errors.UserError: data.root: no\n")
ENDS = [
    (UserError("config.yaml: no"), 2, "error: config.yaml: no\n"),
    (UserError("two findings:\n  a\n  b"), 2, "error: two findings:\n  a\n  b\n"),
    (FROM_A_WORKER, 2, "error: data.root: no\n"),
    (Interrupted(15, "in epoch 3; go on"), 143, "stopped by SIGTERM in epoch 3; go on\n"),
    (Interrupted(2, "in epoch 3; go on"), 130, "stopped by SIGINT in epoch 3; go on\n"),
    (Interrupted(0, "as another rank was"), 143, "stopped by SIGTERM as another rank was\n"),
    (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    (
        KILLED,
        2,
        "error: a process that prepares batches ended (DataLoader worker (pid 7) is killed by signal: Killed.):",
    ),
    (RESET, 2, "error: a process that prepares batches ended ([Errno 104] Connection reset by peer):"),
    (ConnectionResetError(), 2, "error: a process that prepares batches ended (ConnectionResetError):"),
    (FULL, 2, "error: [Errno 28] No space left: 'runs/a/last.pt'; what was written is whole:"),
    *(
        (OSError(number, "of the disk"), 2, f"error: [Errno {number}] of the disk; what was")
        for number in DISK_ERRORS - SHORTAGES
    ),
]


@pytest.mark.parametrize(("error", "code", "said"), ENDS)
def test_what_ends_a_command_is_one_message_and_an_exit_code(error, code, said, tmp_path, capsys):
    """On stderr and in the run's log, without a traceback."""

    def main():
        add_log_file(tmp_path / "train.log")
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("\n") == (said.count("\n") or 1)
    logged = (tmp_path / "train.log").read_text()
    assert re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", logged) == err
    assert "Traceback" not in logged


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        OSError(errno.EPIPE, "a bug"),
        OSError("a bug"),
        RuntimeError("a bug in a worker"),
        SystemError(),
    ],
)
def test_bugs_go_on_to_python_and_are_in_the_log_with_their_traceback(error, tmp_path, capsys):
    def main():
        add_log_file(tmp_path / "train.log")
        raise error

    with pytest.raises(type(error)) as raised:
        run_command(main)
    assert raised.value is error
    logged = (tmp_path / "train.log").read_text()
    assert f"error: this is a bug, its traceback follows: {type(error).__name__}: {error}\n" in logged
    assert "Traceback (most recent call last):" in logged
    err = capsys.readouterr().err
    assert err.startswith("error: this is a bug")
    assert "Traceback" not in err  # Python writes it there


@pytest.mark.parametrize("error", [KeyError("a bug"), FULL])
def test_what_the_frames_of_a_failed_command_held_is_released(error):
    """Python keeps a traceback until its exit; a DataLoader in it would wait there for its workers."""

    class Loader:
        pass

    alive = []

    def main():
        loader = Loader()
        alive.append(weakref.ref(loader))
        raise error

    with pytest.raises((KeyError, SystemExit)):
        run_command(main)
    assert error.__traceback__ is not None
    assert alive[0]() is None


def test_a_command_returns_what_its_function_does():
    assert run_command(lambda: 7) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_is_noted_and_a_second_ends_the_process(number):
    """As a command sees it: what comes after the context is as it was before."""
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    received = []
    before = signal.signal(number, lambda *_: received.append("outside"))
    try:
        with GracefulShutdown() as shutdown:
            assert shutdown.signum == 0
            os.kill(os.getpid(), number)
            assert (shutdown.signum, received) == (number, [])
            os.kill(os.getpid(), number)
            assert received == ["outside"]
        os.kill(os.getpid(), number)
        assert received == ["outside"] * 2
        assert GracefulShutdown().signum == 0
    finally:
        signal.signal(number, before)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("training.epochs=3", True),
        ("model.speller={hidden: 3}", True),
        ("run.name=a=b", True),
        ("runs/a=b/best.pt", False),
        ("Speech=1.wav", False),
        ("best.pt", False),
        ("=3", False),
        ("", False),
    ],
)
def test_overrides_are_told_from_files(argument, expected):
    assert is_override(argument) == expected


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


SETTINGS = parse_yaml("\n".join(LINES))


def is_section(key: str) -> bool:
    return any(known.startswith(f"{key}.") for known in known_keys())


DESCRIBED = read_key_comments("\n".join(LINES), is_section)


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Replaces config.yaml by a text, as a user edits it, and returns what --help says of the keys.

    Every command has to start with it, with the settings that it had before.
    """
    before = load_config()

    def edit(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(config, "DEFAULTS", path)
        monkeypatch.setattr(arguments, "DEFAULTS", path)
        monkeypatch.setattr("sys.argv", ["train.py"])
        assert arguments.parse_training_arguments("Trains.").config == before
        assert arguments.parse_decoding_arguments(arguments.command_parser("Decodes.")).config == before
        described = help_on_keys()
        check_help(described)
        assert described in arguments.command_parser("Trains.").format_help()
        return described

    return edit


@pytest.mark.parametrize("number", [number for number, line in enumerate(LINES) if "#" in line])
def test_any_comment_may_go(edited, number):
    """It is gone from --help, and nothing else is."""
    lines = [*LINES]
    lines[number], _, comment = lines[number].partition("#")
    expected = {
        key: value._replace(meaning="") if lines[number].strip() and value.meaning == comment.strip() else value
        for key, value in DESCRIBED.items()
    }
    described = edited("\n".join(lines))
    assert read_key_comments("\n".join(lines), is_section) == expected
    whole = " ".join(help_on_keys().split())
    gone = [value for key, value in DESCRIBED.items() if value != expected[key]]
    assert all(value.meaning in whole for value in expected.values())
    assert all(f"{value.default} {value.meaning}" not in " ".join(described.split()) for value in gone)


def test_all_comments_may_go_and_any_style_and_order_may_come(edited):
    edited("\n".join(line.partition("#")[0].rstrip() for line in LINES))
    edited(yaml.dump(SETTINGS, default_flow_style=False))  # lists in block style, keys in another order
    edited(yaml.dump(SETTINGS, default_flow_style=True))
    edited(yaml.dump(dict(reversed(SETTINGS.items())), sort_keys=False, indent=7))


def write_value(value: object, random: Random, pad: str) -> tuple[str, list[str]]:
    """A setting in YAML: what stands on the key's line, and the lines below it."""

    def flow(value: object) -> str:
        return yaml.dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()

    style = random.choice(["flow", "flow below", "flow over lines", "block", "flow in block"])
    if not isinstance(value, list) or style == "flow":
        return f" {flow(value)}", []
    if style == "flow below":
        return "", [f"{pad}  {flow(value)}"]
    if style == "flow over lines":
        return " [", [*(f"{pad}  {flow(item)},  # of an item" for item in value), f"{pad}]"]
    dash = pad + random.choice(["", "  "])
    if style == "flow in block":
        return "", [f"{dash}- {flow(item)}  # of an item" for item in value]
    return "", [dash + line for line in yaml.dump(value, default_flow_style=False).splitlines()]


def rewrite(tree: dict, random: Random, kept: set[str], prefix: str = "", pad: str = "") -> list[str]:
    """Lines of the same settings in any order, each list in any style, with some of the comments (`kept`)."""
    lines: list[str] = []
    for name in random.sample(list(tree), len(tree)):
        key = f"{prefix}{name}"
        if random.random() < 0.3:
            lines += ["", f"{pad}# {name}: a comment on a line of its own"]
        if is_section(key):
            deeper = pad + " " * random.choice([1, 2, 5])
            lines += [f"{pad}{name}:{random.choice(['', '  # of a section'])}"]
            lines += rewrite(tree[name], random, kept, f"{key}.", deeper)
            continue
        on_key_line, below = write_value(tree[name], random, pad)
        if random.random() < 0.5:
            on_key_line += f"  # {DESCRIBED[key].meaning}"
            kept.add(key)
        lines += [f"{pad}{name}:{on_key_line}", *below]
    return lines


@pytest.mark.parametrize("seed", range(40))
def test_comments_follow_their_keys_in_any_order_and_style(edited, seed):
    kept: set[str] = set()
    text = "\n".join(rewrite(SETTINGS, Random(seed), kept))
    edited(text)
    found = read_key_comments(text, is_section)
    assert found.keys() == DESCRIBED.keys()
    for key, (default, meaning) in found.items():
        assert meaning == (DESCRIBED[key].meaning if key in kept else ""), key
        assert parse_yaml(default) == parse_yaml(DESCRIBED[key].default), key


def test_comments_of_lists_in_block_style_and_of_quoted_values(edited):
    text = "\n".join(LINES)
    text = text.replace("  train: [train-clean-100]  ", "  train:  # what to learn from\n    - train-clean-100\n   ", 1)
    text = text.replace("  dev: dev-clean  ", '  dev: "dev-clean"  # a # in quotes\n   ', 1)
    described = edited(text)
    assert "  data.train=[train-clean-100]      what to learn from\n" in described
    assert "  data.dev=dev-clean                a # in quotes\n" in described


@pytest.mark.parametrize("key", known_keys())
def test_an_empty_value_is_described_and_one_message_where_it_cannot_be(key, tmp_path, monkeypatch):
    """It means null, which a few keys may be."""
    tree, path = parse_yaml("\n".join(LINES)), tmp_path / "config.yaml"
    *sections, name = key.split(".")
    section = tree
    for part in sections:
        section = section[part]
    section[name] = "EMPTY"
    text = re.sub(r"EMPTY", "  # emptied", yaml.dump(tree, sort_keys=False))
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(config, "DEFAULTS", path)
    described = help_on_keys()
    check_help(described)
    assert f"\n{f'  {key}='.ljust(36)}emptied\n" in described + "\n"
    if key in ("training.start_from", "training.max_minutes", "wandb.group"):
        assert load_config(path) == load_config(DEFAULTS)
    else:
        with pytest.raises(UserError, match=rf"^config\.yaml: {re.escape(key)}: found None, expected \S"):
            load_config(path)


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
if sys.argv[1] == "-m":
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
COMMANDS = ("train.py", "test.py", "tune.py")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train.py --help", "training.epochs=100"),
        *((f"{command} --help", "decoding.beam_size=8") for command in COMMANDS),
        *((f"{command} training.epoch=3", "did you mean training.epochs?") for command in COMMANDS),
        *((f"{command} a.b=3", "unknown key a") for command in COMMANDS),
        *((f"{command} training.epochs=x", "training.epochs: found 'x', expected") for command in COMMANDS),
        *((f"{command} --config none.yaml", "none.yaml: found no such configuration file") for command in COMMANDS),
        ("test.py --beam", "unrecognized arguments: --beam"),
        ("-m report --help", "runs/NAME"),
        ("-m report", "the following arguments are required"),
        ("-m report nowhere", "nowhere: found neither metrics.csv"),
    ],
)
def test_nothing_heavy_is_imported_before_arguments_are_valid(arguments, said):
    command = [sys.executable, "-c", WATCH, *arguments.split()]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    result = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True)
    helps = "--help" in arguments
    assert result.returncode == (0 if helps else 2)
    assert said in (result.stdout if helps else result.stderr)
    assert result.stdout.splitlines()[-1].strip() == "imported:"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("command", "own"), [("test.py", "--split"), ("tune.py", "--order")])
def test_help_begins_with_a_commands_own_options_and_has_the_keys_that_matter_to_it(command, own):
    """A key that says nothing to decoding, such as the model's sizes, is in train.py's help alone."""
    result = subprocess.run([sys.executable, command, "--help"], cwd=HOME, capture_output=True, text=True, check=True)
    text = result.stdout.partition("options:\n")[2]
    order = [
        text.index(word) for word in (own, "--checkpoint", "--config", "run.name=", "data.root=", "decoding.mode=")
    ]
    assert order == sorted(order)
    listed = set(re.findall(r"^  ([a-z_]+\.[a-z_.]+)=", text, re.M))
    sections = {"run", "data", "training", "decoding"} | ({"wandb", "test"} if command == "test.py" else set())
    assert {key.partition(".")[0] for key in listed} == sections
    assert {key for key in listed if key.startswith("training.")} == {"training.device", "training.precision"}
    assert ("data.train" in listed) == (command == "tune.py")


def test_a_message_on_a_key_names_who_set_it(monkeypatch, tmp_path, capsys):
    """Also where the value was found to be wrong long after it was read."""
    file = tmp_path / "mine.yaml"
    file.write_text("data: {dev: other, root: elsewhere}")
    monkeypatch.setattr(sys, "argv", ["train.py", f"--config={file}", "data.dev=mine"])
    sources = arguments.parse_training_arguments("Trains.").sources
    said = {"data.dev": "command line", "data.root": str(file), "data.train": "config.yaml"}
    for key, source in said.items():

        def fail(key=key):
            raise UserError(f"{key}: found nothing: at all")

        with pytest.raises(SystemExit):
            run_command(fail, sources)
        assert capsys.readouterr().err == f"error: {source}: {key}: found nothing: at all\n"


def test_a_commands_examples_below_one_another():
    docstring = "Trains a model.\n\npython train.py     # with defaults\npython train.py a=1 # no example\n"
    assert describe_command(docstring) == (
        "Trains a model.\n\n  python train.py\n      with defaults\npython train.py a=1 # no example"
    )


def test_dashes_before_a_key_are_explained(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", f"--config={DEFAULTS}", "training.epochs=3"])
    assert arguments.parse_training_arguments("Trains.").config.training.epochs == 3
    monkeypatch.setattr(sys, "argv", ["train.py", "--training.epochs=3"])
    with pytest.raises(SystemExit) as exit_:
        arguments.parse_training_arguments("Trains.")
    assert exit_.value.code == 2
    assert (
        "found --training.epochs=3, expected training.epochs=3: keys are set without dashes" in capsys.readouterr().err
    )


IMPORT_FAILS = """
import importlib.abc, runpy, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name in ("torch", "numpy"):
            raise {error}
sys.meta_path.insert(0, Finder())
sys.argv = sys.argv[1:]
runpy.{call}(sys.argv[0], run_name="__main__")
"""
SHORT = 'ImportError("libtorch.so: failed to map segment from shared object")'


@pytest.mark.parametrize("program", ["train.py", "test.py", "tune.py", "corpora.demo", "corpora.folder"])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [("KeyboardInterrupt", 130, "interrupted"), (SHORT, 2, "error: the machine has no memory left (libtorch.so: ")],
    ids=["Ctrl-C", "memory"],
)
def test_what_happens_while_torch_is_imported_is_one_line(program, error, code, said):
    call = "run_path" if program.endswith(".py") else "run_module"
    line = [sys.executable, "-c", IMPORT_FAILS.format(error=error, call=call), program]
    result = subprocess.run(line, cwd=HOME, capture_output=True, text=True)
    assert (result.returncode, result.stderr.strip().count("\n")) == (code, 0), result.stderr
    assert result.stderr.strip().startswith(said)


@pytest.mark.parametrize("module", ["report", "corpora.demo", "corpora.folder", "corpora.librispeech"])
def test_the_usage_of_a_module_is_how_it_is_called(module, monkeypatch, capsys):
    main = importlib.import_module("report.__main__" if module == "report" else module).main
    monkeypatch.setattr(sys, "argv", ["x.py", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} [-h]")
