"""Warnings of a run that is stuck, on models made to fail in each way."""

import pytest
import torch

from corpora.loading import load_labelled
from dataset import FeatureDataset, make_loader
from decoding.transcribe import fill_batches
from training.diagnosis import diagnose
from training.evaluate import evaluate
from utils.metrics import tidy
from utils.vocabulary import CTC_BLANK, EOS, KAGGLE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dev(toy_root):
    (corpus,) = load_labelled(toy_root, {"dev": ["dev"]}, "mean_variance")
    return make_loader(FeatureDataset(corpus), fill_batches(corpus.lengths, 4 * max(corpus.lengths)), 0, CPU)


def look(model, dev) -> tuple[dict, list[str]]:
    metrics, _, predictions = evaluate(model, dev, [0], CPU, "float32")
    return metrics, [text for _, _, text, _ in predictions]


@torch.no_grad()
def test_flat_attention(make_las, dev):
    model = make_las(attention={"kind": "dot"}, speller={"input_feeding": True})
    model.speller.attention.query.weight.zero_()
    model.speller.attention.query.bias.zero_()
    metrics, _ = look(model, dev)
    assert metrics["dev_sharpness"] == pytest.approx(0, abs=1e-5)
    assert metrics["dev_coverage"] == 1  # a flat map leaves nothing out: coverage alone says little
    assert metrics["dev_monotonicity"] == pytest.approx(0, abs=1e-5)
    warning = diagnose(metrics, 8)[0]
    assert "not aligned after 8 epochs" in warning
    assert "sharpness 0.00: it is nearly flat" in warning
    assert "training.guided_attention=1" in warning


@torch.no_grad()
def test_attention_that_stands_still_is_sharp_but_not_aligned(make_las, dev):
    """Every character looks at the first step."""
    model = make_las()

    def stay(query, memory, *others):
        weights = torch.zeros(*memory.keys.shape[:2], query.size(1), memory.keys.size(2))
        weights[..., 0] = 1
        return (weights @ memory.values).transpose(1, 2).flatten(2), weights

    model.speller.attention.forward = stay
    metrics, _ = look(model, dev)
    assert metrics["dev_sharpness"] == 1
    assert metrics["dev_coverage"] < 0.6
    assert "it picks places, but not in order" in diagnose(metrics, 8)[0]


@torch.no_grad()
def test_no_eos(make_las, dev):
    """It may say anything but where the text ends."""
    model = make_las(scale=3.0)
    model.speller.output_bias[EOS] = -1e4
    metrics, texts = look(model, dev)
    assert metrics["dev_unended"] == 1
    assert min(map(len, texts)) > 10
    (warning,) = [line for line in diagnose(metrics, 8) if "<eos>" in line]
    assert "100% of the dev hypotheses run to their limit of characters" in warning
    assert "decoding.ctc_weight=0.5" in warning
    model.speller.output_bias[EOS] = 1e4  # it ends at once: another fault, and not this one
    metrics, texts = look(model, dev)
    assert metrics["dev_unended"] == 0
    assert set(texts) == {""}
    assert not any("<eos>" in line or "loops" in line for line in diagnose(metrics, 8))


@torch.no_grad()
def test_loops(make_las, dev):
    """A Speller that knows nothing but what follows what: A B C A B C ..."""
    model = make_las()
    following = {"A": "B", "B": "C", "C": "A"}

    def spell(token, state, memory, spoken):
        after = [following.get(KAGGLE.tokens[index], "A") for index in token.tolist()]
        logits = torch.full((len(after), len(KAGGLE)), -9.0)
        logits[range(len(after)), [KAGGLE.encode(character)[1] for character in after]] = 9.0
        weights = torch.zeros(len(after), 1, memory.keys.size(2))
        return logits, state, weights

    model.speller.step = spell
    metrics, texts = look(model, dev)
    assert all(text.startswith("ABCABCABC") for text in texts)
    assert metrics["dev_loops"] == 1
    (warning,) = [line for line in diagnose(metrics, 16) if line.startswith("loops")]
    assert "loops after 16 epochs: 100% of the dev hypotheses repeat themselves" in warning
    assert "model.attention.kind=location" in warning


@torch.no_grad()
def test_a_ctc_branch_that_writes_blanks_only(make_las, dev):
    """Where relative attention fails: its prior follows the branch, so its monotonicity tells nothing."""
    model = make_las(attention={"kind": "relative"}, speller={"input_feeding": False})
    model.ctc.bias[CTC_BLANK] = 1e4
    metrics, _ = look(model, dev)
    characters = sum(len(tidy(text)) for text in dev.dataset.corpus.transcripts) / len(dev.dataset.corpus)
    assert metrics["dev_ctc_distance"] == pytest.approx(characters)
    (warning,) = [line for line in diagnose(metrics, 8) if line.startswith("CTC")]
    assert f"CTC reads nothing after 8 epochs: its branch alone has distance {characters:.1f}, of" in warning
    assert f" of {characters:.1f} characters." in warning


@pytest.mark.parametrize(
    ("metrics", "warnings"),
    [
        ({"dev_distance": 5.0, "dev_cer": 0.5, "dev_ctc_distance": 8.1}, ["CTC reads nothing", "8.1, of 10.0"]),
        ({"dev_distance": 5.0, "dev_cer": 0.5, "dev_ctc_distance": 8.0}, []),
        ({"dev_distance": 5.0, "dev_cer": 0.5}, []),
        ({}, []),
        ({"dev_monotonicity": 0.4, "dev_unended": 0.5, "dev_loops": 0.2}, []),
        ({"dev_monotonicity": 0.39, "dev_sharpness": 0.2}, ["not aligned", "it picks places"]),
        ({"dev_monotonicity": 0.39, "dev_sharpness": 0.19}, ["not aligned", "it is nearly flat"]),
        ({"dev_unended": 0.51}, ["no <eos>", "51% of the dev hypotheses run to their limit of characters."]),
        ({"dev_loops": 0.21}, ["loops", "21% of the dev hypotheses repeat themselves far more than their references."]),
        ({"dev_monotonicity": 0.39, "dev_unended": 0.51}, ["no <eos>", "as they do before attention aligns"]),
    ],
)
def test_from_which_share_on_a_warning_is_due(metrics, warnings):
    healthy = {"dev_monotonicity": 0.8, "dev_sharpness": 0.6, "dev_unended": 0.0, "dev_loops": 0.0}
    found = diagnose(healthy | metrics, 8)
    assert len(found) == (0 if not warnings else 1 + ("as they do" in warnings[1]))
    assert all(word in found[-1] for word in warnings)


def test_a_healthy_epoch_and_one_of_an_older_run_say_nothing():
    healthy = {"dev_monotonicity": 0.8, "dev_coverage": 0.9, "dev_sharpness": 0.6, "dev_unended": 0.1, "dev_loops": 0.0}
    assert diagnose(healthy, 8) == []
    assert diagnose({"dev_monotonicity": 0.8}, 8) == []
    (warning,) = diagnose({"dev_monotonicity": 0.1}, 8)
    assert "(monotonicity 0.10)." in warning
