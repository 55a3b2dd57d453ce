"""train.py as a person runs it, on toy speech: it learns, resumes, and says what is wrong.

What breaks or stops a run is in tests/training/test_failures.py and test_interruption.py.
"""

import itertools
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

import train
from config import load_config
from report.build import gather
from tests.conftest import SMALL, make_toy_corpus, messages, run, write_utterance
from train import Trainer
from utils.checkpoint import load_checkpoint, load_models
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.features import FeatureConfig
from utils.files import parse_yaml
from utils.locking import sole_writer

CPU = torch.device("cpu")


def test_it_learns_and_aligns(trained):
    metrics, stdout = pd.read_csv(trained.folder / "metrics.csv"), trained.stdout
    assert metrics["epoch"].tolist() == list(range(1, 25))
    best = metrics.loc[metrics["dev_distance"].idxmin()]
    assert best["dev_cer"] < 0.1
    assert best["dev_monotonicity"] > 0.8
    assert metrics["dev_monotonicity"][0] < 0.5
    for column in ("train_loss", "dev_loss", "learning_rate", "teacher_forcing_rate", "gradient_norm"):
        assert metrics[column].notna().all()
    assert (metrics["utterances_per_second"] > 0).all()
    assert metrics["data_wait"].between(0, 1).all()
    assert "found: F23 layout, 12-dim mfcc, transcripts with sos/eos: train, 96 utterances" in stdout
    assert best["dev_coverage"] > 0.8
    assert best["dev_sharpness"] > metrics["dev_sharpness"][0] + 0.2
    assert best["dev_unended"] == best["dev_loops"] == 0
    assert "What usually helps" not in stdout.partition("epoch  16")[2]


def test_a_run_begins_with_what_is_trained_and_how_long_it_will_take(trained):
    for line in (
        r"device +CPU, \d+ cores?, \d+ threads?, (float32|bf16)",
        r"data +train 96 utterances, 0\.0\d hours; dev 12 utterances, 0\.\d\d hours",
        r"model +[\d,]+ parameters, time reduction 4x, \w+ attention",
        r"alignment 9\.\d frames per character: 2\.\d\d steps for attention, 2\.\d\d for CTC",
        r"training +24 epochs of 12 batches of 8",
        r"expected +about \d+ s per epoch, \d+ (s|min) for 24 \(dev passes come on top\); [\d.]+ GiB of memory",
    ):
        assert len(re.findall(f"^{line}$", trained.stdout, re.M)) == 1, line


def test_what_a_run_leaves(trained):
    folder = trained.folder
    assert {"config.yaml", "best.pt", "last.pt", "metrics.csv", "attention", "train.log"} <= set(os.listdir(folder))
    assert load_config(folder / "config.yaml") == load_config(overrides=trained.arguments)
    pictures = sorted((folder / "attention").glob("epoch-*.png"))
    assert [picture.name for picture in pictures] == [f"epoch-{epoch:03d}.png" for epoch in range(1, 25)]
    height, width = imread(folder / "attention" / "first-and-best.png").shape[:2]
    assert height > 200
    assert width > 400
    assert messages(folder).startswith(trained.stdout)
    best = load_checkpoint(folder / "best.pt")
    metrics = pd.read_csv(folder / "metrics.csv")
    texts = pd.read_csv(folder / "dev-best.csv", keep_default_na=False)
    assert len(texts) == 12
    assert texts["distance"].mean() == pytest.approx(metrics["dev_distance"].min(), rel=1e-5)
    report = gather(folder)
    assert [one["epoch"] for one in report["maps"]["epochs"]] == list(range(1, 25))
    assert report["best"] == best["epoch"]
    assert report["environment"]["train"].startswith("96 utterances, 0.0")
    assert "report.html: cannot" not in trained.stdout
    assert best["epoch"] == metrics["dev_distance"].idxmin() + 1


def test_a_run_starts_from_the_weights_of_another(trained):
    """The Listener is taken over, a Speller of another size is new."""
    folder = trained.folder
    more = [
        "run.name=next",
        "training.epochs=1",
        f"training.start_from={folder / 'best.pt'}",
        "training.learning_rate=1e-4",
    ]
    result = run("train.py", *trained.arguments, *more, "model.speller.hidden=48")
    assert re.search(r"starting from .*best\.pt: listener, ctc; new: speller", result.stdout)
    before, after = pd.read_csv(folder / "metrics.csv"), pd.read_csv(folder.parent / "next" / "metrics.csv")
    assert after["dev_ctc_distance"][0] < before["dev_ctc_distance"].min() + 0.5
    assert after["dev_loss"][0] > before["dev_loss"].min() + 0.5
    again = run("train.py", *trained.arguments, *more, "model.speller.hidden=48").stdout
    assert "starting from" not in again  # a resumed run has weights of its own
    other = ["run.name=no", "model.listener.hidden=20", "model.attention.dim=8"]
    refused = run("train.py", *trained.arguments, *more, *other, expect=2)
    assert "found a model of other sizes" in refused.stderr


