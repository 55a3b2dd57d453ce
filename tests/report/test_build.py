"""report.html: what it is made of. tests/report/test_page.py opens it in a browser."""

import itertools
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from decoding import history
from report import build
from report.attention_maps import keep_maps
from report.build import RunReport, differences, fill_page, gather, why_train_loss_is_higher, write_report
from report.sounds import SOUND_BYTES
from training.evaluate import AttentionMap, Evaluation, Prediction
from utils.files import temporary_name
from utils.metrics import Score

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


def draw_maps(sharp: float, length: int = 12) -> list[AttentionMap]:
    """A diagonal in a grey of `1 - sharp`."""
    weights = sharp * np.eye(length + 1) + (1 - sharp) / (length + 1)
    names = [name for name, *_ in PREDICTIONS[:3]]
    return [AttentionMap(name, [*"GO ON AND ON"[:length], "<eos>"], weights, 1.2) for name in names]


def make_row(epoch: int) -> dict:
    row = {"epoch": epoch, "train_loss": 3 / epoch, "dev_loss": 2 / epoch, "dev_distance": 40 / epoch, "seconds": 61.0}
    row |= {"dev_cer": 0.9 / epoch, "dev_wer": 1 / epoch, "dev_monotonicity": 0.2 * epoch, "learning_rate": 1e-3}
    if epoch > 2:  # as after an update in the middle of a run
        row |= {"dev_coverage": 0.9, "dev_sharpness": 0.1 * epoch, "dev_unended": 0.0, "dev_loops": 0.0}
    return row


PREDICTIONS = [
    ("dev-0", "GO ON", "GO ON", 0),
    ("dev-1", "A BEE AND A DEAD CAD", "A PEE AND DEAD CAD", 3),
    (f"dev-2{HOSTILE}", "AB" + HOSTILE, "AC" + HOSTILE, 1),
    *((f"more-{n:02d}", "ON AND ON" * (n + 1), "ON AND ON" * n + "ON", 7) for n in range(40)),
]


def add_epoch(folder: Path, epoch: int, sharp: float) -> None:
    """As train.py does after an epoch that is the best so far."""
    predictions = [Prediction(*row) for row in PREDICTIONS]
    RunReport(folder).add_epoch(make_row(epoch), Evaluation({}, draw_maps(sharp), predictions), is_best=True)


def make_run(folder: Path) -> Path:
    """A run of four epochs, as train.py and test.py leave it."""
    folder.mkdir()
    (folder / "config.yaml").write_text(
        f"run: {{name: '{HOSTILE}'}}\ndata: {{train: [train], dev: dev-clean}}\n"
        "training: {epochs: 9, ctc_epochs: 0}\n"
    )
    (folder / "environment.yaml").write_text("torch: 2.11.0\ndevice: cpu\n")
    for epoch in range(1, 5):
        pd.DataFrame([make_row(one) for one in range(1, epoch + 1)]).to_csv(folder / "metrics.csv", index=False)
        add_epoch(folder, epoch, epoch / 4)
    pd.DataFrame(PREDICTIONS[:3], columns=build.COLUMNS).to_csv(folder / "predictions-test.csv", index=False)
    search = {"mode": "beam", "beam_size": 8, "rank": "likelihood", "ctc_weight": 0.5, "lm_weight": 0.3}
    for split, mode, distance in (("dev-clean", "beam", 4.0), ("dev-clean", "greedy", 9.0), ("test", "beam", 2.5)):
        found = Score(distance, distance / 100, 0.5)
        settings = {**search, "mode": mode, "length_reward": 0.8}
        history.add_decoding(folder, history.make_row("test.py", split, 3, "best.pt", settings, found, 1.0))
    assert write_report(folder)
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "a <b>run & more")


def read_data(folder: Path) -> dict:
    page = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_what_it_holds(run_folder):
    data = read_data(run_folder)
    assert data["best"] == 4
    assert [row["epoch"] for row in data["rows"]] == [1, 2, 3, 4]
    assert "dev_coverage" not in data["rows"][1]
    assert data["rows"][3]["dev_coverage"] == 0.9
    assert [one["epoch"] for one in data["maps"]["epochs"]] == [1, 2, 3, 4]
    names = {split["name"]: split for split in data["splits"]}
    assert set(names) == {"test", "dev-clean, greedy, epoch 4"}
    test = names["test"]
    assert test["score"]["distance"] == pytest.approx(4 / 3)
    assert sorted(test["confused"]) == [[" ", "", 1], ["A", "", 1], ["B", "C", 1], ["B", "P", 1]]
    assert test["rows"][0][3] == ["A ", ["BEE", "PEE"], " AND", [" A", ""], " DEAD CAD"]
    assert [one["distance"] for one in data["maps"]["epochs"]] == [[0, 3, 1]] * 4
    assert data["environment"]["torch"] == "2.11.0"


def test_the_best_epoch_keeps_its_map_whatever_is_left_out(run_folder, monkeypatch):
    asked = []
    monkeypatch.setattr(build, "kept_maps", lambda *given: asked.append(given) or {"epochs": [], "utterances": []})
    assert gather(run_folder)["best"] == 4
    assert [always for _, _, always in asked] == [[4]]


