"""train.py and test.py from outside, on toy speech: it learns, survives being killed, and writes exact bytes."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from config import load_config
from report.build import gather
from tests.conftest import SMALL, draw_text, make_toy_corpus, speak, write_utterance
from train import Trainer
from utils.checkpoint import load_checkpoint
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.files import parse_yaml

HOME = Path(__file__).parents[1]
ENVIRONMENT = {"OMP_NUM_THREADS": "2", **os.environ}  # as many threads in every run: sums depend on how they are split


def command(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def run(*arguments: str, cwd=HOME, expect: int = 0) -> subprocess.CompletedProcess:
    result = subprocess.run(
        command(str(HOME / arguments[0]), *arguments[1:]), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert result.returncode == expect, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def trained(toy_root, tmp_path_factory):
    """A run that has learned toy speech, what it printed, and the arguments that made it."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={runs}", "run.name=toy", "training.epochs=24"]
    return runs / "toy", run("train.py", *arguments), arguments


def test_it_learns_and_aligns(trained):
    folder, result, _ = trained
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["epoch"].tolist() == list(range(1, 25))
    best = metrics.loc[metrics["dev_distance"].idxmin()]
    assert best["dev_cer"] < 0.1
    assert best["dev_monotonicity"] > 0.8
    assert metrics["dev_monotonicity"][0] < 0.5
    for column in ("train_loss", "dev_loss", "learning_rate", "teacher_forcing_rate", "gradient_norm"):
        assert metrics[column].notna().all()
    assert (metrics["utterances_per_second"] > 0).all()
    assert metrics["data_wait"].between(0, 1).all()
    assert "found: F23 layout, 12-dim mfcc, transcripts with sos/eos: train, 96 utterances" in result.stdout
    assert best["dev_coverage"] > 0.8
    assert best["dev_sharpness"] > metrics["dev_sharpness"][0] + 0.2
    assert best["dev_unended"] == best["dev_loops"] == 0
    assert "What usually helps" not in result.stdout.partition("epoch  16")[2]
    for line in (
        r"device +CPU, \d+ cores?, \d+ threads?, (float32|bf16)",
        r"data +train 96 utterances, 0\.0\d hours; dev 12 utterances, 0\.\d\d hours",
        r"model +[\d,]+ parameters, time reduction 4x",
        r"alignment 9\.\d frames a character: 2\.\d\d steps for attention, 2\.\d\d for CTC",
        r"training +24 epochs of 12 batches of 8",
        r"expected +about \d+ s an epoch, \d+ (s|min) for 24 \(dev passes come on top\); [\d.]+ GiB of memory",
    ):
        assert len(re.findall(f"^{line}$", result.stdout, re.M)) == 1, line


def test_what_a_run_leaves(trained):
    folder, result, arguments = trained
    assert {"config.yaml", "best.pt", "last.pt", "metrics.csv", "attention", "train.log"} <= set(os.listdir(folder))
    assert load_config(folder / "config.yaml") == load_config(overrides=arguments)
    pictures = sorted((folder / "attention").glob("epoch-*.png"))
    assert [picture.name for picture in pictures] == [f"epoch-{epoch:03d}.png" for epoch in range(1, 25)]
    height, width = imread(folder / "attention" / "first-and-best.png").shape[:2]
    assert height > 200
    assert width > 400
    log = (folder / "train.log").read_text()
    for line in result.stdout.splitlines():
        assert line in log
    best = load_checkpoint(folder / "best.pt")
    metrics = pd.read_csv(folder / "metrics.csv")
    texts = pd.read_csv(folder / "dev-best.csv", keep_default_na=False)
    assert len(texts) == 12
    assert texts["distance"].mean() == pytest.approx(metrics["dev_distance"].min(), rel=1e-5)
    report = gather(folder)
    assert [one["epoch"] for one in report["maps"]["epochs"]] == list(range(1, 25))
    assert report["best"] == best["epoch"]
    assert report["environment"]["train"].startswith("96 utterances, 0.0")
    assert "report.html: cannot" not in result.stdout
    assert best["epoch"] == metrics["dev_distance"].idxmin() + 1