# ------------------------------------------------------------------------------------------------------------ resuming


def test_a_finished_run_is_not_trained_again(trained):
    before = (trained.folder / "last.pt").read_bytes()
    assert "all 24 epochs are done" in run("train.py", *trained.arguments).stdout
    assert (trained.folder / "last.pt").read_bytes() == before


def test_other_settings_under_the_same_name_are_refused(trained):
    result = run("train.py", *trained.arguments, "training.batch_size=9", expect=2)
    assert "training.batch_size: was 8, is now 9" in result.stderr
    assert "run.name" in result.stderr


def test_a_second_training_under_the_same_name_is_refused_while_the_first_runs(trained):
    """The report and test.py go on reading what it writes."""
    with sole_writer(trained.folder, "train.py"):
        result = run("train.py", *trained.arguments, expect=2)
        assert f"{trained.folder}: found at work already: train.py (process {os.getpid()} on " in result.stderr
        assert "dev: 12 utterances" in run("test.py", *trained.arguments, "--split", "dev").stdout


def test_a_run_does_not_go_on_with_other_data_unless_that_is_said(trained, toy_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(toy_root, root)
    shutil.copytree(trained.folder, tmp_path / "toy")
    for kind in ("mfcc", "transcripts"):
        (root / "train" / kind / "train-007.npy").unlink()
    arguments = [*trained.arguments, f"run.dir={tmp_path}", f"data.root={root}", "training.epochs=25"]
    refused = run("train.py", *arguments, expect=2).stderr
    assert "was trained on other data: of 96 utterances 1 removed (train/train-007)" in refused
    assert "epoch  25: " in run("train.py", *arguments, "data.accept_changes=true").stdout


def test_features_of_another_dimension_are_one_message(trained, tmp_path):
    """To resume on, and to decode."""
    for partition, size in (("train", 9), ("dev", 3)):
        for number in range(size):
            features = np.random.default_rng(number).normal(size=(60, 15)).astype(np.float32)
            write_utterance(tmp_path / partition, f"{number:03d}", "A BE", features)
    other = [*trained.arguments, f"data.root={tmp_path}"]
    assert "data.root: found features of dim 15, expected 12, as" in run("train.py", *other, expect=2).stderr
    message = run("test.py", *other, "--split", "dev", expect=2).stderr
    assert message.count("\n") == 1
    assert "dev/mfcc: found 3 arrays of shapes such as (60, 15), expected (T, 12)" in message


@pytest.fixture
def older(trained, tmp_path):
    """A copy of the trained run, in a checkpoint of which the test changes what older versions wrote otherwise."""
    folder = tmp_path / "toy"
    shutil.copytree(trained.folder, folder)
    return folder, [*trained.arguments, f"run.dir={tmp_path}"]


def test_a_run_without_the_newest_metrics_goes_on(older):
    folder, arguments = older
    last = load_checkpoint(folder / "last.pt")
    new = ("dev_coverage", "dev_sharpness", "dev_unended", "dev_loops")
    last["history"] = [{key: value for key, value in row.items() if key not in new} for row in last["history"]]
    torch.save(last, folder / "last.pt")
    run("train.py", *arguments, "training.epochs=25")
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["dev_coverage"].isna().tolist() == [True] * 24 + [False]


def test_checkpoints_with_the_old_names_of_features_go_on_and_decode(older):
    """Keys of older versions: recipe and usual_frames, by now feature_config and p95_frames."""
    folder, arguments = older
    old = {"bands": 40, "cepstra": 12, "lowest": 20.0, "highest": 7600.0}
    old |= {"rate": 16_000, "window": 400, "hop": 160, "fft": 512}
    for name in ("last.pt", "best.pt"):
        checkpoint = load_checkpoint(folder / name)
        assert checkpoint.pop("feature_config") is None
        frames = checkpoint.pop("p95_frames")
        torch.save({**checkpoint, "recipe": old, "usual_frames": frames}, folder / name)
    expected = FeatureConfig(40, 12, 20.0, 7600.0, 16_000, 400, 160, 512)
    before = load_models([folder / "best.pt"])
    assert (before.feature_config, before.p95_frames) == (expected, frames)

    run("train.py", *arguments, "training.epochs=25")
    last = load_checkpoint(folder / "last.pt")
    assert last["epoch"] == 25
    assert last["feature_config"] == vars(expected)
    assert last["p95_frames"] == frames
    assert last.keys().isdisjoint({"recipe", "usual_frames"})
    decoded = run("test.py", *arguments, "--split", "dev")
    assert "dev: 12 utterances, distance 0." in decoded.stdout
    refused = run("test.py", *arguments, "--audio", "no.wav", expect=2)  # how features are computed is known
    assert "no.wav" in refused.stderr


# ----------------------------------------------------------------------------------------------------------- schedules


def test_the_listener_alone_first(toy_root, tmp_path):
    """training.ctc_epochs: the Speller stays as it was, and no such epoch is the best."""
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=ctc", "training.ctc_epochs=2"]
    run("train.py", *arguments, "training.epochs=1", "training.average_epochs=0")
    first = load_checkpoint(tmp_path / "ctc" / "best.pt")
    run("train.py", *arguments, "training.epochs=2", "training.average_epochs=0")
    second = load_checkpoint(tmp_path / "ctc" / "last.pt")
    changed = {
        name.split(".")[0] for name, weights in first["model"].items() if not weights.equal(second["model"][name])
    }
    assert changed == {"listener", "ctc"}
    assert [row["train_attention_loss"] for row in second["history"]] == [0, 0]
    assert second["history"][0]["dev_distance"] == second["history"][0]["dev_ctc_distance"]
    run("train.py", *arguments, "training.epochs=3", "training.average_epochs=0")
    assert load_checkpoint(tmp_path / "ctc" / "best.pt")["epoch"] == 3
    result = run("train.py", *arguments, "training.ctc_weight=0", expect=2)
    assert "training.ctc_weight above 0 where training.ctc_epochs is 2" in result.stderr


def test_a_run_ends_in_time(toy_root, tmp_path, monkeypatch, caplog):
    """The first epoch tells how many fit; the schedule ends with the last of them."""
    clock = itertools.count(step=30.0)  # it is read at the beginning and at the end of every epoch
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    keys = ["run.name=short", "training.epochs=1000", "training.max_minutes=2"]
    config = load_config(overrides=[*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", *keys])
    train.main(config)
    metrics = pd.read_csv(tmp_path / "short" / "metrics.csv")
    assert metrics["seconds"].tolist() == [30.0] * 4
    assert metrics["learning_rate"].iloc[-1] < 0.3 * metrics["learning_rate"].max()
    assert "best: epoch" in caplog.text
    train.main(config)
    assert "all 4 epochs are done" in caplog.text


def test_a_run_that_does_not_align_says_so(toy_root, tmp_path):
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=stuck", "training.epochs=8"]
    result = run("train.py", *arguments, "training.learning_rate=1e-9")
    assert "warning: not aligned after 8 epochs" in result.stdout
    assert "training.ctc_weight=0.3" in result.stdout


# ------------------------------------------------------------------------------------------------------------ messages


def test_no_memory_for_a_batch_names_the_keys_to_turn(toy_root, tmp_path, monkeypatch):
    config = load_config(overrides=[*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "training.accumulate=2"])
    config.run.path.mkdir()
    trainer = Trainer(config, CPU, SINGLE_PROCESS)

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.step, "_backward", fail)
    message = (
        r"no memory for a batch of 8 utterances of up to \d+ frames: .*training\.accumulate=4.*training\.batch_size"
    )
    with pytest.raises(UserError, match=message):
        trainer.fit()


def test_a_loss_that_is_not_finite_stops_the_run_with_a_message(toy_root, tmp_path):
    """On the console, and in the run's log. Features are so large that products of them overflow."""
    root = tmp_path / "data"
    shutil.copytree(toy_root, root)
    for path in (root / "train" / "mfcc").iterdir():
        np.save(path, np.load(path) * np.float32(1e37))
    arguments = [*SMALL, f"data.root={root}", f"run.dir={tmp_path}", "run.name=wild", "data.normalize=none"]
    result = run("train.py", *arguments, expect=2)
    assert "warning: skipped a batch whose gradient is not finite: train-" in result.stdout
    assert "error: 3 batches in a row gave no finite gradient" in result.stderr
    assert "lower training.learning_rate" in result.stderr
    assert messages(tmp_path / "wild") == result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["train.py", "data.root=nowhere"],
            ["command line: data.root: found no folder nowhere", "kaggle competitions"],
        ),
        (["test.py", "run.name=never"], ["best.pt", "train first"]),
        (["train.py", "training.device=cuda"], ["training.device", "no CUDA"]),
        (["train.py", "model.attention.heads=5"], ["model.attention.heads"]),
    ],
)
def test_clear_messages(arguments, words, toy_root, tmp_path):
    if "cuda" in arguments[1] and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    base = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}"]
    result = run(arguments[0], *base, *arguments[1:], expect=2)
    assert result.stderr.startswith("error: ")
    assert all(word in result.stderr for word in words), result.stderr
    assert list(tmp_path.iterdir()) == []  # a failed start leaves no folder of a run


