import numpy as np
from matplotlib.image import imread

from report.attention_maps import save_attention_maps, save_first_and_best
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


def test_first_and_best_side_by_side_and_several_utterances(tmp_path):
    flat, diagonal = make_map(np.full((6, 6), 1 / 6)), make_map(np.eye(6))
    save_first_and_best(tmp_path / "pair.png", flat, diagonal, ("epoch 1", "epoch 9"))
    pair = imread(tmp_path / "pair.png")
    save_attention_maps(tmp_path / "three.png", [flat, diagonal, diagonal], "epoch 2")
    one = imread(tmp_path / "three.png").shape
    assert one[1] > 1.4 * pair.shape[1]


def test_long_transcripts_make_a_picture_of_bounded_size(tmp_path):
    weights = np.eye(600)
    attention = AttentionMap("long", ["A"] * 600, weights, 30.0)
    save_attention_maps(tmp_path / "long.png", [attention], "epoch 1")
    assert max(imread(tmp_path / "long.png").shape) <= 2400
