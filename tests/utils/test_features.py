"""What is kept of how features were made, and what is refused."""

import json
from dataclasses import asdict

import pytest

from utils.errors import UserError
from utils.features import (
    FILE,
    FeatureConfig,
    parse_feature_config,
    read_feature_config,
    training_feature_config,
    write_feature_config,
)


def test_kept_beside_the_corpus_and_refused_where_it_is_another(tmp_path):
    assert read_feature_config(tmp_path) is None
    feature_config = FeatureConfig(n_mels=40, f_max=5500.0)
    write_feature_config(tmp_path / "corpus", feature_config)
    write_feature_config(tmp_path / "corpus", feature_config)
    assert read_feature_config(tmp_path / "corpus") == feature_config
    with pytest.raises(UserError, match=r"bands: was 40, is now 28; highest: was 5500, is now 8000\); choose another"):
        write_feature_config(tmp_path / "corpus", FeatureConfig())
    assert read_feature_config(tmp_path / "corpus") == feature_config


def test_recipes_from_before_there_were_cepstra(tmp_path):
    old = {"kind": "log mel", "bands": 28, "highest": 5500.0, "rate": 16000, "window": 400, "hop": 160}
    (tmp_path / FILE).write_text(json.dumps(old))
    assert read_feature_config(tmp_path) == FeatureConfig(f_max=5500.0)


def test_said_in_words():
    assert str(FeatureConfig()) == "28 log mel bands, 0 to 8000 Hz, 25 ms windows every 10 ms, at 16,000 Hz"
    assert str(FeatureConfig(n_mels=40, n_mfcc=13)).startswith("13 cepstra of 40 mel bands")
    assert (FeatureConfig().dim, FeatureConfig(n_mels=40, n_mfcc=13).dim) == (28, 13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 3}, "found 'colour', expected a recipe of bands, cepstra"),
        ({"bands": "28"}, "bands: found '28', expected a whole number"),
        ({"bands": 28.5}, "bands: found '28.5', expected a whole number"),
        ({"bands": True}, "bands: found 'True'"),
        ({"hop": 0}, "hop: found '0', expected a whole number from 1"),
        ({"highest": float("nan")}, "highest: found 'nan'"),
        ({"highest": 9000}, "lowest < highest <= rate / 2"),
        ({"cepstra": 29}, "cepstra <= bands"),
        ({"window": 80}, "hop <= window"),
        ({"fft": 999_999, "bands": 500_000}, "fft"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(UserError, match=f"here: .*{message}"):
        parse_feature_config({**asdict(FeatureConfig()), **change}, "here")


@pytest.mark.parametrize("content", [b"", b"[1", b"[1, 2]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_files_that_are_no_recipe(content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"features\.json: "):
        read_feature_config(tmp_path)


def test_a_run_keeps_to_its_recipe(tmp_path):
    assert training_feature_config(tmp_path, 28, None) is None
    assert (
        training_feature_config(tmp_path, 28, FeatureConfig()) == FeatureConfig()
    )  # resumed: the corpus has lost its file
    write_feature_config(tmp_path, FeatureConfig(f_max=5500.0))
    assert training_feature_config(tmp_path, 28, None) == FeatureConfig(f_max=5500.0)
    with pytest.raises(UserError, match=r"found 28 log mel bands, 0 to 5500 .*expected 28 .*0 to 8000 .* so far"):
        training_feature_config(tmp_path, 28, FeatureConfig())
    with pytest.raises(UserError, match=r"expected 13 features a frame"):
        training_feature_config(tmp_path, 13, None)