@pytest.mark.parametrize("name", ["seed", "demo"])
def test_shipped_configurations_train_and_decode(name, toy_root, tmp_path):
    """The seed's: dot attention, 8x, no CTC branch, sampled characters from the first epoch."""
    keys = ["data.train=[train]", "data.dev=dev", "data.test=test", "data.workers=0", "wandb.mode=disabled"]
    keys += [f"data.root={toy_root}", f"run.dir={tmp_path}", "training.epochs=1"]
    trained = run("train.py", "--config", f"configs/{name}.yaml", *keys)
    assert f"time reduction {8 if name == 'seed' else 4}x" in trained.stdout
    assert ("CTC alone" in trained.stdout) == (name == "demo")
    decoded = run("test.py", "--config", f"configs/{name}.yaml", *keys, "--split", "dev")
    assert f"(beam {3 if name == 'seed' else 4})" in decoded.stdout


def test_findings_in_train_and_dev_are_one_report(tmp_path):
    root = make_toy_corpus(tmp_path / "data", {"train": 4, "dev": 4})
    for file in ("train/mfcc/train-001.npy", "dev/mfcc/dev-002.npy"):
        (root / file).write_bytes(b"")
    arguments = [*SMALL, f"data.root={root}", f"run.dir={tmp_path}"]
    result = run("train.py", *arguments, expect=2)
    for file in ("train-001.npy", "dev-002.npy"):
        assert f"{file}': found an empty file; expected a .npy array" in result.stderr
    assert result.stderr.count("data.skip_bad=true") == 1
    assert "train-001.npy" in (tmp_path / "las" / "findings-train.txt").read_text()  # why this folder stays
    skipped = run("train.py", *arguments, "data.skip_bad=true", "training.epochs=1")
    assert "train, 3 utterances" in skipped.stdout


