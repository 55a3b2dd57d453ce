"""Synthetic utterances have the statistics of the corpora that they stand for."""

import pytest
import torch

from benchmarks.shapes import SHAPES, Epoch, draw_lengths, parse_shape
from utils.errors import UserError
from utils.vocabulary import EOS, SOS

CPU = torch.device("cpu")


@pytest.mark.parametrize("utterances", [None, 100_000])
@pytest.mark.parametrize("statistics", [SHAPES["kaggle"].train, SHAPES["kaggle"].decode, SHAPES["an4"].train])
def test_drawn_lengths_have_the_means_and_bounds_of_the_table(statistics, utterances):
    frames, tokens = draw_lengths(statistics, utterances)
    least, mean, most = statistics.frames
    assert frames.mean() == pytest.approx(mean, rel=0.02)
    assert tokens.mean() == pytest.approx(statistics.tokens[0], rel=0.02)
    assert least <= frames.min() <= frames.max() <= most
    assert 3 <= tokens.min() <= tokens.max() <= statistics.tokens[1]


def test_padding_of_the_competition_is_a_third_in_random_batches():
    shape = SHAPES["kaggle"]
    lengths = draw_lengths(shape.train)
    assert 0.28 < Epoch(shape, lengths, "random", CPU).padded_share < 0.38
    assert Epoch(shape, lengths, "bucketed", CPU).padded_share < 0.05


def test_a_fixed_shape_is_what_it_says():
    shape = parse_shape("3,50,7,9")
    batch = Epoch(shape, draw_lengths(shape.train), "random", CPU).batch(0)
    assert batch.features.shape == (3, 50, 7)
    assert batch.token_lengths.tolist() == [9, 9, 9]
    assert (batch.tokens[:, 0] == SOS).all()
    assert (batch.tokens[:, -1] == EOS).all()
    for text in ("fast", "1,2,3", "1,2,3,x", "0,10,3,4", "2,10,3,2"):
        with pytest.raises(UserError, match="--shape"):
            parse_shape(text)


def test_milliseconds_are_per_utterance_of_mean_length():
    shape = SHAPES["an4"]
    lengths = draw_lengths(shape.train)
    epoch = Epoch(shape, lengths, "bucketed", CPU)
    seconds = [1e-6 * int(epoch.batch(number).feature_lengths.sum()) for number in range(3)]  # 1 µs per frame
    assert epoch.ms_per_utterance(seconds) == pytest.approx([1e-3 * lengths.frames.mean()] * 3)