@pytest.mark.parametrize(("epochs", "warned"), [(9, False), (10, True)])
def test_a_run_is_diagnosed_from_the_eighth_epoch_of_its_speller_on(tmp_path, epochs, warned):
    (tmp_path / "config.yaml").write_text("training: {ctc_epochs: 2}\n")
    rows = [make_row(epoch) | {"dev_monotonicity": 0.1} for epoch in range(1, epochs + 1)]
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)
    data = gather(tmp_path)
    assert bool(data["warnings"]) == warned
    assert data["best"] == epochs
    assert data["aligned"] == 0.4


def test_the_best_epoch_trained_the_speller(tmp_path):
    (tmp_path / "config.yaml").write_text("training: {ctc_epochs: 2}\n")
    distances = (1.0, 2.0, 9.0, 8.0)
    rows = [make_row(epoch) | {"dev_distance": distance} for epoch, distance in enumerate(distances, 1)]
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)
    assert gather(tmp_path)["best"] == 4
    (tmp_path / "config.yaml").unlink()
    assert gather(tmp_path)["best"] == 1
    (tmp_path / "metrics.csv").unlink()
    assert (gather(tmp_path)["best"], gather(tmp_path)["warnings"]) == (None, [])


def test_a_table_of_predictions_counts_what_was_said_and_what_was_heard(tmp_path):
    rows = [("a", "AAB", "AB", 1), ("b", "AB", "AB", 0), ("c", "NA", "BA", 1), ("d", "", "X", 1)]
    for name, time in (("old", 1_000_000), ("new", 2_000_000)):
        path = tmp_path / f"predictions-{name}.csv"
        pd.DataFrame(rows, columns=build.COLUMNS).to_csv(path, index=False)
        os.utime(path, (time, time))
    first, second = gather(tmp_path)["splits"]
    assert (first["name"], second["name"]) == ("new", "old")
    assert first["utterances"] == 4
    assert first["spoken"] == {"A": 4, "B": 2, "N": 1}
    assert sorted(first["confused"]) == [["", "X", 1], ["A", "", 1], ["N", "B", 1]]
    assert sorted(first["points"]) == [[0, 1, 1], [2, 0, 1], [2, 1, 1], [3, 1, 1]]
    assert [row[:3] for row in first["rows"]] == [["a", 1, 3], ["c", 1, 2], ["d", 1, 0], ["b", 0, 2]]
    assert first["score"]["distance"] == 3 / 4


def test_the_utterances_with_the_largest_distance_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROWS", 2)
    rows = [(f"u{distance}", "AB", "AB", distance) for distance in (1, 3, 2)]
    pd.DataFrame(rows, columns=build.COLUMNS).to_csv(tmp_path / "predictions-dev.csv", index=False)
    (split,) = gather(tmp_path)["splits"]
    assert [row[0] for row in split["rows"]] == ["u3", "u2"]
    assert split["utterances"] == 3


def test_differences_put_both_texts_together_again():
    texts = ["", "ABC", "A BEE", "BEE A", "ON AND ON", "ON AN DON", "  A", "A  A ", " ", "AND A ON", "ON AND"]
    for reference, hypothesis in itertools.product(texts, texts):
        parts = differences(reference, hypothesis)
        assert "".join(part if isinstance(part, str) else part[0] for part in parts) == reference
        assert "".join(part if isinstance(part, str) else part[1] for part in parts) == hypothesis


def test_differences_are_whole_words():
    said, heard = "AT QUINN ENGINEER'S VALLEY TODAY", "AT QUINE GENR'S VIOALLINEY DAY"
    parts = differences(said, heard)
    assert parts == [
        *("AT ", ["QUINN", "QUINE"], " ", ["ENGINEER'S", "GENR'S"]),
        *(" ", ["VALLEY", "VIOALLINEY"], " ", ["TODAY", "DAY"]),
    ]
    assert differences("GO ON AND ON", "GO ONAND ON") == ["GO ", ["ON AND", "ONAND"], " ON"]  # a space was missed
    assert differences("GO ON", "GO UP ON") == ["GO ", ["", "UP "], "ON"]


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        ({"train_loss": 0.9, "dev_loss": 0.3}, {"training": {"label_smoothing": 0.1}}, ["label smoothing (0.1)"]),
        (
            {"train_loss": 0.9, "dev_loss": 0.3},
            {"training": {"ctc_weight": 0.3}, "augment": {"speed": 0.1}, "model": {"speller": {"dropout": 0.3}}},
            ["a share of 0.3 of the CTC loss, augmented speech (speed), dropout"],
        ),
        (
            {"train_loss": 0.9, "dev_loss": 0.3},
            {"augment": {"speed": 0.0, "from_epoch": 4, "time_masks": 2}},
            ["augmented speech (masks)"],
        ),
        ({"train_loss": 0.9, "dev_loss": 0.3}, {"training": {"label_smoothing": 0}}, []),  # nothing explains it
        ({"train_loss": 0.9, "dev_loss": 0.3}, {"augment": {"from_epoch": 9, "time_masks": 2}}, []),
        ({"train_loss": 0.2, "dev_loss": 0.3}, {"training": {"label_smoothing": 0.1}}, []),
        ({"dev_loss": 0.3}, {"training": {"label_smoothing": 0.1}}, []),
    ],
)
def test_a_training_loss_above_dev_loss_is_explained(row, settings, words):
    said = why_train_loss_is_higher([{"epoch": 4, **row}], settings)
    assert bool(said) == bool(words)
    assert all(word in said for word in words)


