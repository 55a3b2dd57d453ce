"""Sound to samples, to features, to pieces."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from corpora.audio import cut_at_pauses, features_of, loudness, make_feature_config, read_speech, resample
from utils.errors import BadFile, UserError
from utils.features import FeatureConfig

RATE = FeatureConfig.sample_rate


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def test_bands_follow_the_pitch_and_keep_to_their_range():
    """A tone is loudest in the band it falls into."""

    def loudest(**settings):
        return [
            int(features_of(tone(hertz), FeatureConfig(**settings)).mean(0).argmax()) for hertz in (300, 1000, 3000)
        ]

    wide = loudest()
    assert wide == sorted(set(wide))
    assert all(a < b for a, b in zip(wide[1:], loudest(f_max=5500.0)[1:], strict=True))
    assert all(a > b for a, b in zip(wide, loudest(f_min=200.0), strict=True))
    assert features_of(tone(300), make_feature_config("mel40", 0, 8000)).shape == (101, 40)
    half = resample(tone(1000, rate=8000), 8000, RATE)
    assert int(features_of(half, FeatureConfig()).mean(0).argmax()) == wide[1]


def test_cepstra_are_the_cosine_transform_of_the_bands():
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    feature_config = make_feature_config("mfcc13", 0, 8000)
    bands = features_of(noise, FeatureConfig(n_mels=feature_config.n_mels))
    k, n = np.arange(13)[:, None], np.arange(feature_config.n_mels)
    basis = np.cos(np.pi / feature_config.n_mels * (n + 0.5) * k) * np.sqrt(2 / feature_config.n_mels)
    basis[0] /= np.sqrt(2)
    assert np.allclose(features_of(noise, feature_config), bands @ basis.T, atol=1e-3)


@pytest.mark.parametrize("kind", ["mel28", "80", "mel128", "mel200"])
def test_every_band_hears_something(kind):
    """Where bands are narrower than the spectrum's steps, the FFT grows."""
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    features = features_of(noise, make_feature_config(kind, 0, 8000))
    assert (features.std(0) > 0.1).all()


@pytest.mark.parametrize(
    ("kind", "lowest", "highest", "message"),
    [
        ("mfcc", 0, 8000, "found 'mfcc', expected mel and a number"),
        ("mel0", 0, 8000, "found 'mel0'"),
        ("28.5", 0, 8000, "found '28.5'"),
        ("mel28", 0, 9000, "expected 0 to 8000 Hz"),
        ("mel28", 300, 200, "found 300 and 200"),
        ("mel900", 0, 8000, "too narrow"),
    ],
)
def test_features_that_cannot_be(kind, lowest, highest, message):
    with pytest.raises(UserError, match=message):
        make_feature_config(kind, lowest, highest)


@pytest.mark.parametrize(
    ("suffix", "rate", "tolerance"), [("wav", 8000, 1e-3), ("flac", 44_100, 1e-3), ("ogg", 48_000, 0.05)]
)
def test_any_rate_any_channels(suffix, rate, tolerance, tmp_path):
    path = tmp_path / f"a.{suffix}"
    left = tone(440, rate=rate)
    soundfile.write(path, np.stack([left, np.zeros_like(left)], axis=1), rate)
    speech = read_speech(path, FeatureConfig())
    assert speech.shape == (RATE,)
    inside = slice(RATE // 10, -RATE // 10)
    assert np.abs(speech - tone(440) / 2)[inside].max() < tolerance


def test_mp3(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(440), RATE)
    assert abs(len(read_speech(path, FeatureConfig())) - RATE) < 3000  # the codec pads


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "cannot be read"),
        (b"text", "cannot be read"),
        (0, "found 0 samples"),
        (399, "25 ms"),
    ],
)
def test_audio_that_is_none(content, message, tmp_path):
    path = tmp_path / "a.wav"
    if isinstance(content, int):
        soundfile.write(path, np.zeros(content), RATE)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFile, match=message):
        read_speech(path, FeatureConfig())


