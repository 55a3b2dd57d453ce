"""One time axis for words, features and attention."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
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


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are saved, instead of their files."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: saved.append(figure))
    return saved


@pytest.mark.parametrize(
    ("seconds", "characters", "size"),
    [(4.0, 6, (7.0, 2.8 + 2.5)), (10.0, 100, (11.0, 2.8 + 6.0)), (60.0, 500, (22.0, 2.8 + 9.0))],
)
def test_pictures_grow_with_what_is_in_them(figures, tmp_path, seconds, characters, size):
    features, attention = np.zeros((round(100 * seconds), 28)), np.ones((characters, 25))
    save_timeline(tmp_path / "a.png", "a", (0.0, seconds), [], features, attention, FeatureConfig())
    assert figures[0].get_size_inches() == pytest.approx(size)
    heights = figures[0].axes[0].get_gridspec().get_height_ratios()
    assert heights == pytest.approx((0.6, 2.0, size[1] - 2.8))


def test_what_stands_where_in_a_picture(figures, tmp_path):
    """Four words from second 10 on, in turn on three levels; frames around multiples of the hop."""
    words = [Word("ABCD"[n], 10.0 + n, 10.5 + n, slice(2 * n, 2 * n + 1 + n)) for n in range(4)]
    features = np.arange(400.0 * 28).reshape(400, 28)
    save_timeline(tmp_path / "a.png", "the title", (10.0, 14.0), words, features, np.ones((12, 50)), FeatureConfig())
    said, heard, attended = figures[0].axes
    assert [(*text.get_position(), text.get_text()) for text in said.texts] == [
        (10.25, 3, "A"),
        (11.25, 2, "B"),
        (12.25, 1, "C"),
        (13.25, 3, "D"),
    ]
    lines = [collection.get_segments()[0].tolist() for collection in said.collections]
    assert lines[1] == [[11.0, pytest.approx(1.55)], [11.5, pytest.approx(1.55)]]
    assert said.get_ylim() == pytest.approx((0.3, 3.5))
    assert said.get_title() == "the title"
    for axes in (heard, attended):
        assert [line.get_xdata()[0] for line in axes.lines] == [10.0, 11.0, 12.0, 13.0]
    (bands,) = heard.images
    assert bands.get_extent() == pytest.approx([9.995, 13.995, -0.5, 27.5])
    assert bands.get_clim() == pytest.approx(tuple(np.percentile(features, [1, 99.5])))
    assert bands.origin == "lower"
    (weights,) = attended.images
    assert weights.get_extent() == pytest.approx([10.0, 14.0, 11.5, -0.5])
    assert weights.get_clim()[0] == 0
    assert attended.get_yticks().tolist() == [0.0, 2.5, 5.0, 7.5, 11.0]
    assert [label.get_text() for label in attended.get_yticklabels()] == ["A", "B", "C", "D", "<eos>"]
    assert attended.get_xlim() == (10.0, 14.0)
    assert heard.get_ylabel() == "mel band"


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


def test_a_pdf_with_a_page_for_each_piece_and_an_svg(tmp_path, caplog):
    draw_recordings([recording("a.wav", 3)], tmp_path / "x.pdf", FeatureConfig())
    content = (tmp_path / "x.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page ") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["x.pdf"]
    draw_recordings([recording("a.wav", 1)], tmp_path / "x.svg", FeatureConfig())
    assert "<svg" in (tmp_path / "x.svg").read_text()
    with pytest.raises(UserError, match=r"--plot: found .*x\.eps, expected a file of \.png, \.pdf, \.svg, or a folder"):
        draw_recordings([recording("a.wav", 1)], tmp_path / "x.eps", FeatureConfig())