def test_numbers_that_are_not_finite_are_missing(tmp_path):
    rows = [make_row(1), make_row(2), make_row(3)]
    rows[1] |= {"gradient_norm": float("inf"), "train_loss": float("nan")}
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)
    assert write_report(tmp_path)
    row = read_data(tmp_path)["rows"][1]
    assert row["gradient_norm"] is None
    assert "train_loss" not in row


def test_an_older_run_has_the_distance_of_its_best_map_from_the_table(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "older")
    for path in (folder / "attention").glob("epoch-*.json"):
        kept = json.loads(path.read_text())
        for one in kept["maps"]:
            del one["distance"]
        path.write_text(json.dumps(kept))
    assert write_report(folder)
    distances = [one["distance"] for one in read_data(folder)["maps"]["epochs"]]
    assert distances == [[None] * 3] * 3 + [[0, 3, 1]]


def test_nothing_in_the_data_becomes_markup():
    page = fill_page({"name": HOSTILE, "other": [{HOSTILE: "/* script */ \u2028 & -->"}, float("nan")]})
    assert HOSTILE not in page
    assert page.count("</script>") == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert data == {"name": HOSTILE, "other": [{HOSTILE: "/* script */ \u2028 & -->"}, None]}


def test_the_page_reaches_for_nothing_outside(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert re.findall(r"""(?:src|href)=(?!"data:)[^>]*""", page.split('id="data">')[0]) == []
    assert set(re.findall(r"https?://[\w./]+", page)) == {"http://www.w3.org/2000/svg"}


def test_two_hundred_epochs_of_a_large_dev_partition_stay_below_10_mb(tmp_path):
    """Maps as noisy as they get, of 16 s each; 2,703 utterances of LibriSpeech's length."""
    generator = np.random.default_rng(0)
    maps = [
        AttentionMap(f"u{n}", ["A"] * 249 + ["<eos>"], generator.dirichlet(np.ones(400), 250), 16) for n in range(3)
    ]
    (tmp_path / "attention").mkdir()
    keep_maps(tmp_path / "attention", 1, maps, dict.fromkeys(["u0", "u1", "u2"], 3))
    for epoch in range(2, 201):
        shutil.copy(tmp_path / "attention" / "epoch-001.json", tmp_path / "attention" / f"epoch-{epoch:03d}.json")
    pd.DataFrame([make_row(epoch) for epoch in range(1, 201)]).to_csv(tmp_path / "metrics.csv", index=False)
    letters = generator.choice(list("ABCDE "), size=(2703, 110))
    texts = ["".join(row) for row in letters]
    rows = [(f"1272-128104-{n:04d}", text, text.replace("AB", "C"), text.count("AB")) for n, text in enumerate(texts)]
    pd.DataFrame(rows, columns=build.COLUMNS).to_csv(tmp_path / "dev-best.csv", index=False)
    assert write_report(tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 10e6 - SOUND_BYTES
    assert len(read_data(tmp_path)["maps"]["epochs"]) > 5


def test_a_run_of_an_older_version_has_a_report_too(tmp_path):
    pd.DataFrame([{"epoch": 1, "dev_distance": 3.0, "dev_cer": 0.1, "dev_wer": 0.1, "dev_monotonicity": 0.1}]).to_csv(
        tmp_path / "metrics.csv", index=False
    )
    assert write_report(tmp_path)
    assert read_data(tmp_path)["maps"]["epochs"] == []


@pytest.mark.parametrize("broken", ["report.html", "attention", "metrics.csv"])
def test_a_report_that_cannot_be_written_is_a_line(broken, tmp_path, caplog):
    """The one before stays; nothing is raised."""
    pd.DataFrame([make_row(1)]).to_csv(tmp_path / "metrics.csv", index=False)
    add_epoch(tmp_path, 1, 0.5)
    before = (tmp_path / "report.html").read_bytes()
    if broken == "report.html":
        temporary_name(tmp_path / "report.html").mkdir()
    elif broken == "attention":
        temporary_name(tmp_path / "attention" / "epoch-002.json").mkdir()
    else:
        (tmp_path / broken).write_bytes(b"\xff\xfe\x00")
    assert not caplog.records
    add_epoch(tmp_path, 2, 0.6)
    (record,) = caplog.records
    assert record.getMessage().startswith("report.html: cannot ")
    assert "\n" not in record.getMessage()
    assert record.levelname == "WARNING"
    assert record.exc_info[0] is not None  # the log file has its traceback
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_long_error_is_cut_to_a_line():
    assert build._in_a_line(ValueError("a\nb")) == "ValueError: a b"
    assert len(build._in_a_line(ValueError("x" * 500))) == 200
