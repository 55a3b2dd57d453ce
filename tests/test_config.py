"""Where values come from, and what is said of bad ones."""

import copy
import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from config import DEFAULTS, Config, help_on_keys, known_keys, load_config
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
    assert f"{file}: not valid YAML: the key epochs stands twice in line 4, column 3" in complaint(path=file)
    file.write_text("training: {epoch: 3, sed: 1}\ndata: {trian: [a]}")
    assert all(key in complaint(path=file) for key in ("training.epoch;", "training.sed;", "data.trian;"))
    file.write_text("wandb: {mode: off}")
    assert "wandb.mode: found 'off', expected 'auto'" in complaint(path=file)


def test_all_misspelt_keys_are_named_at_once(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("training: {epoch: 3, sed: 1}")
    with pytest.raises(UserError) as refused:
        load_config(file, ["data.rot=x", "training.seed=1", "training.bs=8"])
    assert [line.split(";")[0].strip() for line in str(refused.value).splitlines()] == [
        f"{file}: unknown key training.epoch",
        f"{file}: unknown key training.sed",
        "command line: unknown key data.rot",
        "command line: unknown key training.bs",
    ]


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


# -------------------------------------------------------------------------------------------------------------- bounds

WHOLE = {  # least and most of keys that are integers
    "augment.frequency_masks": (0, 10**6),
    "augment.from_epoch": (1, 10**6),
    "data.workers": (0, 256),
    "decoding.beam_size": (1, 1024),
    "model.listener.blstm_layers": (0, 32),
    "model.listener.pblstm_layers": (0, 8),
    "model.speller.hidden": (1, 8192),
    "model.speller.layers": (1, 32),
    "training.epochs": (1, 10**6),
    "training.seed": (0, 2**63 - 1),
}
REAL = {  # and of those that are not, with what lies just beyond; a bound may itself be excluded
    "augment.speed": ([0.0, 0.5], [-0.01, 0.51]),
    "augment.time_fraction": ([0.0, 1.0], [-0.01, 1.01]),
    "augment.vocal_tract": ([0.0, 0.5], [-0.01, 0.51]),
    "decoding.ctc_weight": ([0.0, 1.0], [-0.01, 1.01]),
    "decoding.lm_weight": ([0.0, 1e6], [-0.01, 1e6 + 1]),
    "model.speller.dropout": ([0.0, 0.99], [-0.01, 1.0]),
    "training.clip_norm": ([1e-9, 1e6], [0.0, 1e6 + 1]),
    "training.ctc_weight": ([0.0, 0.99], [-0.01, 1.0]),
    "training.label_smoothing": ([0.0, 0.99], [-0.01, 1.0]),
    "training.learning_rate": ([1e-9, 10.0], [0.0, 10.01]),
    "training.weight_decay": ([0.0, 10.0], [-0.01, 10.01]),
}


@pytest.fixture(scope="module")
def validate():
    """Whether the configuration with one key changed is valid."""
    settings = load_config(overrides=["training.ctc_epochs=0"]).model_dump()

    def validate(key: str, value: object) -> bool:
        changed = copy.deepcopy(settings)
        node = changed
        *sections, name = key.split(".")
        for section in sections:
            node = node[section]
        node[name] = value
        try:
            Config.model_validate(changed)
        except ValidationError:
            return False
        return True

    return validate


@pytest.mark.parametrize("key", WHOLE)
def test_bounds_of_whole_numbers(key, validate):
    least, most = WHOLE[key]
    assert [validate(key, value) for value in (least - 1, least, most, most + 1)] == [False, True, True, False]
    assert not validate(key, least + 0.5)


@pytest.mark.parametrize("key", REAL)
def test_bounds_of_real_numbers(key, validate):
    inside, outside = REAL[key]
    assert all(validate(key, value) for value in inside)
    assert not any(validate(key, value) for value in (*outside, math.inf, math.nan))


def test_bounds_within_lists_and_of_texts(validate):
    def conv(count: int = 1, **changed) -> list[dict]:
        return [{"channels": 8, "kernel": 3, "stride": 2} | changed] * count

    key = "model.listener.conv"
    assert [kernel for kernel in range(14) if validate(key, conv(kernel=kernel))] == [1, 3, 5, 7, 9, 11]
    assert [stride for stride in range(-1, 19) if validate(key, conv(stride=stride))] == list(range(1, 17))
    assert [count for count in range(19) if validate(key, conv(count))] == list(range(17))
    assert not validate("data.train", [])
    assert [validate("run.dir", text) for text in ("", "a")] == [False, True]


# ------------------------------------------------------------------------------------------- settings of a trained run


def test_what_a_run_was_trained_with_is_below_a_file_and_only_what_decoding_wants(tmp_path):
    trained, file = tmp_path / "config.yaml", tmp_path / "mine.yaml"
    settings = {
        "data": {"dev": "theirs", "root": "there", "of_another_version": 1},
        "decoding": {"beam_size": 3, "rank": "likelihood"},
        "training": {"epochs": 3, "device": "cuda"},
        "test": {"submission": "theirs.csv"},
    }
    trained.write_text(to_yaml(settings))
    file.write_text("decoding: {beam_size: 4}\n")
    found, default = load_config(file, ["data.root=mine"], trained=trained), load_config()
    assert (found.data.dev, found.data.root) == ("theirs", "mine")
    assert (found.decoding.beam_size, found.decoding.rank) == (4, "likelihood")
    assert found.test.submission == "theirs.csv"
    assert found.training == default.training
    assert load_config(trained=tmp_path / "none.yaml") == default


@pytest.mark.parametrize(("name", "kept"), [("a/b.csv", True), ("/tmp/b.csv", False), ("../b.csv", False)])
def test_a_run_from_elsewhere_does_not_say_where_to_write(tmp_path, name, kept):
    trained = tmp_path / "config.yaml"
    trained.write_text(to_yaml({"test": {"submission": name}}))
    assert load_config(trained=trained).test.submission == (name if kept else load_config().test.submission)


@pytest.mark.parametrize("text", ["3", "[a", "data", ""])
def test_settings_of_a_run_that_are_none_are_a_message(tmp_path, text):
    trained = tmp_path / "config.yaml"
    trained.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: found no settings of a run, expected what train\.py wrote"):
        load_config(trained=trained)


def test_files_that_are_there_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complaint(path="mine.yaml") == "mine.yaml: found no such configuration file"
    for number in range(14):
        (tmp_path / f"c{number:02d}.yaml").touch()
    (tmp_path / ".hidden.yaml").touch()
    listed = ", ".join(f"c{number:02d}.yaml" for number in range(12))
    assert complaint(path="mine.yaml") == f"mine.yaml: found no such configuration file; files that are there: {listed}"


def test_keys_are_those_that_hold_values():
    keys = known_keys()
    assert keys["training.epochs"] is not None
    assert {"training", "model.listener", "training.teacher_forcing"}.isdisjoint(keys)
    assert {"model.listener.conv", "training.teacher_forcing.stages", "wandb.group"} <= keys.keys()


def test_keyword_arguments_for_what_is_below(tmp_path):
    overrides = ["run.name=x", f"run.dir={tmp_path}", "data.half_precision=true", "data.skip_bad=true"]
    config = load_config(overrides=overrides)
    assert config.loading_kwargs == {
        "cache": config.data.cache,
        "cache_folder": tmp_path / "packed",
        "half": True,
        "skip_bad": True,
    }
    assert config.run.path == tmp_path / "x"
    assert "speed" not in config.augment.utterance_kwargs
    assert config.augment.utterance_kwargs.keys() == config.augment.model_dump().keys() - {"speed", "concatenate"}


def test_help_is_on_all_keys_or_on_those_that_matter():
    whole, some = help_on_keys(), help_on_keys(("decoding.", "test.submission"))
    assert "training.epochs=" in whole
    assert "lists all keys" not in whole
    assert "decoding.beam_size=" in some
    assert "test.submission=" in some
    assert "training." not in some
    assert some.endswith("python train.py --help lists all keys")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.speller.input_feeding=true", "model.speller.input_feeding to be false"),
        ("training.ctc_weight=0", "training.ctc_weight above 0 where model.attention.kind is relative"),
    ],
)
def test_relative_attention_needs_ctc_and_no_input_feeding(override, expected):
    with pytest.raises(UserError, match=expected):
        load_config(overrides=["model.attention.kind=relative", override])
    assert load_config(overrides=["model.attention.kind=relative"]).model_kwargs["attention"]["kind"] == "relative"
    assert load_config(overrides=["model.attention.kind=auto"]).model_kwargs["attention"]["kind"] == "relative"
    assert load_config(overrides=["model.attention.kind=auto", override]).model_kwargs["attention"]["kind"] == "dot"
