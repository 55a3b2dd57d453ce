"""Numbers at the edge of what floats hold: features, weights, losses, times. None gives a wrong result silently."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

import train
from config import load_config
from corpora.checks import read_utterance
from corpora.layout import find_partition
from corpora.loading import BadCorpus, load_corpus
from dataset import FeatureDataset, is_cepstral, normalize
from decoding.recogniser import Recogniser
from decoding.transcribe import DecodingOptions, transcribe
from tests.conftest import SMALL, make_toy_corpus, speak, write_utterance
from training.resume import load_last, start_from
from training.schedules import Schedules, learning_rate, progress, time_is_up
from utils.checkpoint import load_checkpoint, load_models, previous, save_checkpoint
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.vocabulary import KAGGLE

CPU = torch.device("cpu")
OPTIONS = [
    DecodingOptions(mode, 4, rank, 0.5)
    for mode, rank in (("greedy", "likelihood"), ("beam", "likelihood"), ("beam", "mbr"))
]


# ------------------------------------------------------------------------------------------------------------ features


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e4, 1e18, 1e30, 1e37])
def test_normalisation_does_not_depend_on_the_scale(scale):
    torch.manual_seed(0)
    features = torch.randn(200, 13) * torch.linspace(0.5, 3, 13) + 2
    found = normalize((features.double() * scale).float(), "mean_variance")
    assert torch.allclose(found, normalize(features, "mean_variance"), atol=1e-3)
    assert torch.allclose(found.std(0, correction=0), torch.ones(13), atol=1e-3)


def test_a_constant_dimension_is_zero_and_its_rounding_is_not_made_loud():
    features = torch.randn(100, 3)
    features[:, 1] = -13.8155
    for scale in (1e-8, 1.0, 1e20):
        found = normalize(features * scale, "mean_variance")
        assert found.isfinite().all()
        assert found[:, 1].abs().max() < 0.05
    assert torch.equal(normalize(torch.full((5, 2), 7.0), "mean_variance"), torch.zeros(5, 2))


def test_ordinary_features_keep_the_formula_that_models_were_trained_with():
    features = torch.randn(50, 8) * 4 - 7
    centred = features - features.mean(0)
    assert torch.equal(normalize(features, "mean_variance"), centred / (centred.std(0, correction=0) + 1e-5))


@pytest.mark.parametrize("scale", [1e-6, 1e30])
def test_cepstra_are_told_from_bands_at_any_scale(tmp_path, scale):
    generator = np.random.default_rng(0)
    for number in range(4):
        smooth = np.repeat(generator.normal(size=(60, 3)), 4, axis=1) + 0.1 * generator.normal(size=(60, 12))
        write_utterance(tmp_path / "bands", f"{number}", "A", (smooth * scale).astype("f4"))
        write_utterance(tmp_path / "cepstra", f"{number}", "A", (generator.normal(size=(60, 12)) * scale).astype("f4"))
    corpora = [load_corpus([find_partition(tmp_path, name)], "mean_variance") for name in ("bands", "cepstra")]
    assert [is_cepstral(corpus) for corpus in corpora] == [False, True]
    assert FeatureDataset(corpora[0]).corpus.read(0).dtype == np.float32


@pytest.mark.parametrize("cache", ["ram", "mmap"])
def test_features_beyond_half_precision_are_findings(tmp_path, cache):
    for number, scale in enumerate((1.0, 1e5, -1e5)):
        features = np.ones((30, 4), "f4")
        features[7, 2] = scale
        write_utterance(tmp_path / "data" / "train", f"u{number}", "A", features)
    partition, keys = find_partition(tmp_path / "data", "train"), {"cache": cache, "cache_folder": tmp_path / "packs"}
    with pytest.raises(BadCorpus) as error:
        load_corpus([partition], "mean", half=True, **keys)
    for words in ("u1.npy'", "u2.npy'", "100,000", "65,504", "data.half_precision=false"):
        assert words in str(error.value)
    assert "u0.npy" not in str(error.value)
    assert len(load_corpus([partition], "mean", half=True, skip_bad=True, **keys)) == 1
    assert len(load_corpus([partition], "mean", **keys)) == 3
    assert not read_utterance(partition.features[1], None).findings


# ------------------------------------------------------------------------------------------------------------- weights


def checkpoint_of(model, settings) -> dict:
    return {
        "model": model.state_dict(),
        "model_settings": settings,
        "features": {"dim": 12, "time_first": True, "normalize": "mean"},
        "vocabulary": list(KAGGLE.tokens),
        "epoch": 1,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_model_that_is_not_finite_is_neither_decoded_nor_begun_with(make_las, small_settings, tmp_path, value):
    good, bad = make_las(), make_las(seed=1)
    with torch.no_grad():
        bad.speller.output.weight[3, 1] = value
    for name, model in (("good.pt", good), ("bad.pt", bad)):
        save_checkpoint(tmp_path / name, checkpoint_of(model, small_settings))
    for paths in (["bad.pt"], ["good.pt", "bad.pt"]):
        with pytest.raises(UserError, match=r"bad\.pt: found weights that are not finite \(speller\.output\.weight\)"):
            load_models([tmp_path / path for path in paths])
    with pytest.raises(UserError, match=r"training\.start_from: .*bad\.pt: found weights that are not finite"):
        start_from(str(tmp_path / "bad.pt"), good)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: f"{options.mode}-{options.rank}")
def test_a_model_that_overflows_names_the_file(make_las, tmp_path, options):
    root = make_toy_corpus(tmp_path, {"dev": 3})
    corpus = load_corpus([find_partition(root, "dev")], "mean_variance")
    recogniser = Recogniser([make_las(scale=1e30)], 0.3)
    with pytest.raises(UserError, match=r"dev-00\d\.npy.*: found no finite numbers"):
        transcribe(recogniser, corpus, options, CPU)


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def make_trainer(toy_root, tmp_path):
    def make(*more: str, name: str = "run") -> train.Trainer:
        keys = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", f"run.name={name}", *more]
        config = load_config(overrides=keys)
        config.run.path.mkdir(exist_ok=True)
        return train.Trainer(config, CPU, SINGLE_PROCESS)

    return make


def test_weights_that_are_not_finite_are_never_saved(make_trainer, tmp_path):
    """The checkpoint before stays, and the run says what to do."""
    make_trainer("training.epochs=1").fit()
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.pt")}
    trainer = make_trainer("training.epochs=2")
    with torch.no_grad():
        next(iter(trainer.step.model.parameters())).fill_(float("inf"))
    with pytest.raises(UserError, match=r"training\.learning_rate"):
        trainer.fit()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.pt")} == before


def test_a_dev_loss_that_is_not_finite_is_never_best(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer("training.epochs=1")
    monkeypatch.setattr("training.evaluate.las_loss", lambda *arguments: train_loss_of_nan())
    with pytest.raises(UserError, match="the loss on dev is nan"):
        trainer.fit()
    assert not (tmp_path / "run" / "best.pt").exists()
    assert load_checkpoint(tmp_path / "run" / "last.pt")["history"] == []


def train_loss_of_nan():
    from models.las import Loss

    return Loss(*(torch.tensor(float("nan")),) * 3)


@pytest.mark.parametrize("batches", [1, 2])
def test_short_epochs_without_a_finite_gradient_stop_the_run(batches, tmp_path, make_las):
    """Fewer batches per epoch than may fail in a row."""
    generator = np.random.default_rng(0)
    for number in range(4 * batches):
        write_utterance(tmp_path / "train", f"{number:02d}", "A BE", speak("A BE", generator))
    write_utterance(tmp_path / "dev", "0", "A BE", speak("A BE", generator))
    keys = [*SMALL, f"data.root={tmp_path}", f"run.dir={tmp_path}", "training.batch_size=4", "training.epochs=50"]
    config = load_config(overrides=keys)
    config.run.path.mkdir()
    trainer = train.Trainer(config, CPU, SINGLE_PROCESS)
    with torch.no_grad():
        trainer.step.model.speller.output.bias.fill_(float("nan"))
    with pytest.raises(UserError, match=r"finite"):
        trainer.fit()
    assert not trainer.state.history


def test_a_resumed_run_falls_back_from_weights_that_are_not_finite(make_trainer, tmp_path, caplog):
    make_trainer("training.epochs=2").fit()
    folder = tmp_path / "run"
    last = load_checkpoint(folder / "last.pt")
    last["weights"] = {name: value * float("nan") for name, value in last["weights"].items()}
    torch.save(last, folder / "last.pt")
    found = load_last(folder)
    assert found["epoch"] == load_checkpoint(previous(folder / "last.pt"))["epoch"]
    assert "found weights that are not finite" in caplog.text


# ---------------------------------------------------------------------------------------------------------------- time


def schedules(**changes) -> Schedules:
    values = {
        "epochs": 1000,
        "max_minutes": 10.0,
        "learning_rate": 1.0,
        "schedule": "cosine",
        "warmup_epochs": 0.0,
        "plateau_patience": 1,
        "ctc_epochs": 0,
        "guided_attention": 0.0,
        "expected_distance": 0.0,
        "teacher_forcing": {"start": 1.0, "stages": []},
    }
    return Schedules(**(values | changes))


def test_a_pause_of_the_machine_is_not_taken_for_the_pace():
    seconds = [10.0, 10.0, 250.0]  # the machine slept for four minutes in the third epoch
    assert not time_is_up(seconds, 10)  # a fourth as long as the third would not fit
    assert progress(3.5, 1000, seconds, 10) == pytest.approx(275 / 600)
    assert time_is_up([10.0] * 59 + [5.0], 10)


def test_the_learning_rate_comes_down_when_time_does():
    assert learning_rate(9, progress(9, 1000, [60.0] * 9, 10), 1.0, "cosine", 0) < 0.1


def test_time_is_over_within_an_epoch_too():
    history = [{"seconds": 300.0}]
    assert not schedules().time_is_over(history, 299)
    assert schedules().time_is_over(history, 301)
    assert not schedules(max_minutes=None).time_is_over(history, 1e9)


def test_a_first_epoch_that_is_longer_than_the_limit_ends_in_time(make_trainer, tmp_path, caplog):
    caplog.set_level(logging.INFO, "las")
    trainer = make_trainer("training.epochs=50", "training.max_minutes=0.00001")
    trainer.fit()
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(metrics) == 1
    assert "training.max_minutes: epoch 1 ends after 1 of 12 batches" in caplog.text
    assert load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 1
