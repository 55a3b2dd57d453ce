"""Runs beside each other: what the page is made of. tests/report/test_page.py opens it in a browser."""

import json

import pandas as pd
import pytest

from decoding import history
from report.build import COLUMNS
from report.compare import compare, differing, unique_names, write_comparison
from tests.report.test_build import PREDICTIONS, make_row
from utils.metrics import Score


def make_run(folder, epochs: int, settings: str):
    """Without maps, which the page does not have."""
    folder.mkdir(parents=True)
    pd.DataFrame([make_row(epoch) for epoch in range(1, epochs + 1)]).to_csv(folder / "metrics.csv", index=False)
    (folder / "config.yaml").write_text(settings)
    (folder / "environment.yaml").write_text("torch: 2.11.0\n")
    return folder


def test_what_it_holds(tmp_path):
    a = make_run(tmp_path / "a", 3, "run: {name: a}\ndata: {dev: dev, root: /x}\ntraining: {epochs: 3, seed: 0}\n")
    b = make_run(tmp_path / "b", 5, "run: {name: b}\ndata: {dev: dev, root: /y}\ntraining: {epochs: 5, clip: null}\n")
    pd.DataFrame(PREDICTIONS[:2], columns=COLUMNS).to_csv(b / "predictions-test.csv", index=False)
    (b / "report.html").write_text("")
    data = compare([a, b], tmp_path / "elsewhere")
    one, two = data["runs"]
    assert [len(run["rows"]) for run in (one, two)] == [3, 5]
    assert (one["best"]["epoch"], two["best"]["epoch"]) == (3, 5)
    assert (one["report"], two["report"]) == (None, "../b/report.html")
    assert one["decoded"] == []
    (decoded,) = two["decoded"]
    assert (decoded["split"], decoded["distance"]) == ("test", 1.5)
    assert data["differ"] == [
        ["training.epochs", "3", "5"],
        ["training.seed", "0", None],
        ["training.clip", None, "null"],
    ]
    assert data["machines"] == []


def test_the_best_decoding_of_a_run_is_shown_and_not_the_last(tmp_path):
    """A trial that is worse, such as an ensemble's, is not the run's result."""
    folder = make_run(tmp_path / "a", 3, "")
    weights = {"mode": "beam", "beam_size": 4, "rank": "likelihood", "ctc_weight": 0.5, "lm_weight": 0.0}
    for models, distance in (("best.pt", 2.0), ("best.pt + b.pt", 9.0)):
        result = Score(distance, distance / 10, distance / 10)
        row = history.make_row("test.py", "dev", 3, models, {**weights, "length_reward": 0.8}, result, 1.0)
        history.add_decoding(folder, row)
    pd.DataFrame(PREDICTIONS[:2], columns=COLUMNS).to_csv(folder / "predictions-dev.csv", index=False)  # the last one's
    assert compare([folder])["runs"][0]["decoded"] == [
        {"split": "dev", "search": "beam 4, CTC 0.5, length 0.8", "distance": 2.0, "cer": 0.2, "wer": 0.2}
    ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [(["r/a", "r/b"], ["a", "b"]), (["r/a", "s/a"], ["r/a", "s/a"]), (["x/r/a", "y/r/a", "b"], None)],
)
def test_names_are_as_long_as_they_have_to_be(paths, names, tmp_path):
    found = unique_names([tmp_path / path for path in paths])
    assert len(set(found)) == len(paths)
    assert names is None or found == names


def test_only_what_differs_and_matters_is_listed():
    settings = [{"training": {"a": 1, "b": [1, {"c": 2}]}, "run": {"name": "x"}}, {"training": {"a": 1, "b": [1]}}]
    assert differing(settings) == [["training.b", "1, {c: 2}", "1"]]
    assert differing(settings[:1] * 2) == []


def test_a_run_of_which_nothing_is_known_but_its_texts(tmp_path):
    """The page is one file, in which no name becomes markup."""
    folder = tmp_path / "</script><b>"
    folder.mkdir(parents=True)
    pd.DataFrame(PREDICTIONS[:2], columns=COLUMNS).to_csv(folder / "predictions-test.csv", index=False)
    other = make_run(tmp_path / "b", 2, "")
    write_comparison([folder, other], tmp_path / "comparison.html")
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("</script>") == 2
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["runs"][0]["rows"] == []
    assert "default-src 'none'" in page
