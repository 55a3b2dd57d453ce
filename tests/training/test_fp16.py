"""float16 with a scaled loss, on a CPU: it learns, resumes bit for bit, and an overflow is no bad batch."""

import logging

import pytest
import torch

import train
from config import load_config
from tests.conftest import SMALL
from utils.checkpoint import load_checkpoint
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError

CPU = torch.device("cpu")


def make_trainer(toy_root, folder, name, epochs, *more) -> train.Trainer:
    keys = [*SMALL, f"data.root={toy_root}", f"run.dir={folder}", f"run.name={name}", f"training.epochs={epochs}"]
    config = load_config(overrides=[*keys, "training.precision=fp16", "training.schedule=constant", *more])
    config.run.path.mkdir(exist_ok=True)
    return train.Trainer(config, CPU, SINGLE_PROCESS)


def test_it_learns_and_resumes_bit_for_bit(toy_root, tmp_path):
    make_trainer(toy_root, tmp_path, "whole", 3).fit()
    make_trainer(toy_root, tmp_path, "parts", 1).fit()
    make_trainer(toy_root, tmp_path, "parts", 3).fit()
    whole, parts = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert whole["scaler"] == parts["scaler"]
    assert whole["scaler"]["scale"] > 1
    for key, value in whole["weights"].items():
        assert torch.equal(value, parts["weights"][key]), key
    losses = [row["train_loss"] for row in whole["history"]]
    assert losses[2] < 0.8 * losses[0]


def test_gradients_are_clipped_at_their_true_size(toy_root, tmp_path):
    """Unscaled first: the norm is that of float32, not 65,536 times it."""
    trainer = make_trainer(toy_root, tmp_path, "run", 1)
    trainer.fit()
    assert 0 < trainer.state.history[0]["gradient_norm"] < 100


def test_an_overflow_of_the_scale_is_no_bad_batch(toy_root, tmp_path, caplog):
    """More of them in a row than bad batches may be."""
    caplog.set_level(logging.INFO, "las")
    trainer = make_trainer(toy_root, tmp_path, "run", 3)
    trainer.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100, growth_interval=10**6)
    overflows = 0
    for batch in trainer.data.train_loader:
        result = trainer.step(
            batch,
            characters=batch.characters,
            learning_rate=1e-3,
            teacher_forcing_rate=1.0,
            guided_attention=0.0,
            train_speller=True,
        )
        assert result.overflow != result.updated
        overflows += result.overflow
    assert overflows > 3
    assert "skipped a batch" not in caplog.text


def test_a_gradient_that_is_never_finite_stops_the_run(toy_root, tmp_path):
    trainer = make_trainer(toy_root, tmp_path, "run", 2)
    with torch.no_grad():
        trainer.step.model.speller.output.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="gave no finite gradient"):
        trainer.fit()


def test_a_run_of_another_precision_does_not_need_a_scaler(toy_root, tmp_path):
    make_trainer(toy_root, tmp_path, "run", 1).fit()
    last = load_checkpoint(tmp_path / "run" / "last.pt")
    del last["scaler"]  # as before there was one
    torch.save(last, tmp_path / "run" / "last.pt")
    make_trainer(toy_root, tmp_path, "run", 2).fit()
    assert load_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 2
