"""Command lines of train.py, tune.py and test.py: which run, which checkpoints, and which settings win."""

from pathlib import Path

import pytest

import arguments
from arguments import command_parser, parse_decoding_arguments, parse_training_arguments
from utils.errors import UserError


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs that were trained with settings of their own, and tuned; the working directory holds `runs`."""
    monkeypatch.chdir(tmp_path)
    for name, dev in (("one", "dev-one"), ("two", "dev-two")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(
            f"data: {{dev: {dev}, test: trained}}\ndecoding: {{beam_size: 3, length_reward: 0.25}}\n"
        )
        (folder / "best.pt").touch()
    (tmp_path / "runs" / "one" / "decoding.yaml").write_text("decoding: {length_reward: 0.75}\n")
    return tmp_path / "runs"


@pytest.fixture
def parse(monkeypatch):
    def parse(*line: object):
        monkeypatch.setattr("sys.argv", ["test.py", *map(str, line)])
        parser = command_parser("Decodes.")
        parser.add_argument("--audio", nargs="+", default=[])
        return parse_decoding_arguments(parser)

    return parse


def test_training_takes_files_and_keys(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("training: {epochs: 7, batch_size: 5}\n")
    monkeypatch.setattr("sys.argv", ["train.py", "--config", str(tmp_path / "mine.yaml"), "training.epochs=3"])
    training = parse_training_arguments("Trains.").config.training
    assert (training.epochs, training.batch_size) == (3, 5)


@pytest.mark.parametrize(
    "line",
    [
        ["run.name=one"],
        ["runs/one"],
        ["runs/one/"],
        ["--checkpoint", "runs/one/best.pt"],
        ["--checkpoint", "runs/one"],
        ["decoding.mode=greedy", "runs/one"],
    ],
)
def test_a_run_is_known_by_its_name_its_folder_or_its_checkpoint(line, runs, parse):
    found = parse(*line)
    assert found.config.run.path.resolve() == runs / "one"
    assert [path.resolve() for path in found.checkpoints] == [runs / "one" / "best.pt"]
    assert (found.config.data.dev, found.config.decoding.beam_size) == ("dev-one", 3)
    assert found.config.decoding.length_reward == 0.75  # as tuned
    assert found.flags.changes == ""


def test_the_command_line_wins_over_tuned_weights_and_these_over_the_runs_settings(runs, parse):
    found = parse("run.name=one", "decoding.length_reward=0.1", "data.test=mine")
    assert (found.config.decoding.length_reward, found.config.data.test) == (0.1, "mine")
    assert parse("run.name=two").config.decoding.length_reward == 0.25


def test_several_checkpoints_are_of_no_single_run(runs, parse):
    found = parse("--checkpoint", "runs/one/best.pt", "runs/two/best.pt")
    assert found.config.run.name not in ("one", "two")
    assert found.checkpoints == [Path("runs/one/best.pt"), Path("runs/two/best.pt")]
    assert found.config.data.dev == "dev-one"  # what the first was trained with, though not its tuned weights
    assert found.config.decoding.length_reward == 0.25
    named = parse("--checkpoint", "runs/one/best.pt", "runs/two/best.pt", "run.name=two")
    assert (named.config.run.name, named.config.data.dev) == ("two", "dev-two")


def test_a_named_run_is_not_that_of_the_checkpoint(runs, parse):
    found = parse("--checkpoint", "runs/one/best.pt", "run.name=two")
    assert found.config.data.dev == "dev-two"
    assert found.checkpoints == [Path("runs/one/best.pt")]


def test_a_checkpoint_that_stands_alone_has_no_run(runs, parse, tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "model.pt").touch()
    assert parse("--checkpoint", tmp_path / "alone" / "model.pt").config.run.name not in ("one", "alone")


def test_keys_after_lists_of_files_are_keys(runs, parse):
    found = parse("--checkpoint", "runs/one/best.pt", "decoding.beam_size=9", "--audio", "a.wav", "decoding.mode=beam")
    assert found.flags.audio == ["a.wav"]
    assert found.checkpoints == [Path("runs/one/best.pt")]
    assert (found.config.decoding.beam_size, found.config.decoding.mode) == (9, "beam")


def test_what_a_file_changes_in_a_trained_run_is_told(runs, parse, tmp_path):
    (tmp_path / "mine.yaml").write_text("decoding: {beam_size: 4}\ntraining: {epochs: 3}\ndata: {test: trained}\n")
    found = parse("--config", tmp_path / "mine.yaml", "run.name=one")
    assert found.config.decoding.beam_size == 4
    assert found.flags.changes == "decoding.beam_size 3 -> 4"
    (runs / "one" / "config.yaml").unlink()
    assert parse("--config", tmp_path / "mine.yaml", "run.name=one").flags.changes == ""


def test_a_file_that_wants_a_flag_is_told_which(runs, parse, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"a file is named by --checkpoint runs/one/best\.pt$"):
        parse("runs/one/best.pt")
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(UserError, match=r"a file is named by --config mine\.yaml$"):
        parse("mine.yaml")
    monkeypatch.setattr("sys.argv", ["train.py", "mine.yaml"])
    with pytest.raises(UserError, match=r"expected key=value, .*; a file is named by --config mine\.yaml$"):
        parse_training_arguments("Trains.")


def test_a_folder_that_is_no_run_is_told_with_those_that_are_there(runs, parse):
    with pytest.raises(
        UserError, match=r"^runs/tow: found no such folder, .*; runs that are there: runs/one, runs/two$"
    ):
        parse("runs/tow")
    with pytest.raises(UserError, match=r"^elsewhere: found no such folder, expected that of a run, or key=value$"):
        parse("elsewhere")
    with pytest.raises(
        UserError, match=r"found 2 runs, expected one; .* --checkpoint runs/one/best.pt runs/two/best.pt"
    ):
        parse("runs/one", "runs/two")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--training.epochs=3"], "training.epochs=3"),
        (["--decoding.beam_size=2"], "decoding.beam_size=2"),
        (["--training.epochs", "3"], "training.epochs=VALUE"),
    ],
)
def test_dashes_before_a_key_are_refused(given, expected, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    with pytest.raises(SystemExit) as ended:
        parse_training_arguments("Trains.")
    assert ended.value.code == 2
    assert f"found {given[0]}, expected {expected}: keys are set without dashes" in capsys.readouterr().err


def test_dots_in_the_value_of_a_flag_are_no_key(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("training: {epochs: 7}\n")
    monkeypatch.setattr("sys.argv", ["train.py", f"--config={tmp_path / 'mine.yaml'}"])
    assert arguments.parse_training_arguments("Trains.").config.training.epochs == 7
