"""The benchmarks compare like with like: what they are compared with computes the same. Times are never asserted."""

import json
import multiprocessing
import re
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import data, decode, gemm, scale, train
from benchmarks.decoders import random_model
from benchmarks.flops import count_flops, lstm
from benchmarks.measure import Contestant, interleave, ratios, spread
from benchmarks.reference.speechbrain_las import count_parameters, why_missing
from benchmarks.reference.textbook import TextbookLAS
from benchmarks.reference.textbook_beam import textbook_beam
from benchmarks.shapes import SHAPES, Epoch, draw_lengths, parse_shape
from benchmarks.trainees import make_model, training_step, with_feeding
from config import load_config
from decoding.beam_search import beam_search
from decoding.recogniser import Recogniser
from models.las import LAS
from tests.conftest import SMALL
from utils.cli import run_command
from utils.errors import UserError
from utils.files import to_yaml
from utils.vocabulary import EOS, SOS, VOCABULARY

CPU, V = torch.device("cpu"), len(VOCABULARY)
TINY = "2,40,12,6"
TOKENS = torch.tensor([[SOS, 5, 9, 9, 17, 30], [SOS, 4, 4, 20, 8, 0], [SOS, 29, 3, 0, 0, 0]])


def textbook_names(state: dict) -> dict:
    """The weights of a LAS under the names that a TextbookLAS has for them."""

    def rename(name: str) -> str:
        name = re.sub(r"^(listener|speller)\.", "", name).replace("blstm.", "")
        name = re.sub(r"backward_lstm\.(\w+)", r"lstm.\1_reverse", name)
        return name.replace("forward_lstm.", "lstm.")

    return {rename(name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(("kind", "heads"), [("location", 1), ("dot", 2)])
def test_textbook_gives_the_logits_of_the_project(make_las, speech, small_settings, kind, heads):
    features, lengths = speech
    features = features.masked_fill(features == 1e3, 0.0)
    ours = make_las(scale=2.0, attention={"kind": kind, "heads": heads})
    settings = {**small_settings, "attention": {**small_settings["attention"], "kind": kind, "heads": heads}}
    for packed, rows in ((True, 3), (False, 1)):  # without packing only a whole batch of one length comes out right
        theirs = TextbookLAS(12, V, **settings, packed=packed).eval()
        theirs.load_state_dict(textbook_names(ours.state_dict()))
        logits, attention, encoded = ours(features[:rows], lengths[:rows], TOKENS[:rows])
        found, looked, heard = theirs(features[:rows], lengths[:rows], TOKENS[:rows])
        torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(looked, attention, atol=1e-4, rtol=1e-4)
        assert heard.ctc_lengths.tolist() == encoded.ctc_lengths.tolist()
        for row, length in enumerate(heard.ctc_lengths.tolist()):
            ctc, expected = heard.ctc_log_probs[row, :length], encoded.ctc_log_probs[row, :length]
            torch.testing.assert_close(ctc, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["project", "other", "packed", "padded", "speechbrain"])
def test_every_trainee_is_as_large_and_makes_a_step(small_settings, name):
    if name == "speechbrain" and why_missing():
        pytest.skip(why_missing())
    training = load_config(overrides=SMALL).training.model_dump()
    shape = parse_shape(TINY)
    model = make_model(name, 12, small_settings)
    expected = LAS(12, V, **(with_feeding(small_settings, False) if name == "other" else small_settings))
    tolerance = 0.05 if name == "speechbrain" else 0.0
    assert count_parameters(model) == pytest.approx(expected.parameter_count, rel=tolerance)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    batch = Epoch(shape, draw_lengths(shape.train), "random", CPU).batch(0)
    training_step(model, training, CPU, "float32")(batch)
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert np.mean(moved) > 0.9  # all but what nothing has reached yet
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("ctc_weight", [0.0, 0.4])
@pytest.mark.parametrize(("seed", "ending"), [(0, 0.0), (0, 6.0), (1, 12.0), (2, 12.0), (3, 9.0)])
def test_textbook_beam_finds_the_hypotheses_of_beam_search(make_las, speech, seed, ending, ctc_weight):
    features, lengths = speech
    model = make_las(seed, scale=2.5)
    with torch.no_grad():
        model.speller.output_bias[EOS] += ending
    limits, K, reward = torch.tensor([12, 9, 3]), 4, 0.3
    recogniser = Recogniser([model], ctc_weight)
    with torch.no_grad():
        together = beam_search(recogniser, recogniser.listen(features, lengths), limits, K, reward)
    for row, hypotheses in enumerate(together):
        found = textbook_beam(model, features[row, : lengths[row]], int(limits[row]), K, reward, ctc_weight)
        assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in hypotheses]
        for one, other in zip(found, hypotheses, strict=True):
            assert one[1:] == pytest.approx(other[1:], abs=1e-3)


def test_random_model_spells_varied_texts_to_the_limit(small_settings):
    settings = {name: value for name, value in small_settings.items() if name != "ctc"}
    hypothesis = textbook_beam(random_model(12, settings), torch.randn(200, 12), limit=40, beam_size=2)[0]
    assert len(hypothesis.tokens) == 40
    assert len(set(hypothesis.tokens)) > 2


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


def test_milliseconds_are_of_an_utterance_of_mean_length():
    shape = SHAPES["an4"]
    lengths = draw_lengths(shape.train)
    epoch = Epoch(shape, lengths, "bucketed", CPU)
    seconds = [1e-6 * int(epoch.batch(number).feature_lengths.sum()) for number in range(3)]  # a microsecond a frame
    assert epoch.milliseconds(seconds) == pytest.approx([1e-3 * lengths.frames.mean()] * 3)


@pytest.mark.parametrize(("kind", "heads"), [("location", 1), ("dot", 2)])
def test_flops_are_those_that_torch_counts(small_settings, kind, heads):
    conv = [{"channels": 16, "kernel": 5, "stride": 2}, {"channels": 24, "kernel": 3, "stride": 2}]
    settings = {
        **small_settings,
        "listener": {"conv": conv, "blstm_layers": 0, "pblstm_layers": 0, "hidden": 32, "dropout": 0.0},
        "attention": {"kind": kind, "heads": heads, "dim": 32},
        "speller": {**small_settings["speller"], "layers": 2},
    }
    B, T, U = 3, 41, 6

    def in_place(_, a: torch.Size, b: torch.Size, **__) -> int:  # torch counts addmm alone
        return 2 * a[0] * a[1] * b[1]

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})
    with counter:
        LAS(12, V, **settings)(torch.randn(B, T, 12), torch.full((B,), T), TOKENS)
    counted = count_flops(np.full(B, T), np.full(B, U + 1), 12, V, **settings)
    assert counted.total.sum() == counter.get_total_flops()


