"""Every path of training, evaluation and decoding on pretended CUDA: no mix of devices, few waits, few kernels."""

from pathlib import Path

import pytest
import torch

from benchmarks.pretend_cuda import PretendCuda
from corpora.loading import load_labelled
from dataset import Batch, FeatureDataset, make_loader
from decoding.beam_search import beam_search
from decoding.greedy import SYNC_EVERY, greedy_search
from decoding.language_model import train_language_model
from decoding.ranking import RANKERS
from decoding.recogniser import Recogniser
from decoding.recordings import attend
from decoding.rescoring import score_hypotheses
from decoding.transcribe import DecodingOptions, share_of_batches, transcribe
from models.las import LAS
from training.evaluate import evaluate, utterances_to_show
from training.step import StepResult, TrainStep
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.vocabulary import EOS, KAGGLE

V = len(KAGGLE)
SPELLERS = {  # attention, heads, input feeding, layers: kernels per character at teacher forcing 1.0 and 0.7
    "seed.yaml": ("dot", 1, True, 2, 29, 46),
    "location, one cell": ("location", 1, True, 1, 42, 59),
    "location, two cells": ("location", 1, True, 2, 50, 67),
    "dot, no loop": ("dot", 4, False, 2, 0, 0),
    "config.yaml": ("relative", 4, False, 2, 0, 0),
}


CPU = torch.device("cpu")


@pytest.fixture
def gpu():
    with PretendCuda() as gpu:
        yield gpu


def make_model(speller: str, ctc: bool = True, dropout: float = 0.1) -> LAS:
    kind, heads, feeding, layers, *_ = SPELLERS[speller]
    conv = [{"channels": 16, "kernel": 3, "stride": 2}]
    torch.manual_seed(0)
    return LAS(
        12,
        V,
        {"conv": conv, "blstm_layers": 1, "pblstm_layers": 1, "hidden": 16, "dropout": dropout},
        {"kind": kind, "heads": heads, "dim": 32},
        {"embedding": 16, "hidden": 32, "layers": layers, "input_feeding": feeding, "dropout": dropout},
        ctc,
    )


def make_batch(characters: int = 8, frames: int = 60) -> Batch:
    torch.manual_seed(1)
    lengths, tokens = frames - torch.tensor([0, 10, 19, 30]), characters + 1 - torch.tensor([0, 1, 3, 2])
    return Batch(torch.arange(4), torch.randn(4, frames, 12), lengths, torch.randint(3, V, (4, characters + 1)), tokens)


def take(model: LAS, device: torch.device, characters: int = 8, **changed) -> tuple[TrainStep, StepResult]:
    settings = {"precision": "float32", "accumulate": 1, "teacher_forcing_rate": 1.0, "train_speller": True} | changed
    step = TrainStep(
        model,
        SINGLE_PROCESS,
        settings.pop("precision"),
        [Path(f"u{index}.npy") for index in range(4)],
        accumulate=settings.pop("accumulate"),
        weight_decay=0.01,
        clip_norm=5.0,
        ctc_weight=0.3,
        label_smoothing=0.1,
        ema_steps=5,
        ctc_only_warmup=not settings["train_speller"],
    )
    batch = make_batch(characters).to(device)
    torch.manual_seed(2)
    return step, step(batch, characters=batch.characters, learning_rate=1e-3, guided_attention=1.0, **settings)


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("speller", SPELLERS)
@pytest.mark.parametrize("rate", [1.0, 0.7])
def test_a_step_waits_once_and_takes_few_kernels_per_character(gpu, speller, rate):
    kernels = []
    for characters in (6, 10):
        with gpu.count() as counted:
            take(gpu.move(make_model(speller)), gpu.device, characters, teacher_forcing_rate=rate)
        kernels.append(counted.kernels)
        assert counted.syncs == [next(sync for sync in counted.syncs if "training/step.py" in sync)]
    assert (kernels[1] - kernels[0]) / 4 <= SPELLERS[speller][4 if rate == 1 else 5]