def test_a_run_starts_from_the_weights_of_another(trained):
    """The Listener is taken over, a Speller of another size is new."""
    folder, _, arguments = trained
    more = [
        "run.name=next",
        "training.epochs=1",
        f"training.start_from={folder / 'best.pt'}",
        "training.learning_rate=1e-4",
    ]
    result = run("train.py", *arguments, *more, "model.speller.hidden=48")
    assert re.search(r"starting from .*best\.pt: listener, ctc; new: speller", result.stdout)
    before, after = pd.read_csv(folder / "metrics.csv"), pd.read_csv(folder.parent / "next" / "metrics.csv")
    assert after["dev_ctc_distance"][0] < before["dev_ctc_distance"].min() + 0.5
    assert after["dev_loss"][0] > before["dev_loss"].min() + 0.5
    again = run("train.py", *arguments, *more, "model.speller.hidden=48").stdout
    assert "starting from" not in again  # a resumed run has weights of its own
    refused = run(
        "train.py", *arguments, *more, "run.name=no", "model.listener.hidden=20", "model.attention.dim=8", expect=2
    )
    assert "found a model of other sizes" in refused.stderr


def test_a_finished_run_is_not_trained_again(trained):
    folder, _, arguments = trained
    before = (folder / "last.pt").read_bytes()
    assert "all 24 epochs are done" in run("train.py", *arguments).stdout
    assert (folder / "last.pt").read_bytes() == before


def test_other_settings_under_the_same_name_are_refused(trained):
    _, _, arguments = trained
    result = run("train.py", *arguments, "training.batch_size=9", expect=2)
    assert "training.batch_size: was 8, is now 9" in result.stderr
    assert "run.name" in result.stderr


def test_features_of_another_dimension_are_one_message(trained, tmp_path):
    """To resume on, and to decode."""
    _, _, arguments = trained
    for partition, size in (("train", 9), ("dev", 3)):
        for number in range(size):
            features = np.random.default_rng(number).normal(size=(60, 15)).astype(np.float32)
            write_utterance(tmp_path / partition, f"{number:03d}", "A BE", features)
    other = [*arguments, f"data.root={tmp_path}"]
    assert "data.root: found features of dim 15, expected 12, as" in run("train.py", *other, expect=2).stderr
    message = run("test.py", *other, "--split", "dev", expect=2).stderr
    assert message.count("\n") == 1
    assert "dev/mfcc: found 3 arrays of shapes such as (60, 15), expected (T, 12)" in message


def test_a_split_is_scored(trained, toy_root):
    folder, _, arguments = trained
    result = run("test.py", *arguments, "--split", "dev", "decoding.beam_size=4")
    last = result.stdout.strip().splitlines()[-1]
    predictions = pd.read_csv(folder / "predictions-dev.csv", keep_default_na=False)
    assert list(predictions.columns) == ["id", "reference", "hypothesis", "distance"]
    assert predictions["id"].tolist() == [f"dev-{number:03d}" for number in range(12)]
    distance = predictions["distance"].mean()
    cer = 100 * predictions["distance"].sum() / predictions["reference"].str.len().sum()
    assert last.startswith(f"dev: 12 utterances, distance {distance:.3f}, CER {cer:.2f} %, WER ")
    assert last.endswith(" s (beam 4)")
    assert cer < 10
    assert f"{folder / 'report.html'}: its table has them" in result.stdout
    without = [argument for argument in arguments if not argument.startswith("data.root")]
    refused = run("test.py", *without, "--split", "dev", "data.root=nowhere", expect=2).stderr
    assert f"found no folder nowhere; {folder} was trained with data.root={toy_root}: repeat the" in refused
    assert "predictions-dev.csv" in (folder / "report.html").read_text()
    greedy = run("test.py", *arguments, "--split", "dev", "decoding.mode=greedy").stdout.strip().splitlines()[-1]
    assert greedy.endswith(" s (greedy)")
    metrics = pd.read_csv(folder / "metrics.csv")
    assert f"distance {metrics['dev_distance'].min():.3f}" in greedy  # the distance that picked best.pt


def test_the_submission_to_the_byte(trained, tmp_path):
    """Without --split: data.test, in sorted file order, whatever the batches; several checkpoints as an ensemble."""
    folder, _, arguments = trained
    result = run("test.py", *arguments, cwd=tmp_path)
    alone = (tmp_path / "submission.csv").read_bytes()
    assert result.stdout.strip().splitlines()[-1].startswith("test: 9 utterances, ")
    both = [str(folder / "best.pt"), str(folder / "best.pt")]
    ensemble = tmp_path / "more" / "ensemble.csv"
    run("test.py", "--checkpoint", *both, *arguments, f"test.submission={ensemble}", cwd=tmp_path)
    assert ensemble.read_bytes() == alone
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["index", "label"]
    assert [row[0] for row in rows[1:]] == [str(index) for index in range(9)]
    assert alone == ("\n".join(",".join(row) for row in rows) + "\n").encode()
    assert any(len(row[1]) > 1 for row in rows[1:])