def test_samples_and_rates_that_cannot_be_computed_with(tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(BadFile, match="not finite"):
        read_speech(tmp_path / "nan.wav", FeatureConfig())
    soundfile.write(tmp_path / "odd.wav", np.zeros(44_101), 44_101)
    with pytest.raises(BadFile, match="44101 samples per second"):
        read_speech(tmp_path / "odd.wav", FeatureConfig())


def test_the_shortest_sound_has_features(tmp_path):
    for kind in ("mel28", "mel128", "mfcc13"):
        feature_config = make_feature_config(kind, 0, 8000)
        least = max(feature_config.win_length, feature_config.n_fft // 2 + 1)
        soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(least), RATE)
        assert (
            len(features_of(read_speech(tmp_path / "a.wav", feature_config), feature_config))
            == 1 + least // feature_config.hop_length
        )


# ------------------------------------------------------------------------------------------------------------- pieces


def recording(*parts: tuple[float, float], floor: float = 1e-4) -> np.ndarray:
    """Noise of each `(seconds, loudness)` in turn; loudness 0 is the recording's floor."""
    generator = np.random.default_rng(0)
    return np.concatenate(
        [(loud or floor) * generator.normal(size=round(RATE * seconds)) for seconds, loud in parts]
    ).astype(np.float32)


def seconds(pieces: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(start / RATE, end / RATE) for start, end in pieces]


def test_loudness_is_in_decibels_whatever_the_offset():
    level = loudness(recording((1, 0.1)) + 0.3, RATE // 100)
    assert level.shape == (100,)
    assert level.mean() == pytest.approx(-20, abs=0.5)


def test_long_pauses_part_a_recording_and_are_left_out():
    pieces = seconds(cut_at_pauses(recording((2, 0), (3, 0.1), (1.5, 0), (2, 0.1), (0.5, 0), (2, 0.1), (4, 0)), RATE))
    assert np.allclose(pieces, [(1.8, 5.2), (6.3, 11.2)], atol=0.1)


@pytest.mark.parametrize("longest", [6.0, 20.0])
def test_what_is_long_is_parted_where_someone_paused(longest):
    parts, at, pauses = [], 0.0, []
    for number in range(20):  # a minute of phrases of 2.6 to 3 seconds, pauses between them of 0.4 seconds
        spoken = 2.6 + 0.1 * (number % 5)
        parts += [(spoken, 0.1), (0.4, 0)]
        at += spoken + 0.4
        pauses.append((at - 0.4, at))
    pieces = seconds(cut_at_pauses(recording(*parts), RATE, longest))
    assert all(end - start <= longest for start, end in pieces)
    assert len(pieces) >= 60 / longest
    for (_, before), (after, _) in pairwise(pieces):
        assert any(start <= before <= after <= end for start, end in pauses)
    assert pieces[0][0] == 0
    assert sum(end - start for start, end in pieces) > at - 1


def test_without_a_pause_it_is_cut_where_it_is_quietest():
    parts = [(9, 0.1), (0.15, 0.02), (14, 0.1)]
    (start, cut), (again, end) = seconds(cut_at_pauses(recording(*parts), RATE))
    assert (start, end) == (0, pytest.approx(23.15))
    assert cut == again == pytest.approx(9.07, abs=0.1)


def test_soft_speech_beside_loud_speech_is_kept():
    pieces = seconds(cut_at_pauses(recording((3, 0.1), (1.5, 0), (3, 0.01), (1.5, 0)), RATE))
    assert np.allclose(pieces, [(0, 3.2), (4.3, 7.7)], atol=0.1)


@pytest.mark.parametrize("loudness", [1e-5, 0])
def test_silence_has_no_pieces(loudness):
    assert cut_at_pauses(recording((5, loudness), floor=0), RATE) == []


def test_even_sound_is_one_piece():
    for speech in (recording((5, 0.1)), tone(440, 5), recording((0.03, 0.1))):
        assert cut_at_pauses(speech, RATE) == [(0, len(speech))]


# ------------------------------------------------------------------------------------------------- exact ends of rules


@pytest.mark.parametrize(("value", "fits"), [(1e6, True), (1.1e6, False)])
def test_samples_that_somebody_forgot_to_scale(value, fits, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(RATE, value), RATE, subtype="FLOAT")
    if fits:
        assert read_speech(tmp_path / "a.wav", FeatureConfig()).max() == value
    else:
        with pytest.raises(BadFile, match=r"samples up to 1\.1e\+06, expected numbers between -1 and 1"):
            read_speech(tmp_path / "a.wav", FeatureConfig())


@pytest.mark.parametrize(("frames", "fits"), [(24 * 3600 * 8, True), (24 * 3600 * 8 + 1, False)])
def test_a_day_is_the_longest_recording(frames, fits, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    monkeypatch.setattr("corpora.audio.soundfile.info", lambda path: SimpleNamespace(frames=frames, samplerate=8))
    words = "ends early" if fits else f"{frames:,} samples, as its header claims, expected at most 24 hours"
    with pytest.raises(BadFile, match=words):
        read_speech(tmp_path / "a.wav", FeatureConfig())


def test_log_mel_written_out():
    """Of a tone that fills whole windows: the logarithm of the mel bands of its power, with a floor."""
    config = FeatureConfig()
    silence = features_of(np.zeros(RATE, np.float32), config)
    assert silence.shape == (101, 28)
    assert silence == pytest.approx(np.log(1e-6))
    window = torch.hann_window(400).numpy()
    speech = tone(1000)
    bands = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 28, RATE).numpy()
    frame = 50  # its window is centred at sample 8,000
    power = np.abs(np.fft.rfft(window * speech[frame * 160 - 200 : frame * 160 + 200])) ** 2
    expected = np.log(power @ bands + 1e-6)
    np.testing.assert_allclose(features_of(speech, config)[frame], expected, atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "bands", "cepstra", "fft"),
    [("28", 28, 0, 400), ("mel100", 100, 0, 512), ("mel128", 128, 0, 1024), ("mfcc13", 40, 13, 400)],
)
def test_the_fft_is_the_smallest_that_serves_every_band(kind, bands, cepstra, fft):
    assert make_feature_config(kind, 0, 8000) == FeatureConfig(bands, cepstra, 0, 8000, n_fft=fft)


def test_margins_of_a_fifth_of_a_second_and_pauses_of_one():
    """Two phrases a second apart are two pieces, less is one; a fifth of a second around each is kept."""
    apart = seconds(cut_at_pauses(recording((1, 0), (1, 0.1), (1.25, 0), (1, 0.1), (1, 0)), RATE))
    assert len(apart) == 2
    assert apart[0][0] == pytest.approx(0.8, abs=0.06)
    assert apart[0][1] == pytest.approx(2.2, abs=0.06)
    assert len(cut_at_pauses(recording((1, 0), (1, 0.1), (0.85, 0), (1, 0.1), (1, 0)), RATE)) == 1


@pytest.mark.parametrize(("level", "heard"), [(10 ** (-64 / 20), True), (10 ** (-66 / 20), False)])
def test_what_is_below_65_decibels_is_not_heard(level, heard):
    speech = np.tile(np.array([level, -level], np.float32), RATE)
    assert bool(cut_at_pauses(speech, RATE)) == heard