def test_flops_of_lstms_by_hand(small_settings):
    settings = {**small_settings, "listener": {**small_settings["listener"], "blstm_layers": 1, "pblstm_layers": 1}}
    found = count_flops(41, 7, 12, V, **settings)
    steps = 21  # of 41 frames after a stride of 2, and 11 after a pyramid layer
    blstm = 2 * 2 * steps * 4 * 32 * (32 + 32)
    pblstm = 2 * 2 * 11 * 4 * 32 * (2 * 64 + 32)
    assert found.listener == 2 * steps * 3 * 12 * 32 + blstm + pblstm
    assert found.ctc == 2 * 11 * 64 * V
    assert lstm(5, 3, 2) == 2 * 5 * 8 * (3 + 2)
    parallel = count_flops(41, 7, 12, V, **with_feeding(settings, False))
    assert parallel.speller == 6 * (lstm(1, 32, 64) + 2 * (64 + 32) * 32 + 2 * 32 * V)


def test_rounds_take_turns_and_a_slow_contestant_gets_fewer():
    calls, seconds = [], {"fast": 0.0, "slow": 0.05}

    def contestant(name: str) -> Contestant:
        def run(number: int) -> int:
            calls.append((name, number))
            time.sleep(seconds[name])
            return number

        return Contestant(name, lambda number: number, run)

    records = interleave([contestant("fast"), contestant("slow")], 3, 0.04, CPU)
    assert calls == [("fast", -1), ("slow", -1), ("fast", 0), ("slow", 0), ("fast", 1), ("fast", 2)]
    assert records["fast"].results == [0, 1, 2]
    assert len(records["slow"].seconds) == 1
    assert spread([3.0, 1.0, 2.0]) == (1.5, 2.0, 2.5)
    assert ratios([2.0], [4.0, 1.0])[1] == 0.5


