"""One time axis for words, features and attention."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from decoding.recordings import Piece, Recording, Word
from report.timeline import draw_recordings, save_timeline
from utils.errors import UserError
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


def recording(name: str, pieces: int) -> Recording:
    """A transcribed file of that many pieces of a second."""
    words = [Word("A", 0.2, 0.4, slice(0, 1))]
    spoken = [
        Piece(float(start), start + 1.0, np.eye(100, 28), "A", np.ones((2, 25)) / 25, words) for start in range(pieces)
    ]
    return Recording(Path(name), float(pieces), spoken)


def test_a_picture_for_each_piece_under_a_name_of_its_own(tmp_path, caplog):
    """Numbered where there are several pieces, or several recordings of one name; none where nobody speaks."""
    files = [recording("x/a.wav", 1), recording("y/b.flac", 2), recording("z/b.wav", 1), recording("c.wav", 0)]
    draw_recordings(files, tmp_path / "new" / "pictures", FeatureConfig())
    expected = ["2-b-01.png", "2-b-02.png", "3-b.png", "a.png"]
    assert sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir()) == expected
    assert f"{tmp_path / 'new' / 'pictures' / '2-b-02.png'}: b.flac, 1.0 to 2.0 s" in caplog.messages
    assert len(caplog.messages) == 4


@pytest.mark.parametrize(("pieces", "names"), [(1, ["a.PNG"]), (2, ["a-01.png", "a-02.png"])])
def test_a_single_recording_may_name_its_picture(tmp_path, pieces, names):
    draw_recordings([recording("speech.wav", pieces)], tmp_path / "new" / "a.PNG", FeatureConfig())
    found = sorted(path.name.lower() for path in (tmp_path / "new").iterdir())
    assert found == [name.lower() for name in names]


def test_where_no_picture_can_be_drawn_one_message_says_so(tmp_path):
    with pytest.raises(UserError, match=r"--plot: found a\.png for 2 recordings, expected a folder"):
        draw_recordings([recording("a", 1), recording("b", 1)], Path("a.png"), FeatureConfig())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--plot: cannot write into .*file"):
        draw_recordings([recording("a", 1)], tmp_path / "file", FeatureConfig())
