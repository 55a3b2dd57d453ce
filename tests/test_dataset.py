"""Utterances as batches: normalised, padded, by workers or not."""

import pickle
import signal
import sys

import numpy as np
import pytest
import torch

from corpora.layout import find_partition
from corpora.loading import load_corpus
from dataset import Batch, FeatureDataset, _prepare_worker, collate, is_cepstral, make_loader, normalize
from tests.conftest import write_utterance
from utils.augment import Augmentation
from utils.sampler import BucketSampler, Item
from utils.vocabulary import EOS, PAD, SOS

CPU = torch.device("cpu")
OFF = {
    "cepstral": False,
    "vocal_tract": 0.1,
    "frequency_masks": 0,
    "frequency_width": 0,
    "time_masks": 0,
    "time_width": 0,
    "time_fraction": 0.0,
}


def test_normalize():
    features = torch.from_numpy(np.random.default_rng(0).normal(3, 2, size=(50, 5)).astype(np.float32))
    assert normalize(features, "none") is features
    mean = normalize(features, "mean")
    np.testing.assert_allclose(mean.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(mean.numpy().std(0), features.numpy().std(0), rtol=1e-4)
    np.testing.assert_allclose(normalize(features, "mean_variance").numpy().std(0), 1, rtol=1e-3)
    assert torch.isfinite(normalize(torch.ones(9, 5), "mean_variance")).all()


def test_batches_pad_and_tell_lengths(toy_root):
    corpus = load_corpus([find_partition(toy_root, "dev")], "mean_variance")
    dataset = FeatureDataset(corpus)
    batch = collate([dataset[Item(3)], dataset[Item(0)]])
    assert batch.features.shape == (2, max(corpus.lengths[3], corpus.lengths[0]), 12)
    assert batch.feature_lengths.tolist() == [corpus.lengths[3], corpus.lengths[0]]
    for row, index in enumerate((3, 0)):
        length, characters = batch.feature_lengths[row], batch.token_lengths[row]
        assert (batch.features[row, length:] == 0).all()
        assert characters == len(corpus.texts[index]) + 2
        assert batch.tokens[row, 0] == SOS
        assert batch.tokens[row, characters - 1] == EOS
        assert (batch.tokens[row, characters:] == PAD).all()


def test_concatenated_utterances_are_normalised_apart_and_their_texts_have_a_space_between(toy_root):
    corpus = load_corpus([find_partition(toy_root, "dev")], "mean_variance")
    dataset = FeatureDataset(corpus)
    first, second, both = dataset[Item(3)], dataset[Item(0)], dataset[Item(3, follower=0)]
    assert torch.equal(both.features, torch.cat([first.features, second.features]))
    assert corpus.vocabulary.decode(both.tokens.tolist()) == f"{corpus.texts[3]} {corpus.texts[0]}"
    assert both.tokens.tolist().count(SOS) == both.tokens.tolist().count(EOS) == 1


def test_batches_do_not_depend_on_workers_or_cache(toy_root, tmp_path):
    """Augmentation included: what is drawn is a function of seed, epoch and utterance."""

    def epoch_of(workers, cache):
        partition = find_partition(toy_root, "train")
        corpus = load_corpus([partition], "mean", cache=cache, cache_folder=tmp_path / "packed")
        assert (corpus.features is None) == (cache == "off")
        augmentation = Augmentation(
            seed=4, from_epoch=1, **{**OFF, "time_masks": 2, "time_width": 9, "time_fraction": 1}
        )
        sampler = BucketSampler(corpus.lengths, 8, seed=0, speed=0.1)
        sampler.epoch = 2
        return list(make_loader(FeatureDataset(corpus, augmentation), sampler, workers, CPU))

    kept = epoch_of(0, "ram")
    for others in (epoch_of(2, "off"), epoch_of(0, "mmap"), epoch_of(2, "mmap")):
        for batch, other in zip(kept, others, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def test_spawned_workers_map_the_features_of_a_corpus(toy_root, tmp_path, monkeypatch):
    """As on Windows and macOS, where what a worker gets is pickled: a mapped corpus without its features."""
    partition = find_partition(toy_root, "train")
    corpus = load_corpus([partition], "mean", cache="mmap", cache_folder=tmp_path / "packed")
    assert len(pickle.dumps(corpus)) < 0.5 * sum(corpus.lengths) * corpus.format.dim * 4
    dataset = FeatureDataset(corpus)
    batches = [[Item(0), Item(1)], [Item(2)]]
    expected = list(make_loader(dataset, batches, 0, CPU))
    monkeypatch.setattr("dataset.WORKERS_FORK", False)
    loader = make_loader(dataset, batches, 1, CPU)
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    for batch, other in zip(expected, loader, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


@pytest.mark.parametrize("cache", ["ram", "off"])
def test_cepstra_are_told_from_bands(tmp_path, cache):
    """Neighbouring bands of a spectrum rise and fall together; their cosine transform's coefficients do not."""
    generator = np.random.default_rng(0)
    order = np.arange(28)
    transform = np.cos(np.pi * order[:, None] * (np.arange(28) + 0.5) / 28)
    for number in range(4):
        shapes = np.exp(-(((order - generator.uniform(0, 28, size=(5, 1))) / 4) ** 2))  # five resonances
        bands = generator.normal(size=(80, 5)) @ shapes + 0.05 * generator.normal(size=(80, 28))
        write_utterance(tmp_path / "mel", f"u{number}", "A", bands.astype(np.float32))
        write_utterance(tmp_path / "mfcc", f"u{number}", "A", (bands @ transform.T).astype(np.float32)[:, :13])
    found = {
        name: is_cepstral(load_corpus([find_partition(tmp_path, name)], "mean", cache=cache))
        for name in ("mel", "mfcc")
    }
    assert found == {"mel": False, "mfcc": True}


@pytest.mark.parametrize(("scale", "deviation"), [(1e-2, 1e-2 + 1e-5), (1.0, 1.0 + 1e-5), (4e14, 4e14), (1e15, None)])
def test_deviations_beside_their_epsilon(scale, deviation):
    """Of two frames at plus and minus one; where features are huge, epsilon is of their own scale."""
    features = scale * torch.tensor([[1.0, -2.0], [-1.0, 2.0]])
    found = normalize(features, "mean_variance")
    assert found.dtype == torch.float32
    if deviation is None:
        expected = torch.tensor([1.0, -2.0]) / (torch.tensor([1.0, 2.0]) + 1e-5 * 2.5**0.5)
    else:
        expected = scale * torch.tensor([1.0, -2.0]) / torch.tensor([deviation, scale + deviation])
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=0)
    assert normalize(0 * features, "mean_variance").tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_some_rows_of_a_batch_have_no_padding_of_others():
    lengths, token_lengths = torch.tensor([5, 2, 3]), torch.tensor([4, 3, 6])
    batch = Batch(torch.tensor([7, 8, 9]), torch.rand(3, 5, 2), lengths, torch.arange(18).view(3, 6), token_lengths)
    assert batch.characters == 3 + 2 + 5
    rest = batch.rows(slice(1, 3))
    assert rest.indices.tolist() == [8, 9]
    assert torch.equal(rest.features, batch.features[1:, :3])
    assert torch.equal(rest.tokens, batch.tokens[1:])
    assert batch.rows(slice(1, 2)).tokens.shape == (1, 3)
    assert rest.characters == 7


@pytest.mark.parametrize(("workers", "device"), [(0, "cpu"), (2, "cpu"), (0, "cuda")])
def test_how_a_loader_is_made(toy_root, workers, device):
    corpus = load_corpus([find_partition(toy_root, "dev")], "mean")
    loader = make_loader(FeatureDataset(corpus), [[Item(0)]], workers, torch.device(device))
    assert loader.num_workers == workers
    assert loader.persistent_workers == (workers > 0)
    assert loader.pin_memory == (device == "cuda")
    assert (loader.multiprocessing_context is None) == (workers == 0)


def test_workers_leave_signals_to_the_main_process(monkeypatch):
    set_to = {}
    monkeypatch.setattr("dataset.signal.signal", set_to.__setitem__)
    monkeypatch.setattr("sys.excepthook", sys.excepthook)  # put back afterwards
    _prepare_worker(0)
    assert set_to[signal.SIGINT] == set_to[signal.SIGTERM] == signal.SIG_IGN


def test_utterances_without_transcripts_have_no_tokens(toy_root):
    corpus = load_corpus([find_partition(toy_root, "test")], "none")
    utterance = FeatureDataset(corpus)[Item(4)]
    assert (utterance.position, utterance.tokens.tolist()) == (4, [])
    assert torch.equal(utterance.features, torch.from_numpy(corpus.read(4)))