def test_a_killed_decoding_goes_on(trained, tmp_path):
    """What was decoded before is taken as it is, unless it was decoded with something else."""
    folder, _, arguments = trained
    run("test.py", *arguments, cwd=tmp_path)
    expected = (tmp_path / "submission.csv").read_text().splitlines()
    assert not list(folder.glob("decoding-*.jsonl"))  # nothing stays behind

    code = (
        "import sys, runpy; import decoding.resume; add, calls = decoding.resume.PartialResults.add, []\n"
        "def once(self, texts):\n"
        "    add(self, {name: text + 'X' for name, text in texts.items()})\n"
        "    raise KeyboardInterrupt\n"
        "decoding.resume.PartialResults.add = once; sys.argv = sys.argv[1:]; import utils.device\n"
        "import decoding.transcribe; decoding.transcribe.memory_to_spare = lambda device: 600_000\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    interrupted = [sys.executable, "-c", code, str(HOME / "test.py"), *arguments]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(HOME)}
    result = subprocess.run(interrupted, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 130, result.stderr
    (kept,) = folder.glob("decoding-test-0.jsonl")
    with kept.open("a") as file:
        file.write('{"test-00')  # killed while it wrote this line
    other = run("test.py", *arguments, "--resume", "decoding.beam_size=3", "--split", "dev", cwd=tmp_path).stdout
    assert "nothing to resume" in other
    resumed = run("test.py", *arguments, "--resume", cwd=tmp_path).stdout
    count = int(re.search(r"(\d+) utterances are decoded already", resumed)[1])
    assert 1 <= count < 9
    found = (tmp_path / "submission.csv").read_text().splitlines()
    assert [line.removesuffix("X") for line in found] == expected
    assert sum(line.endswith("X") for line in found) == count
    run("test.py", *arguments, cwd=tmp_path)
    assert (tmp_path / "submission.csv").read_text().splitlines() == expected


def test_an_empty_prediction_is_an_empty_string(tmp_path):
    from test import write_csv

    path = tmp_path / "s.csv"
    write_csv(path, pd.DataFrame([(0, ""), (1, "IT'S")], columns=["index", "label"]))
    assert path.read_bytes() == b"index,label\n0,\n1,IT'S\n"
    with path.open(newline="") as file:
        assert list(csv.reader(file))[1] == ["0", ""]


@pytest.fixture(scope="module")
def unbroken(toy_root, tmp_path_factory):
    """A run of four epochs with all that must be resumed, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("unbroken")
    arguments = [
        *SMALL,
        f"data.root={toy_root}",
        "training.epochs=4",
        "training.schedule=plateau",
        "training.ctc_epochs=1",
        "training.teacher_forcing={start: 0.9, stages: [{from_epoch: 2, factor: 0.9, floor: 0.5}]}",
        f"run.dir={folder}",
    ]
    run("train.py", *arguments, "run.name=unbroken")
    return folder, arguments


@pytest.mark.parametrize(
    ("sent", "minutes"),
    [(signal.SIGKILL, 10), (signal.SIGKILL, 1e-6), (signal.SIGTERM, 10), (signal.SIGINT, 10)],
    ids=["killed", "killed-with-checkpoints-within-the-epoch", "SIGTERM", "Ctrl-C"],
)
def test_stopped_in_the_middle_it_ends_with_the_same_weights(unbroken, sent, minutes):
    folder, arguments = unbroken
    name = f"{sent.name}-{minutes}"
    arguments = [*arguments, f"run.name={name}", f"training.checkpoint_minutes={minutes:f}"]
    command_line = command(str(HOME / "train.py"), *arguments, "data.workers=1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command_line, cwd=HOME, env=ENVIRONMENT, start_new_session=True, **pipes)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            break
    time.sleep(0.3)  # into epoch 3
    os.killpg(process.pid, sent)  # as a terminal and timeout do it: the loader's worker gets it too
    _, complaint = process.communicate()
    stopped = load_checkpoint(folder / name / "last.pt")
    assert 2 <= stopped["epoch"] < 4
    expected = f"after epoch {stopped['epoch']}"
    if sent != signal.SIGKILL:
        assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[sent]
        batches, steps = stopped["partial"]["batch"], 12
        said = f"stopped by {sent.name} in epoch {stopped['epoch'] + 1} after {batches} of {steps} batches; the same"
        assert said in complaint
        assert "Traceback" not in complaint
    if stopped["partial"]:
        expected += f" and {stopped['partial']['batch']} batches"
    assert bool(stopped["partial"]) == (sent != signal.SIGKILL or minutes < 1)
    assert expected in run("train.py", *arguments).stdout

    for file in ("last.pt", "best.pt"):
        whole, resumed = (load_checkpoint(folder / run / file) for run in ("unbroken", name))
        assert whole["epoch"] == resumed["epoch"]
        for key, weights in whole["model"].items():
            assert torch.equal(weights, resumed["model"][key]), key
    whole = load_checkpoint(folder / "unbroken" / "last.pt")
    assert not all(torch.equal(whole["model"][key], whole["weights"][key]) for key in whole["model"])  # averaged, last
    losses = [pd.read_csv(folder / run / "metrics.csv")["train_loss"].tolist() for run in ("unbroken", name)]
    assert losses[0] == losses[1]


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


def test_a_run_ends_in_time(toy_root, tmp_path):
    """The first epoch tells how many fit; the schedule ends with the last of them."""
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=short", "training.epochs=1000"]
    result = run("train.py", *arguments, "training.max_minutes=0.1")
    metrics = pd.read_csv(tmp_path / "short" / "metrics.csv")
    assert 1 < len(metrics) < 1000
    assert metrics["seconds"].sum() < 0.1 * 60 + metrics["seconds"].max()
    assert metrics["learning_rate"].iloc[-1] < 0.3 * metrics["learning_rate"].max()
    assert "best: epoch" in result.stdout
    assert f"all {len(metrics)} epochs are done" in run("train.py", *arguments, "training.max_minutes=0.1").stdout


def test_tuned_weights_are_found_kept_and_used(trained, toy_root, tmp_path):
    folder, _, arguments = trained
    mine = tmp_path / "toy"
    shutil.copytree(folder, mine)
    arguments = [*arguments, f"run.dir={tmp_path}"]
    more = tmp_path / "more.txt"
    more.write_text("a bee\n\n123\nA DEAD CAD")
    # Without normalisation and with too much of the language model, so that there is something to gain.
    poor = ["decoding.ctc_weight=0.3", "decoding.lm_weight=3", "decoding.length_reward=0"]
    missing = run("test.py", *arguments, "--split", "dev", *poor, expect=2)
    assert "lm.pt: found no language model; python tune.py makes it" in missing.stderr
    result = run("tune.py", *arguments, *poor, "--text", str(more))
    assert "lm.pt: 98 texts, " in result.stdout
    before, after = map(float, re.search(r"dev: distance ([\d.]+) with .*, ([\d.]+) with ", result.stdout).groups())
    assert after < before
    tuned = parse_yaml((mine / "decoding.yaml").read_text())["decoding"]
    assert set(tuned) == {"rank", "ctc_weight", "lm_weight", "length_reward"}
    decoded = run("test.py", *arguments, "--split", "dev").stdout
    assert f"decoding weights: {mine / 'decoding.yaml'}" in decoded
    assert f"distance {after:.3f}" in decoded
    overridden = run("test.py", *arguments, "--split", "dev", *poor).stdout  # the command line has the last word
    assert f"distance {before:.3f}" in overridden
    again = run("tune.py", *arguments).stdout
    assert "left as it is" in again
    assert parse_yaml((mine / "decoding.yaml").read_text())["decoding"] == tuned
    (mine / "decoding.yaml").write_text("decoding: {ctc_weights: 1}")
    assert "unknown key decoding.ctc_weights" in run("test.py", *arguments, "--split", "dev", expect=2).stderr


def test_utterances_three_times_as_long_are_neither_cut_nor_repeated(trained, toy_root, tmp_path):
    """Training has at most 8 characters an utterance; these have about 24."""
    folder, _, arguments = trained
    generator = np.random.default_rng(7)
    root = tmp_path / "data"
    shutil.copytree(toy_root / "train", root / "train")
    for number in range(12):
        text = draw_text(generator, "ABCDE '", 26, 29)
        write_utterance(root / "long", f"long-{number:02d}", text, speak(text, generator))

    def decoded(*weights):
        run("test.py", *arguments, f"data.root={root}", "--split", "long", *weights)
        table = pd.read_csv(folder / "predictions-long.csv", keep_default_na=False)
        lengths = table["reference"].str.len()
        return table["distance"].sum() / lengths.sum(), table["hypothesis"].str.len() / lengths

    cer, ratio = decoded()
    assert cer < 0.12
    assert ratio.between(0.85, 1.3).all()
    # Attention alone is no such help so far from its training; but the beam must not make it worse than greedy.
    greedy, _ = decoded("decoding.ctc_weight=0", "decoding.mode=greedy")
    beam, ratio = decoded("decoding.ctc_weight=0")
    assert beam < greedy + 0.05
    assert ratio.max() < 1.5


def test_a_run_that_does_not_align_says_so(toy_root, tmp_path):
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=stuck", "training.epochs=8"]
    result = run("train.py", *arguments, "training.learning_rate=1e-9")
    assert "not aligned after 8 epochs" in result.stdout
    assert "training.ctc_weight=0.3" in result.stdout


def test_training_goes_on_where_the_report_cannot_be_written(toy_root, tmp_path):
    (tmp_path / "blind" / "report.html").mkdir(parents=True)
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=blind", "training.epochs=2"]
    result = run("train.py", *arguments)
    assert result.stdout.count("report.html: cannot be written (IsADirectoryError") == 2
    assert len(pd.read_csv(tmp_path / "blind" / "metrics.csv")) == 2


def test_a_run_of_an_older_version_goes_on(trained, toy_root, tmp_path):
    """Its rows lack what is measured by now."""
    folder, _, arguments = trained
    mine = tmp_path / "toy"
    shutil.copytree(folder, mine)
    last = load_checkpoint(mine / "last.pt")
    new = ("dev_coverage", "dev_sharpness", "dev_unended", "dev_loops")
    last["history"] = [{key: value for key, value in row.items() if key not in new} for row in last["history"]]
    torch.save(last, mine / "last.pt")
    run("train.py", *arguments, f"run.dir={tmp_path}", "training.epochs=25")
    metrics = pd.read_csv(mine / "metrics.csv")
    assert metrics["dev_coverage"].isna().tolist() == [True] * 24 + [False]


def test_no_memory_for_a_batch_names_the_keys_to_turn(toy_root, tmp_path, monkeypatch):
    config = load_config(overrides=[*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "training.accumulate=2"])
    trainer = Trainer(config, lambda line: None, torch.device("cpu"), SINGLE_PROCESS)

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.learner, "_backward", fail)
    message = (
        r"no memory for a batch of 8 utterances of up to \d+ frames: .*training\.accumulate=4.*training\.batch_size"
    )
    with pytest.raises(UserError, match=message):
        trainer.fit()


def test_a_loss_that_is_not_finite_stops_the_run_with_a_message(toy_root, tmp_path):
    arguments = [*SMALL, f"data.root={toy_root}", f"run.dir={tmp_path}", "run.name=wild", "training.epochs=3"]
    arguments += ["training.learning_rate=1e30", "training.warmup_epochs=0"]
    result = run("train.py", *arguments, expect=2)
    assert "skipped a batch whose gradient is not finite: train-" in result.stdout
    assert "lower training.learning_rate" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.py", "data.root=nowhere"], ["nowhere", "kaggle competitions download", "make demo"]),
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
    assert all(word in result.stderr for word in words), result.stderr


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
    result = run("train.py", *SMALL, f"data.root={root}", f"run.dir={tmp_path}", expect=2)
    for file in ("train-001.npy", "dev-002.npy"):
        assert f"{file}': found an empty file; expected a .npy array" in result.stderr
    assert result.stderr.count("data.skip_bad=true") == 1
    skipped = run(
        "train.py", *SMALL, f"data.root={root}", f"run.dir={tmp_path}", "data.skip_bad=true", "training.epochs=1"
    )
    assert "train, 3 utterances" in skipped.stdout


def test_help_lists_flags_and_keys():
    for file in ("train.py", "tune.py", "test.py"):
        text = run(file, "--help").stdout
        assert max(map(len, text.splitlines())) <= 80
        parts = (f"\n  python {file}", "\n  --config FILE", "data.root=", "training.epochs=100")
        order = [text.index(part) for part in parts]
        assert order == sorted(order)
        assert "training.teacher_forcing.start=1.0" in text
    assert "--checkpoint" in text
    assert "--split" in text