@pytest.fixture
def small_config(tmp_path, monkeypatch):
    """A configuration file with a small model; matrix products are small as well."""
    monkeypatch.setitem(gemm.SIZE, "cpu", 64)
    monkeypatch.setattr(gemm, "SECONDS", 0.001)
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(load_config(overrides=SMALL).model_dump()), encoding="utf-8")
    return path


def run(module, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    run_command(module.main)


COMMANDS = {
    train: (
        "steps",
        train.NAMES,
        {"contestant", "rounds", "ms an utterance", "times project", "padded", "utilisation"},
    ),
    decode: ("decoders", decode.NAMES, {"contestant", "rounds", "ms an utterance", "times project"}),
    data: ("loader", ("ram-0", "off-2"), {"loader", "passes", "utterances a second", "waiting"}),
}


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__)
def test_commands_measure_at_a_tiny_shape(module, small_config, tmp_path, monkeypatch, capsys):
    table, names, columns = COMMANDS[module]
    written = tmp_path / "figures.json"
    arguments = ["--shape", TINY, "--config", str(small_config), "--device", "cpu", "--rounds", "1"]
    run(module, monkeypatch, *arguments, "--only", ",".join(names), "--json", str(written))
    screen = capsys.readouterr().out
    if module is not data and why_missing():
        assert why_missing() in screen
    found = json.loads(written.read_text(encoding="utf-8"))
    assert found["command"] == module.__name__
    assert found["machine"].keys() >= {"commit", "hardware", "threads", "torch"}
    assert all(row.keys() >= columns for row in found[table])
    if module is train:
        assert {row["contestant"] for row in found["steps"]} >= {"project", "other", "packed", "padded", "limit"}
        assert [row["contestant"] for row in found["listener"]] == ["listener", "lstms"]
        assert all(row["GFLOP/s"] > 0 for row in found["products"])
    if module is decode:
        same = [row["same hypotheses"] for row in found["decoders"] if row["contestant"].startswith("textbook")]
        assert same == ["16 of 16"] * 2


def test_plot_draws_the_growth(small_config, tmp_path, monkeypatch):
    picture, sizes = tmp_path / "growth.png", ["--plot-frames", "20,40", "--plot-batches", "1,2"]
    run(train, monkeypatch, "--config", str(small_config), "--rounds", "1", "--plot", str(picture), *sizes)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (train, "--shape 1,2", "--shape: found '1,2'"),
        (train, "--only fast", "--only: found 'fast'"),
        (train, "--rounds 0", "--rounds: found 0"),
        (train, "--json /no/such/folder/x.json", "--json"),
        (train, "--config no.yaml", "no.yaml"),
        (train, "--plot-frames 1,x --plot growth.png", "--plot-frames: found '1,x'"),
        (decode, "--seconds 0", "--seconds: found 0"),
        (decode, "--beam 0", "--beam: found 0"),
        (decode, "--checkpoint x.pt", "all three or none"),
        (data, "--shape 4,10,3,5 --utterances 7", "--utterances: found 7"),
    ],
)
def test_bad_arguments_are_one_message(module, arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(module, monkeypatch, *arguments.split())
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_scale_takes_an_epoch_of_links(tmp_path):
    """Packs at the first go; what it sends are times and memory that can be."""
    scale.link_corpus(tmp_path, {"train": 200, "dev": 8})
    files = list((tmp_path / "train" / "mfcc").iterdir())
    assert len(files) == 200
    assert len({path.stat().st_ino for path in files}) == scale.TEMPLATES
    receiver, sender = multiprocessing.Pipe(duplex=False)
    scale.go(tmp_path, time.time(), sender)
    started, shuffling, rate, at_start, peak, worker = receiver.recv()
    assert min(started, shuffling, rate) > 0
    assert 0 < at_start <= peak
    assert worker > 0
    assert list((tmp_path / "runs" / "packed").glob("train-*/features.bin"))