def test_a_run_from_before_there_were_vocabularies_goes_on_with_its_own(toy_root, tmp_path):
    keys = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}"]
    run("train.py", *keys, "training.epochs=1")
    last = tmp_path / "las" / "last.pt"
    checkpoint = torch.load(last, weights_only=True)
    del checkpoint["text_form"]
    for section, key in (("data", "vocabulary"), ("data", "units"), ("data", "text"), ("augment", "concatenate")):
        del checkpoint["config"][section][key]
    torch.save(checkpoint, last)
    refused = run("train.py", *keys, "training.epochs=2", "data.text.case=lower", expect=2)
    assert "data.text.case: was 'keep', is now 'lower'" in refused.stderr
    assert "epoch   2" in run("train.py", *keys, "training.epochs=2").stdout


def test_main_trains_in_this_process(toy_root, tmp_path, caplog):
    """As a notebook or another program would: it prints nothing, and what it logs is in train.log."""
    config = load_config(overrides=[*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "training.epochs=1"])
    train.main(config)
    folder = tmp_path / "las"
    assert [line.split(":")[0] for line in caplog.messages if line.startswith("epoch")] == ["epoch   1"]
    assert messages(folder) == "".join(f"{line}\n" for line in caplog.messages)
    assert parse_yaml((folder / "config.yaml").read_text()) == config.model_dump()


def test_help_lists_flags_and_keys():
    for file in ("train.py", "tune.py", "test.py"):
        text = run(file, "--help", fresh=True).stdout
        assert max(map(len, text.splitlines())) <= 80
        parts = (f"\n  python {file}", "\n  --config FILE", "data.root=", "training.device=auto", "decoding.mode=beam")
        order = [text.index(part) for part in parts]
        assert order == sorted(order)
        assert ("training.teacher_forcing.start=1.0" in text) == (file == "train.py")
    assert "--checkpoint" in text
    assert "--split" in text