@pytest.mark.parametrize("speller", SPELLERS)
def test_a_step_is_that_of_the_cpu(speller):
    """The fused LSTM cell above all, which only CUDA has."""
    expected_step, expected = take(make_model(speller, dropout=0.0), CPU)
    with PretendCuda() as gpu:
        step, found = take(gpu.move(make_model(speller, dropout=0.0)), gpu.device)
        weights = [weight.detach().cpu() for weight in step.ema_model.parameters()]
    torch.testing.assert_close(found.losses, expected.losses)
    torch.testing.assert_close(found.gradient_norm, expected.gradient_norm, rtol=1e-4, atol=1e-4)
    for weight, other in zip(weights, expected_step.ema_model.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-3, atol=2e-3)  # AdamW's first steps are signs of gradients


@pytest.mark.parametrize(
    "settings",
    [{"precision": "bf16"}, {"precision": "fp16"}, {"accumulate": 3}, {"train_speller": False}],
    ids=lambda settings: next(iter(settings)) + str(next(iter(settings.values()))),
)
def test_every_kind_of_step_waits_once(gpu, settings):
    with gpu.count() as counted:
        _, result = take(gpu.move(make_model("config.yaml")), gpu.device, **settings)
    assert result.updated
    assert len(counted.syncs) == 1, counted.syncs
    # The batch of 4 has two parts of 2 with accumulate=3. Three waits are in the CTC loss and three in its backward
    # pass, no caller's fault; relative attention takes its positions from a forward pass of its own.
    per_part = 9 if settings.get("train_speller", True) else 6
    assert counted.waits_inside == per_part * (2 if settings.get("accumulate") else 1)


def test_no_memory_in_the_optimiser_is_the_message_on_batches(gpu, monkeypatch):
    def fail(*arguments, **more):
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(UserError, match=r"no memory for a batch of 4 utterances .*training\.accumulate=2"):
        take(gpu.move(make_model("config.yaml")), gpu.device)


def test_a_batch_that_is_not_finite_is_skipped_under_sampling(gpu, caplog):
    """torch.multinomial would end the process: a device-side assertion."""
    model = gpu.move(make_model("seed.yaml"))
    with torch.no_grad():
        next(model.listener.parameters()).fill_(float("nan"))
    _, result = take(model, gpu.device, teacher_forcing_rate=0.5)
    assert not result.updated
    assert "skipped a batch" in caplog.text


# ------------------------------------------------------------------------------------------------------------ decoding


def encode(models: list[LAS], gpu: PretendCuda, **settings) -> tuple[Recogniser, tuple, torch.Tensor]:
    batch = make_batch(frames=240).to(gpu.device)
    recogniser = Recogniser([gpu.move(model) for model in models], **settings)
    with torch.no_grad():
        encoded = recogniser.encode(batch.features, batch.feature_lengths)
    return recogniser, encoded, torch.tensor([40, 33, 40, 29])


def language_model(gpu: PretendCuda):
    return train_language_model(["ABE BAD", "CAB DEAD"], 4).to(gpu.device)


@pytest.mark.parametrize("speller", SPELLERS)
def test_search_waits_once_in_eight_steps(gpu, speller):
    model = make_model(speller, dropout=0.0)
    model.speller.output_bias.data[EOS] = -9.0  # texts run to their limits
    settings = {"ctc_weight": 0.1, "language_model": language_model(gpu), "lm_weight": 0.1}
    recogniser, encoded, limits = encode([model], gpu, **settings)
    for search in (greedy_search, lambda *arguments: beam_search(*arguments, beam_size=4)):
        with gpu.count() as counted:
            search(recogniser, encoded, limits)
        steps = counted.by_name["argmax"]  # one per step in either search
        assert steps >= 40
        reading = 1 if search is greedy_search else 3 * 4  # up to three times finished rows: which, and their columns
        assert len(counted.syncs) <= steps // SYNC_EVERY + 1 + reading, counted.syncs


