"""Pictures of attention, and the maps that are kept for the page."""

import base64
import io
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from report import attention_maps
from report.attention_maps import draw_epoch, keep_maps, kept_maps, save_attention_maps, save_first_and_best
from training.evaluate import AttentionMap


def make_map(weights) -> AttentionMap:
    return AttentionMap("dev-1", [*"GO ON", "<eos>"], weights, seconds=1.2)


def test_a_diagonal_is_drawn_from_top_left_to_bottom_right(tmp_path):
    path = tmp_path / "map.png"
    save_attention_maps(path, [make_map(np.eye(6))], "epoch 1")
    picture = imread(path)[..., :3]
    dark = picture.sum(2) < 0.3
    rows, columns = (np.where(dark.mean(axis) > 0.3)[0] for axis in (1, 0))
    panel = picture[rows.min() : rows.max(), columns.min() : columns.max()]
    H, W = panel.shape[:2]
    cells = [panel[int((i + 0.5) * H / 6), int((j + 0.5) * W / 6)].sum() for i in range(6) for j in range(6)]
    cells = np.array(cells).reshape(6, 6)
    assert cells.argmax(axis=1).tolist() == list(range(6))


def test_dollars_in_names_are_no_formulas(tmp_path):
    drawn = AttentionMap("$x^$", ["A", "<eos>"], np.eye(2), 1.2)
    save_attention_maps(tmp_path / "a.png", [drawn], "$x^$")
    save_first_and_best(tmp_path / "b.png", drawn, drawn, ("$x^$", "$y_$"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}


def test_first_and_best_side_by_side_and_several_utterances(tmp_path):
    flat, diagonal = make_map(np.full((6, 6), 1 / 6)), make_map(np.eye(6))
    save_first_and_best(tmp_path / "pair.png", flat, diagonal, ("epoch 1", "epoch 9"))
    pair = imread(tmp_path / "pair.png")
    save_attention_maps(tmp_path / "three.png", [flat, diagonal, diagonal], "epoch 2")
    one = imread(tmp_path / "three.png").shape
    assert one[1] > 1.4 * pair.shape[1]


@pytest.mark.parametrize(("characters", "height"), [(5, 3.0), (99, 12.5), (209, 24.0)])
def test_what_stands_where_in_a_picture(characters, height, tmp_path, monkeypatch):
    """A row a character, seconds across, from no attention on."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    spelled = [*("A " * characters)[:characters], "<eos>"]
    attention = AttentionMap("dev-1", spelled, np.eye(characters + 1), 1.2)
    save_attention_maps(tmp_path / "a.png", [attention, attention], "epoch 1")
    save_first_and_best(tmp_path / "b.png", attention, attention, ("one", "two"))
    for figure, titles in zip(figures, (["dev-1"] * 2, ["one", "two"]), strict=True):
        assert figure.get_size_inches() == pytest.approx((9.6, height))
        *panels, bar = figure.axes
        assert [axes.get_title() for axes in panels] == titles
        assert bar.get_yticks().tolist() == [0, 0.05, 0.2, 0.5, 1]
        for axes in panels:
            (image,) = axes.images
            assert image.get_extent() == pytest.approx([0, 1.2, characters + 0.5, -0.5])
            assert image.get_clim() == (0, 1)
            assert image.norm(0.25) == 0.5  # the square root
            assert axes.get_yticks().tolist() == list(range(characters + 1))
            assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["A", "␣"]
    assert [figure.get_suptitle() for figure in figures] == ["epoch 1", "dev-1"]


def test_long_transcripts_make_a_picture_of_bounded_size(tmp_path):
    weights = np.eye(600)
    attention = AttentionMap("long", ["A"] * 600, weights, 30.0)
    save_attention_maps(tmp_path / "long.png", [attention], "epoch 1")
    assert max(imread(tmp_path / "long.png").shape) <= 2400


def test_the_first_epoch_stands_beside_the_best_so_far(tmp_path, monkeypatch):
    """Of the utterance in the middle; an epoch that is not the best leaves the picture as it is."""
    pairs = []
    monkeypatch.setattr(attention_maps, "save_first_and_best", lambda *drawn: pairs.append(drawn))

    def draw(epoch, weight, is_best):
        maps = [make_map(np.full((6, 6), share)) for share in (0.0, weight, 1.0)]
        row = {"dev_distance": 40 / epoch, "dev_monotonicity": 0.5}
        draw_epoch(tmp_path / "attention", epoch, maps, row, is_best, {"dev-1": 9 - epoch})

    draw(1, 0.1, True)
    draw(2, 0.2, False)
    draw(3, 0.3, True)
    assert [path.name for path, *_ in pairs] == ["first-and-best.png"] * 2
    path, first, best, titles = pairs[-1]
    assert path.parent == tmp_path / "attention"
    assert [float(drawn.weights[0, 0]) for drawn in (first, best)] == [0.1, 0.3]
    assert titles == ["epoch 1, distance 8", "epoch 3, distance 6"]  # the utterance's own, not the mean
    names = {path.name for path in (tmp_path / "attention").iterdir()}
    assert names == {"first-epoch.npz", "epoch-001.png", "epoch-002.png", "epoch-003.png"}
    np.savez(tmp_path / "attention" / "first-epoch.npz", weights=first.weights, distance=40.0)  # an older version's
    draw(4, 0.4, True)
    assert pairs[-1][-1] == ["epoch 1", "epoch 4, distance 5"]


def test_all_pictures_have_one_colour_scale_from_0_to_1(tmp_path, monkeypatch):
    """A flat map is dark beside a sharp one, whatever the largest weight in it is; a bar shows the scale."""
    figures = []
    monkeypatch.setattr(attention_maps.Figure, "savefig", lambda figure, path: figures.append(figure))
    flat, sharp = make_map(np.full((6, 6), 1 / 6)), make_map(np.eye(6))
    save_first_and_best(tmp_path / "pair.png", flat, sharp, ("epoch 1, distance 5", "epoch 9, distance 0"))
    save_attention_maps(tmp_path / "maps.png", [flat], "epoch 1")
    for figure, panels in zip(figures, (2, 1), strict=True):
        *axes, bar = figure.axes
        assert [(image.norm.vmin, image.norm.vmax) for one in axes for image in one.images] == [(0, 1)] * panels
        assert bar.get_ylim() == (0, 1)
        assert bar.get_ylabel() == "attention weight"
    assert [one.get_title() for one in figures[0].axes[:2]] == ["epoch 1, distance 5", "epoch 9, distance 0"]


# ----------------------------------------------------------------------------------------------------- kept for a page


def grey(folder, epoch):
    """What is kept of the first map of an epoch: its entry, and its grey values."""
    kept = json.loads((folder / f"epoch-{epoch:03d}.json").read_text(encoding="utf-8"))["maps"][0]
    return kept, np.array(Image.open(io.BytesIO(base64.b64decode(kept["png"]))))


def test_a_kept_map_is_grey_as_the_square_root_of_its_weights(tmp_path):
    weights = np.array([[0.0, 1.0, 0.25, 0.01], [1.5, 0.5, 0.0, 0.0]])
    keep_maps(tmp_path, 7, [AttentionMap("dev-1", ["A", "<eos>"], weights, 1.2)], {"dev-1": 3})
    kept, picture = grey(tmp_path, 7)
    assert {key: value for key, value in kept.items() if key != "png"} == {
        "distance": 3,
        "utterance": "dev-1",
        "characters": ["A", "<eos>"],
        "seconds": 1.2,
    }
    np.testing.assert_allclose(picture, 255 * np.sqrt(weights.clip(0, 1)), atol=255 / 63 / 2 + 0.5)


def test_a_long_kept_map_is_narrowed_to_the_largest_of_neighbours(tmp_path):
    weights = np.zeros((2, 1201))
    weights[0, 601], weights[1, 1200] = 1.0, 1.0
    keep_maps(tmp_path, 1, [AttentionMap("dev-1", ["A", "<eos>"], weights, 12.0)], {"dev-1": 3})
    _, picture = grey(tmp_path, 1)
    assert picture.shape == (2, 401)
    assert [row.nonzero()[0].tolist() for row in picture] == [[200], [400]]
    assert set(picture[picture > 0].tolist()) == {255}


def test_epochs_of_maps_are_thinned_to_a_budget_and_the_best_stays(tmp_path):
    generator = np.random.default_rng(0)
    for epoch in range(1, 31):
        weights = generator.dirichlet(np.ones(200), size=50)
        keep_maps(tmp_path, epoch, [AttentionMap("u", ["A"] * 49 + ["<eos>"], weights, 8.0)], {"u": 0})
    size = (tmp_path / "epoch-001.json").stat().st_size
    assert len(kept_maps(tmp_path, 31 * size)["epochs"]) == 30
    kept = kept_maps(tmp_path, 9 * size, always=[14])
    epochs = [one["epoch"] for one in kept["epochs"]]
    assert len(epochs) <= 9
    assert {1, 14, 30} <= set(epochs)
    assert epochs == sorted(epochs)
    assert kept["of"] == 30
    assert kept_maps(tmp_path / "none", 10)["epochs"] == []


def test_maps_of_another_dev_partition_are_left_out(tmp_path):
    keep_maps(tmp_path, 1, [AttentionMap("other", ["A"], np.ones((1, 4)), 1.0)], {"other": 4})
    keep_maps(tmp_path, 2, [AttentionMap("u", ["A"], np.ones((1, 4)), 1.0)], {"u": 4})
    kept = kept_maps(tmp_path, 10**6)
    assert kept["utterances"] == [{"utterance": "u", "characters": ["A"], "seconds": 1.0}]
    assert [(one["epoch"], one["distance"]) for one in kept["epochs"]] == [(2, [4])]


@pytest.mark.parametrize(("steps", "kept"), [(500, 500), (501, 251), (1000, 500)])
def test_up_to_500_cells_across_are_kept(tmp_path, steps, kept):
    keep_maps(tmp_path, 1, [AttentionMap("u", ["A"], np.eye(1, steps), 1.0)], {"u": 0})
    _, picture = grey(tmp_path, 1)
    assert picture.shape == (1, kept)


def test_as_many_epochs_are_kept_as_fit_the_budget_exactly(tmp_path):
    for epoch in range(1, 8):
        keep_maps(tmp_path, epoch, [AttentionMap("u", ["A"], np.full((1, 4), 0.25), 1.0)], {"u": 0})
    size = (tmp_path / "epoch-001.json").stat().st_size
    assert [one["epoch"] for one in kept_maps(tmp_path, 7 * size)["epochs"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [one["epoch"] for one in kept_maps(tmp_path, 7 * size - 1)["epochs"]] == [1, 3, 5, 7]
    assert [one["epoch"] for one in kept_maps(tmp_path, 3 * size)["epochs"]] == [1, 4, 7]
    assert [one["epoch"] for one in kept_maps(tmp_path, 0, always=[2, 99])["epochs"]] == [1, 2, 7]
