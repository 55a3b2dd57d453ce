"""How features are computed: what is kept of it, old names, what is refused."""

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
    with pytest.raises(UserError, match=r"n_mels: was 40, is now 28; f_max: was 5500, is now 8000\); choose another"):
        write_feature_config(tmp_path / "corpus", FeatureConfig())
    assert read_feature_config(tmp_path / "corpus") == feature_config


def test_files_with_old_names_and_from_before_there_were_cepstra(tmp_path):
    old = {"kind": "log mel", "bands": 28, "highest": 5500.0, "rate": 16000, "window": 400, "hop": 160}
    (tmp_path / FILE).write_text(json.dumps(old))
    assert read_feature_config(tmp_path) == FeatureConfig(f_max=5500.0)
    old = {"bands": 40, "cepstra": 13, "lowest": 20.0, "highest": 5500.0, "rate": 8000, "window": 200, "hop": 80}
    expected = FeatureConfig(40, 13, 20.0, 4000.0, 8000, 200, 80, 256)
    (tmp_path / FILE).write_text(json.dumps({**old, "highest": 4000.0, "fft": 256}))
    assert read_feature_config(tmp_path) == expected
    write_feature_config(tmp_path / "new", expected)
    assert set(json.loads((tmp_path / "new" / FILE).read_text())) == set(asdict(expected))


OTHER = FeatureConfig(40, 13, 20.0, 3900.0, 8000, 200, 80, 256)  # no entry has its default
PAIRS = [
    ("bands", "n_mels"),
    ("cepstra", "n_mfcc"),
    ("lowest", "f_min"),
    ("highest", "f_max"),
    ("rate", "sample_rate"),
    ("window", "win_length"),
    ("hop", "hop_length"),
    ("fft", "n_fft"),
]


@pytest.mark.parametrize("pairs", [*([pair] for pair in PAIRS), PAIRS])
def test_old_names_are_read_as_the_new_ones(tmp_path, pairs):
    """One of them among new names, and all of them together."""
    old = {new: name for name, new in pairs}
    found = {old.get(name, name): value for name, value in asdict(OTHER).items()}
    assert found.keys() != asdict(OTHER).keys()
    (tmp_path / FILE).write_text(json.dumps(found))
    assert read_feature_config(tmp_path) == OTHER


@pytest.mark.parametrize("name", ["band", "mels", "n_mel", "N_MELS", "samplerate", "kind", "", "0"])
def test_names_that_are_neither_old_nor_new_are_refused(tmp_path, name):
    (tmp_path / FILE).write_text(json.dumps({**asdict(OTHER), name: 28}))
    with pytest.raises(UserError, match=rf"features\.json: found {name!r}, expected a feature configuration of n_mels"):
        read_feature_config(tmp_path)


@pytest.mark.parametrize(
    "entries",
    [
        {"n_mels": 1},
        {"n_mfcc": 28},
        {"f_max": 7999, "f_min": 7998.5},
        {"hop_length": 400},
        {"hop_length": 1},
        {"n_fft": 8192},
        {"n_mels": 400},
        {"sample_rate": 1_000_000},
    ],
)
def test_the_ends_of_what_is_allowed(entries):
    assert asdict(parse_feature_config(entries, "here")) == asdict(FeatureConfig()) | entries


@pytest.mark.parametrize(
    "entries",
    [
        {"n_mels": 0},
        {"n_mfcc": -1},
        {"f_max": 7999, "f_min": 7999},
        {"f_min": -0.5},
        {"hop_length": 401},
        {"n_fft": 8193},
        {"n_fft": 399},
        {"n_mels": 401},
        {"sample_rate": 1_000_001},
        {"sample_rate": 15_999},
    ],
)
def test_what_lies_just_beyond_them(entries):
    with pytest.raises(UserError, match="here: "):
        parse_feature_config(entries, "here")


def test_long_nonsense_is_cut_in_messages():
    with pytest.raises(UserError, match=r"here: found 'x{80}', expected a feature configuration"):
        parse_feature_config("x" * 100, "here")
    with pytest.raises(UserError, match=r"here: n_mels: found 'x{40}', expected an integer from 1 to 1,000,000"):
        parse_feature_config({"n_mels": "x" * 100}, "here")


def test_the_competitions_features():
    assert FeatureConfig() == FeatureConfig(28, 0, 0.0, 8000.0, 16_000, 400, 160, 400)
    assert parse_feature_config({}, "here") == FeatureConfig()


def test_said_in_words():
    assert str(FeatureConfig()) == "28 log mel bands, 0 to 8000 Hz, 25 ms windows every 10 ms, at 16,000 Hz"
    assert str(FeatureConfig(n_mels=40, n_mfcc=13)).startswith("13 cepstra of 40 mel bands")
    assert (FeatureConfig().dim, FeatureConfig(n_mels=40, n_mfcc=13).dim) == (28, 13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 3}, "found 'colour', expected a feature configuration of n_mels, n_mfcc"),
        ({"n_mels": "28"}, "n_mels: found '28', expected an integer"),
        ({"n_mels": 28.5}, "n_mels: found '28.5', expected an integer"),
        ({"n_mels": True}, "n_mels: found 'True'"),
        ({"hop_length": 0}, "hop_length: found '0', expected an integer from 1"),
        ({"f_max": float("nan")}, "f_max: found 'nan'"),
        ({"f_max": 9000}, "f_min < f_max <= sample_rate / 2"),
        ({"n_mfcc": 29}, "n_mfcc <= n_mels"),
        ({"win_length": 80}, "hop_length <= win_length"),
        ({"n_fft": 999_999, "n_mels": 500_000}, "n_fft"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(UserError, match=f"here: .*{message}"):
        parse_feature_config({**asdict(FeatureConfig()), **change}, "here")


@pytest.mark.parametrize("content", [b"", b"[1", b"[1, 2]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_files_that_are_no_feature_configuration(content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"features\.json: "):
        read_feature_config(tmp_path)


def test_a_run_keeps_to_its_feature_configuration(tmp_path):
    assert training_feature_config(tmp_path, 28, None) is None
    # resumed: the corpus has lost its file
    assert training_feature_config(tmp_path, 28, FeatureConfig()) == FeatureConfig()
    write_feature_config(tmp_path, FeatureConfig(f_max=5500.0))
    assert training_feature_config(tmp_path, 28, None) == FeatureConfig(f_max=5500.0)
    with pytest.raises(UserError, match=r"found 28 log mel bands, 0 to 5500 .*expected 28 .*0 to 8000 .* so far"):
        training_feature_config(tmp_path, 28, FeatureConfig())
    with pytest.raises(UserError, match=r"expected 13 features per frame"):
        training_feature_config(tmp_path, 13, None)
