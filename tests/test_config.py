"""Where values come from, and what is said of bad ones."""

import subprocess
import sys

import pytest

from config import DEFAULTS, load_config
from utils.errors import UserError
from utils.files import to_yaml


def complaint(*overrides, path=DEFAULTS) -> str:
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    return str(error.value)


def test_overrides_take_precedence_over_file_over_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("training: {epochs: 7, batch_size: 3}\n")
    config = load_config(file, ["training.epochs=9", "data.train=[a, b]"])
    assert (config.training.epochs, config.training.batch_size) == (9, 3)
    assert config.data.train == ["a", "b"]
    assert config.training.seed == load_config().training.seed


def test_resolved_settings_read_back_the_same(tmp_path):
    config = load_config(overrides=["run.name=2024", "training.learning_rate=2e-4"])
    assert config.run.name == "2024"
    assert config.training.learning_rate == 2e-4
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config.model_dump()))
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epoch=3", ["training.epoch", "training.epochs"]),
        ("training.lr=3", ["unknown key training.lr; did you mean training.learning_rate?"]),
        ("grad_accum=3", ["unknown key grad_accum; did you mean training.accumulate?"]),
        ("data.train=train,dev", ["data.train: found train,dev, expected a list: data.train=[train,dev]"]),
        ("epochs=3", ["unknown key epochs", "training.epochs"]),
        ("data.trian=[x]", ["data.train"]),
        ("training.epochs=many", ["training.epochs", "'many'", "integer"]),
        ("training.epochs=0", ["training.epochs", "found 0", "greater than or equal to 1"]),
        ("training.device=gpu", ["training.device", "'gpu'", "'auto', 'cpu', 'cuda' or 'mps'"]),
        ("data.skip_bad=3", ["data.skip_bad", "boolean"]),
        ("model.listener.conv=[{channels: 8, kernel: 4, stride: 2}]", ["model.listener.conv.0.kernel", "found 4"]),
        ("training.teacher_forcing.stages=[{from_epoch: 1, factor: 0.9}]", ["stages.0.floor is missing"]),
        ("model.attention.kind=location", ["model: expected model.speller.input_feeding to be true where"]),
        ("model.attention.heads=5", ["model.attention", "multiple of model.attention.heads (5)"]),
        ("run.name=../up", ["run.name", "../up"]),
        ("nonsense", ["nonsense", "key=value"]),
        ("data.train=[a", ["data.train", "[a"]),
    ],
)
def test_bad_overrides_name_key_found_and_expected(override, words):
    message = complaint(override)
    assert all(word in message for word in words), message