def test_beams_of_an_ensemble_are_those_of_the_cpu():
    def search(recogniser, encoded, limits):
        beams = beam_search(recogniser, encoded, limits, 4, length_reward=0.5)
        return [[hypothesis.tokens for hypothesis in beam] for beam in beams], [RANKERS["mbr"](beam) for beam in beams]

    def models():
        return [make_model(speller, dropout=0.0) for speller in ("seed.yaml", "location, two cells", "config.yaml")]

    batch = make_batch(frames=240)
    recogniser = Recogniser(models(), ctc_weight=0.4)
    with torch.no_grad():
        expected = search(recogniser, recogniser.encode(*batch[1:3]), torch.tensor([40, 33, 40, 29]))
    with PretendCuda() as gpu:
        found = search(*encode(models(), gpu, ctc_weight=0.4))
    assert found == expected


def test_scores_by_source_and_maps_of_recordings_are_those_of_the_cpu():
    """What tune.py and --audio compute besides a search."""

    def scores(recogniser, encoded, features):
        hypotheses = [[[5, 9], []], [[7]], [[8, 8, 8]], [[4], [5], [6]]]
        found = score_hypotheses(recogniser, encoded, hypotheses)
        return [
            *(values for each in found for values in each),
            torch.from_numpy(attend(recogniser.models[0], features, "AB")),
        ]

    settings = {"ctc_weight": 0.4, "lm_weight": 0.3}
    batch = make_batch(frames=240)
    lm = train_language_model(["ABE BAD", "CAB DEAD"], 4)
    recogniser = Recogniser([make_model("config.yaml", dropout=0.0)], language_model=lm, **settings)
    with torch.no_grad():
        expected = scores(recogniser, recogniser.encode(*batch[1:3]), batch.features[0])
    with PretendCuda() as gpu:
        model = make_model("config.yaml", dropout=0.0)
        recogniser, encoded, _ = encode([model], gpu, language_model=language_model(gpu), **settings)
        found = scores(recogniser, encoded, batch.features[0].to(gpu.device))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, check_dtype=False)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_dev_is_evaluated_and_a_corpus_transcribed(gpu, toy_root, precision):
    (corpus,) = load_labelled(toy_root, {"dev": ["dev"]}, "mean_variance")
    model = gpu.move(make_model("config.yaml", dropout=0.0)).eval()
    loader = make_loader(
        FeatureDataset(corpus), share_of_batches(corpus.lengths, 1, V, gpu.device, SINGLE_PROCESS), 0, CPU
    )
    assert len(loader) == 2
    with gpu.count() as counted:
        found = evaluate(model, loader, utterances_to_show(corpus), gpu.device, precision, ctc_weight=0.5)
    assert len(found.predictions) == len(corpus)
    assert len([sync for sync in counted.syncs if "training/evaluate.py" in sync]) <= 2 * len(loader), counted.syncs
    recogniser = Recogniser([model], ctc_weight=0.5, precision=precision)
    for options in (DecodingOptions("greedy", 1, "likelihood", 0.0, False), DecodingOptions("beam", 4, "mbr", 0.5)):
        assert len(transcribe(recogniser, corpus, options, gpu.device)) == len(corpus)


# --------------------------------------------------------------------------------------------------------- the pretence


def test_a_mix_of_devices_fails(gpu):
    with pytest.raises(AssertionError, match=r"add.*on the CPU among tensors on cuda:0, tests/test_cuda\.py"):
        torch.ones(3, device=gpu.device) + torch.ones(3)


def test_what_waits_is_noted(gpu):
    x = torch.arange(6.0, device=gpu.device)
    for wait in (
        lambda: float(x.sum()),
        lambda: x.tolist(),
        lambda: x[x > 2],
        lambda: x[[1, 2]],
        lambda: x.cpu(),
        lambda: torch.ones(2).to(gpu.device),
        lambda: torch.tensor(1.0, device=gpu.device),
        lambda: bool((x > 2).any()),
    ):
        with gpu.count() as counted:
            wait()
        assert counted.syncs, wait
        assert "tests/test_cuda.py" in counted.syncs[0]
    with gpu.count() as counted:
        torch.ones(2).to(gpu.device, non_blocking=True) + x[:2].view(2)
    assert counted.syncs == []
    assert counted.kernels == 2  # the copy and the sum; views are none
    assert counted.bytes == 4 * (2 + 3 * 2)
