"""A small learnable corpus, and settings small enough to train on it in seconds."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

from config import load_config
from models.las import LAS
from utils.vocabulary import VOCABULARY

SMALL = [
    "data.train=[train]",
    "data.dev=dev",
    "data.test=test",
    "data.workers=0",
    "model.listener={conv: [{channels: 32, kernel: 3, stride: 2}], blstm_layers: 1, pblstm_layers: 1, hidden: 32, "
    "dropout: 0.1}",
    "model.attention={kind: location, heads: 1, dim: 32}",
    "model.speller={embedding: 32, hidden: 64, layers: 1, dropout: 0.1}",
    "augment.from_epoch=2",
    "augment.frequency_width=2",
    "training.batch_size=8",
    "training.guided_attention=0.0",
    "training.learning_rate=5e-3",
    "training.warmup_epochs=0.5",
    "wandb.mode=disabled",
]


def write_utterance(folder: Path, name: str, text: str, features: np.ndarray) -> None:
    """A pair of files in the layout of F23."""
    for kind in ("mfcc", "transcripts"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    np.save(folder / "mfcc" / f"{name}.npy", features)
    np.save(folder / "transcripts" / f"{name}.npy", np.array(["<sos>", *text, "<eos>"]))


def speak(text: str, generator: np.random.Generator, dim: int = 12) -> np.ndarray:
    """Toy speech: each character is a fixed pattern that lasts 8 to 11 frames, in noise."""
    patterns = np.random.default_rng(0).normal(size=(128, dim))
    frames = [patterns[ord(character)] for character in text for _ in range(generator.integers(8, 12))]
    return (np.array(frames) + 0.1 * generator.normal(size=(len(frames), dim))).astype(np.float32)


def draw_text(generator: np.random.Generator, letters: str, shortest: int, longest: int) -> str:
    """No letter is doubled: at 8 to 11 frames a letter, a fast pair and a slow single one would sound alike."""
    drawn = generator.choice(list(letters), size=generator.integers(shortest, longest + 1))
    return "".join(letter for letter, _ in groupby(drawn))


def make_toy_corpus(root: Path, sizes: dict[str, int], letters: str = "ABCDE '") -> Path:
    generator = np.random.default_rng(1)
    for partition, size in sizes.items():
        for number in range(size):
            text = draw_text(generator, letters, 2, 8)
            write_utterance(root / partition, f"{partition}-{number:03d}", text, speak(text, generator))
    return root


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory) -> Path:
    """Partitions train, dev and test (without transcripts) of toy speech."""
    root = make_toy_corpus(tmp_path_factory.mktemp("toy"), {"train": 96, "dev": 12, "test": 9})
    for path in (root / "test" / "transcripts").iterdir():
        path.unlink()
    (root / "test" / "transcripts").rmdir()
    return root


@pytest.fixture
def small_settings() -> dict:
    """Keyword arguments of a small LAS with a CTC branch."""
    return {**load_config(overrides=SMALL).model.model_dump(), "ctc": True}


@pytest.fixture
def make_las(small_settings):
    """Builds a small LAS in evaluation mode; `scale` above 1 makes its choices clearer than chance weights do."""

    def make(seed: int = 0, scale: float = 1.0, feature_dim: int = 12, **sections) -> LAS:
        torch.manual_seed(seed)
        settings = {
            name: {**value, **sections.get(name, {})} if isinstance(value, dict) else sections.get(name, value)
            for name, value in small_settings.items()
        }
        model = LAS(feature_dim, len(VOCABULARY), **settings).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        return model

    return make


@pytest.fixture
def speech():
    """Three utterances of 41, 30 and 9 frames, padded with what must never be read."""
    torch.manual_seed(5)
    features, lengths = torch.randn(3, 41, 12), torch.tensor([41, 30, 9])
    for row, length in enumerate(lengths):
        features[row, length:] = 1e3
    return features, lengths
