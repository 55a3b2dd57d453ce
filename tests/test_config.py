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
        ("epochs=3", ["unknown key epochs", "training.epochs"]),
        ("data.trian=[x]", ["data.train"]),
        ("training.epochs=many", ["training.epochs", "'many'", "integer"]),
        ("training.epochs=0", ["training.epochs", "found 0", "greater than or equal to 1"]),
        ("training.device=gpu", ["training.device", "'gpu'", "'auto', 'cpu', 'cuda' or 'mps'"]),
        ("data.skip_bad=3", ["data.skip_bad", "boolean"]),
        ("model.listener.conv=[{channels: 8, kernel: 4, stride: 2}]", ["model.listener.conv.0.kernel", "found 4"]),
        ("training.teacher_forcing.stages=[{from_epoch: 1, factor: 0.9}]", ["stages.0.floor is missing"]),
        ("model.speller.input_feeding=false", ["config.yaml: model: expected model.attention.kind to be dot"]),
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
    assert "cannot read" in complaint(path=tmp_path / "none.yaml")


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        load_config().training.epochs = 3


@pytest.mark.parametrize("name", ["seed", "demo", "an4"])
def test_shipped_configurations_load(name):
    load_config(DEFAULTS.parent / "configs" / f"{name}.yaml")


def test_commands_exit_with_2_and_no_traceback():
    for command in (["train.py"], ["test.py"]):
        result = subprocess.run([sys.executable, *command, "training.epoch=3"], capture_output=True, text=True)
        assert result.returncode == 2
        assert "training.epochs" in result.stderr
        assert "Traceback" not in result.stderr


def test_off_is_a_word_here():
    """YAML reads it as false."""
    assert load_config(overrides=["data.cache=off"]).data.cache == "off"
