import numpy as np
import pytest
import torch

from corpora.layout import find_partition
from corpora.loading import load_corpus
from dataset import FeatureDataset, collate, is_cepstral, make_loader, normalize
from tests.conftest import write_utterance
from utils.augment import Augmentation
from utils.errors import UserError
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


@pytest.fixture
def broken_root(tmp_path):
    """The exact F23 names, one good pair, and every kind of bad file."""
    folder = tmp_path / "data" / "train-clean-100"
    good = np.random.default_rng(0).normal(size=(80, 28)).astype(np.float32)
    for name in ("good", "wide", "nan", "inf", "short", "truncated", "no-transcript", "letters", "silent", "empty"):
        write_utterance(folder, name, "GOOD DAY", good)
    for name in ("good-2", "good-3"):
        write_utterance(folder, name, "IT'S", good)
    features, transcripts = folder / "mfcc", folder / "transcripts"
    np.save(features / "wide.npy", np.ones((80, 30), np.float32))
    for value in ("nan", "inf"):
        array = good.copy()
        array[7, 3] = float(value)
        np.save(features / f"{value}.npy", array)
    np.save(features / "short.npy", good[:20])
    (features / "truncated.npy").write_bytes((features / "good.npy").read_bytes()[:-100])
    (transcripts / "no-transcript.npy").unlink()
    np.save(transcripts / "letters.npy", np.array(["<sos>", "Ü", "<eos>"]))
    np.save(transcripts / "silent.npy", np.array(["<sos>", "<eos>"]))
    (features / "empty.npy").write_bytes(b"")
    np.save(transcripts / "orphan.npy", np.array(["<sos>", "A", "<eos>"]))
    return tmp_path / "data"


def test_every_kind_of_bad_file_is_in_one_report(broken_root, tmp_path, caplog):
    report = tmp_path / "run" / "findings.txt"

    def load(**options):
        partition = find_partition(broken_root, "train-clean-100")
        limits = {"character_limit": lambda frames: -(-frames // 4), "report": report}
        return load_corpus([partition], "mean", **limits, **options)

    with pytest.raises(UserError) as error:
        load()
    message = str(error.value)
    for file, found in {
        "mfcc/wide.npy": "found shape (80, 30); expected shape (T, 28)",
        "mfcc/nan.npy": "found nan at [7, 3]",
        "mfcc/inf.npy": "found inf at [7, 3]",
        "transcripts/short.npy": "found a transcript of 8 characters (1 doubled) for 20 frames; expected at most 5",
        "mfcc/truncated.npy": "found a truncated file",
        "transcripts/no-transcript.npy": "found no file",
        "transcripts/letters.npy": "outside the vocabulary: 'Ü'",
        "transcripts/silent.npy": "found an empty transcript",
        "mfcc/empty.npy": "found an empty file",
        "transcripts/orphan.npy": "found no features for it",
    }.items():
        line = next(line for line in message.splitlines() if file in line)
        assert found in line
        assert "expected" in line
        assert line in report.read_text()
    assert len(message.splitlines()) == 12
    assert "data.skip_bad=true" in message

    corpus = load(skip_bad=True)
    assert [path.stem for path in corpus.paths] == ["good-2", "good-3", "good"]
    assert "going on without them" in caplog.messages[0]


def test_a_corpus_of_bad_files_alone_is_an_error_even_when_skipping(tmp_path):
    write_utterance(tmp_path / "dev", "a", "HI", np.full((20, 4), np.nan, np.float32))
    with pytest.raises(UserError, match="finite numbers"):
        load_corpus([find_partition(tmp_path, "dev")], "mean", skip_bad=True)


def test_several_partitions_make_one_corpus(toy_root):
    train, dev = (find_partition(toy_root, name) for name in ("train", "dev"))
    corpus = load_corpus([train, dev], "mean")
    assert len(corpus) == 96 + 12
    assert corpus.paths == train.features + dev.features


def test_normalize():
    features = torch.from_numpy(np.random.default_rng(0).normal(3, 2, size=(50, 5)).astype(np.float32))
    assert normalize(features, "none") is features
    mean = normalize(features, "mean")
    np.testing.assert_allclose(mean.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(mean.numpy().std(0), features.numpy().std(0), rtol=1e-4)
    np.testing.assert_allclose(normalize(features, "mean_variance").numpy().std(0), 1, rtol=1e-3)
    assert torch.isfinite(normalize(torch.ones(9, 5), "mean_variance")).all()


def kaggle_lengths(N: int = 28_539) -> np.ndarray:
    """Lengths with the mean (1,265) and maximum (2,448) of train-clean-100: most between 12 and 16 seconds."""
    generator = np.random.default_rng(0)
    long = np.clip(generator.normal(1450, 110, N), 200, 2448)
    lengths = np.where(generator.random(N) < 0.75, long, generator.uniform(140, 1300, N)).round()
    assert abs(lengths.mean() - 1265) < 20
    return lengths


@pytest.mark.parametrize("speed", [0.0, 0.1])
def test_padding_is_below_5_percent(speed):
    lengths = kaggle_lengths()
    sampler = BucketSampler(lengths.tolist(), 32, seed=0, speed=speed)
    sampler.epoch = 3
    real = padded = 0
    for batch in sampler:
        frames = [lengths[item.position] / item.speed for item in batch]
        real, padded = real + sum(frames), padded + len(frames) * max(frames)
    assert 1 - real / padded < 0.05


def test_sampler_drops_nothing_and_depends_on_seed_and_epoch_alone():
    lengths = kaggle_lengths(1003).tolist()

    def batches(seed, epoch):
        sampler = BucketSampler(lengths, 7, seed, speed=0.1)
        sampler.POOL = 20
        sampler.epoch = epoch
        result = list(sampler)
        assert len(result) == len(sampler)
        return result

    first = batches(0, 1)
    assert sorted(item.position for batch in first for item in batch) == list(range(1003))
    assert all(0.9 <= item.speed <= 1.1 for batch in first for item in batch)
    assert first == batches(0, 1)
    assert first != batches(0, 2)
    assert first != batches(1, 1)
    assert len(list(BucketSampler(lengths, 7))) == len(BucketSampler(lengths, 7)) == 144


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