def test_bad_files_name_the_file(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("training: {epoch: 3}")
    assert f"{file}: unknown key training.epoch; did you mean training.epochs?" in complaint(path=file)
    file.write_text("training: [3")
    assert f"{file}: not valid YAML" in complaint(path=file)
    file.write_text("training: 3")
    assert "training: found 3, expected a section" in complaint(path=file)
    file.write_text("!!python/object/apply:os.system ['true']")
    assert "not valid YAML" in complaint(path=file)
    assert "none.yaml: found no such configuration file" in complaint(path=tmp_path / "none.yaml")
    file.write_text("training:\n\tepochs: 3")
    assert f"{file}: line 2: found a tab before the text, expected spaces" in complaint(path=file)
    file.write_text("training:\n  epochs: 3\n  seed: 1\n  epochs: 4")
    assert "the key epochs stands twice" in complaint(path=file)
    file.write_text("training: {epoch: 3, sed: 1}\ndata: {trian: [a]}")
    assert all(key in complaint(path=file) for key in ("training.epoch;", "training.sed;", "data.trian;"))
    file.write_text("wandb: {mode: off}")
    assert "wandb.mode: found 'off', expected 'auto'" in complaint(path=file)


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        load_config().training.epochs = 3


SHIPPED = [path.stem for path in sorted((DEFAULTS.parent / "configs").glob("*.yaml")) if path.stem != "sweep"]


@pytest.mark.parametrize("name", SHIPPED)  # sweep.yaml is wandb's, see test_sweep.py
def test_shipped_configurations_load(name):
    assert len(SHIPPED) >= 5
    load_config(DEFAULTS.parent / "configs" / f"{name}.yaml")


def test_what_tuning_found_is_above_the_file_and_below_the_command_line(tmp_path):
    file, tuned = tmp_path / "mine.yaml", tmp_path / "decoding.yaml"
    file.write_text("decoding: {lm_weight: 0.1, length_reward: 0.2, ctc_weight: 0.3}\n")
    assert load_config(file, tuned=tuned).decoding.lm_weight == 0.1  # nothing was tuned
    tuned.write_text("decoding: {lm_weight: 0.4, length_reward: 0.5}\n")
    decoding = load_config(file, ["decoding.length_reward=0.6"], tuned).decoding
    assert (decoding.ctc_weight, decoding.lm_weight, decoding.length_reward) == (0.3, 0.4, 0.6)
    tuned.write_text("test: {submission: elsewhere.csv}\n")
    with pytest.raises(UserError, match=r"decoding\.yaml: found test\.submission, expected keys of decoding alone"):
        load_config(file, tuned=tuned)
    tuned.write_text("decoding: {lm_weigth: 0.4}\n")
    with pytest.raises(UserError, match=r"decoding\.yaml: unknown key decoding\.lm_weigth; did you mean decoding\.lm"):
        load_config(tuned=tuned)


def test_a_whole_section_takes_a_mapping():
    config = load_config(overrides=["model.speller={hidden: 64, layers: 1}", "data.train=one"])
    assert (config.model.speller.hidden, config.model.speller.layers) == (64, 1)
    assert config.model.speller.embedding == load_config().model.speller.embedding
    assert config.data.train == ["one"]


def test_text_stays_text_and_a_run_may_not_be_called_as_the_packs_are():
    assert load_config(overrides=["run.dir=[a", "wandb.project=007"]).run.dir == "[a"
    assert load_config(overrides=["wandb.project=007"]).wandb.project == "007"
    assert "packed holds the packed features of all runs" in complaint("run.name=Packed")


@pytest.mark.parametrize(("given", "header"), [("auto", None), ("[id, label]", ["id", "label"])])
def test_the_submissions_columns(given, header):
    assert load_config(overrides=[f"test.columns={given}"]).test.header == header


@pytest.mark.parametrize("given", ["[id]", "[id, label, more]", "[id, 3]", "id", "3", "[id, '']"])
def test_columns_that_are_none(given):
    assert "test.columns: found" in complaint(f"test.columns={given}")
    assert "auto, or the names of two columns" in complaint(f"test.columns={given}")


def test_ctc_epochs_need_a_ctc_branch():
    words = "training.ctc_weight above 0 where training.ctc_epochs is 2"
    assert words in complaint("training.ctc_epochs=2", "training.ctc_weight=0")
    assert load_config(overrides=["training.ctc_epochs=2", "training.ctc_weight=0.1"]).model_kwargs["ctc"]
    assert not load_config(overrides=["training.ctc_epochs=0", "training.ctc_weight=0"]).model_kwargs["ctc"]


@pytest.mark.parametrize("command", ["train.py", "test.py", "tune.py"])
def test_commands_exit_with_2_and_no_traceback(command):
    arguments = [sys.executable, command, "training.epoch=3"]
    result = subprocess.run(arguments, cwd=DEFAULTS.parent, capture_output=True, text=True)
    assert result.returncode == 2
    assert "training.epochs" in result.stderr
    assert "Traceback" not in result.stderr


def test_off_is_a_word_here():
    """YAML reads it as false."""
    assert load_config(overrides=["data.cache=off"]).data.cache == "off"
