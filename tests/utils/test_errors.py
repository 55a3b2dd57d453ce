"""The wording of messages: what was found, what was expected, the nearest key."""

import signal

import pytest

from config import known_keys, load_config
from utils.errors import BadFile, Interrupted, UserError, explain_validation_error, nearest_key


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.epoch", "training.epochs"),
        ("epochs", "training.epochs"),
        ("beam_sise", "decoding.beam_size"),
        ("model.listner.hidden", "model.listener.hidden"),
        ("traning.batchsize", "training.batch_size"),
    ],
)
def test_a_misspelt_key_has_a_nearest_one(key, nearest):
    assert nearest_key(key, known_keys()) == f"; did you mean {nearest}?"


def test_a_key_unlike_any_other_is_sent_to_the_list():
    assert nearest_key("xyzzy", known_keys()) == "; python train.py --help lists all keys"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.listener.conv=[{channels: 8, kernel: 3, stride: 2, pad: 1}]",
            "command line: unknown key model.listener.conv.0.pad",
        ),
        (
            "model.listener.conv=[{channels: 8, kernel: 3}]",
            "command line: model.listener.conv.0.stride is missing",
        ),
        (
            "training.precision=float64",
            "command line: training.precision: found 'float64', expected 'auto', 'float32', 'bf16' or 'fp16'",
        ),
        ("data.skip_bad=perhaps", "command line: data.skip_bad: found 'perhaps', expected boolean"),
        (
            "data.train=[a, b, a]",
            "command line: data: expected data.train to name each partition once; found a again",
        ),
        (
            "model.attention.heads=5",
            "command line: model.attention: expected model.attention.dim to be a multiple of model.attention.heads (5)",
        ),
        (
            "run.name=a/b",
            "command line: run.name: found 'a/b', expected a name of letters, digits, spaces and _ . + - that begins "
            "with a letter, a digit or _ and ends in no dot and no space; no path, at most 150 bytes",
        ),
    ],
)
def test_what_pydantic_finds_is_said_in_our_words(override, message):
    with pytest.raises(UserError) as error:
        load_config(overrides=[override])
    assert str(error.value) == message


def test_a_rule_of_a_section_names_the_file_that_broke_it(tmp_path):
    """Of the keys that the rule is about, the one that was set last: here by a file, over config.yaml's."""
    file = tmp_path / "mine.yaml"
    file.write_text("training: {epochs: 3, ctc_weight: 0}")
    tuned = tmp_path / "decoding.yaml"
    tuned.write_text("decoding: {beam_size: 2}")
    with pytest.raises(UserError, match=r"^command line: training: expected training\.ctc_weight above 0"):
        load_config(file, ["training.ctc_epochs=2", "training.seed=1"], tuned)
    file.write_text("training: {epochs: 3, ctc_weight: 0, ctc_epochs: 2}")
    with pytest.raises(UserError, match=rf"^{file}: training: expected training\.ctc_weight above 0"):
        load_config(file, ["training.seed=1"], tuned)


def test_a_long_value_is_cut_in_a_message():
    with pytest.raises(UserError) as error:
        load_config(overrides=["training.epochs=" + "x" * 500])
    assert len(str(error.value)) < 200
    assert "xxx..., expected" in str(error.value)


def test_several_findings_are_a_line_each():
    with pytest.raises(UserError) as error:
        load_config(overrides=["training.epochs=0", "decoding.mode=sampling"])
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert [line.split(": found")[0] for line in lines] == [
        "command line: training.epochs",
        "command line: decoding.mode",
    ]


def test_exceptions_say_what_they_hold():
    bad = BadFile("an empty file", "a .npy array")
    assert str(bad) == "found an empty file, expected a .npy array"
    stopped = Interrupted(signal.SIGINT, "in epoch 3")
    assert (str(stopped), stopped.exit_code) == ("stopped by SIGINT in epoch 3", 130)
    assert Interrupted(0, "").exit_code == 143  # another rank was asked


@pytest.mark.parametrize(("length", "shown"), [(78, f"'{'x' * 78}'"), (79, f"'{'x' * 79}...")])
def test_values_of_up_to_eighty_characters_are_whole(length, shown):
    """Quotes counted."""
    message = "Input should be a valid integer"
    problem = {"loc": ("a", 0, "b"), "type": "int_type", "msg": message, "input": "x" * length}
    assert explain_validation_error(problem, {}, "here") == f"here: a.0.b: found {shown}, expected integer"


def test_a_finding_is_of_the_source_that_set_its_key_or_a_part_of_it():
    problem = {"loc": ("a", "b", "c"), "type": "missing", "msg": "", "input": {}}
    sources = {"a": "overridden", "a.b": "right", "a.bc": "wrong"}
    assert explain_validation_error(problem, sources, "nowhere") == "right: a.b.c is missing"
    assert explain_validation_error(problem, {"a.b.c": "exact"}, "nowhere") == "exact: a.b.c is missing"
    assert explain_validation_error(problem, {"a.b.c.d": "below"}, "nowhere") == "nowhere: a.b.c is missing"
