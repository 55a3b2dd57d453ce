"""One time axis for words, features and attention."""

import numpy as np
from matplotlib.image import imread

from report.timeline import save_timeline
from utils.features import FeatureConfig


def test_what_happens_at_one_time_stands_in_one_column(tmp_path):
    features, attention = np.zeros((400, 28)), np.zeros((6, 100))
    features[300:304] = 5.0  # three seconds into a piece of four
    attention[:, 75] = 1.0
    words = [("AB", 12.9, 13.1, slice(0, 2))]
    save_timeline(tmp_path / "a.png", "a", (10.0, 14.0), words, features, attention, FeatureConfig())
    picture = imread(tmp_path / "a.png")[..., :3].sum(2)
    frame = picture < 0.3  # magma's black
    rows = np.flatnonzero(frame.mean(1) > 0.7)
    (upper, lower) = (group for group in np.split(rows, np.flatnonzero(np.diff(rows) > 5) + 1) if len(group) > 40)
    bright = [np.flatnonzero(picture[group[len(group) // 3]] > 2.0) for group in (upper, lower)]
    left, right = np.flatnonzero(frame[rows].mean(0) > 0.9)[[0, -1]]
    inside = [columns[(columns > left) & (columns < right)] for columns in bright]
    places = [(columns.mean() - left) / (right - left) for columns in inside]
    assert np.allclose(places, 0.755, atol=0.01)


def test_long_pieces_make_pictures_of_bounded_size(tmp_path):
    words = [("A", float(second), second + 0.5, slice(second, second + 1)) for second in range(60)]
    features, attention = np.random.default_rng(0).normal(size=(6000, 28)), np.ones((500, 1500))
    feature_config = FeatureConfig(n_mels=40, n_mfcc=28)
    save_timeline(tmp_path / "a.png", "a", (0.0, 60.0), words, features, attention, feature_config)
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert width <= 2200
    assert height <= 1200
