"""One rule for the names of runs and partitions in all commands; any name in a CSV is read back equal."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import load_config
from corpora.loading import Corpus
from decoding.history import make_row, read_decodings
from report.build import gather
from test import write_results
from utils.errors import UserError
from utils.features import FeatureFormat
from utils.files import NAME_RULE, format_csv, is_name, write_csv
from utils.metrics import score

HOME = Path(__file__).parents[1]
BAD = [
    "..",
    ".",
    "",
    "a/b",
    "../x",
    "dev/",
    "a\\b",
    "dev[1]",
    "a*",
    ".hidden",
    "x" * 300,
    "é" * 80,
    "a\0b",
    "a\nb",
    "-rf",
]
GOOD = ["las", "dev-clean", "an4+1", "v1.2", "x_y", "한국어", "train clean", "7"]


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_by_every_key(name):
    assert not is_name(name)
    for key in ("run.name", "data.dev", "data.test"):
        with pytest.raises(UserError, match=key):
            load_config(overrides=[f"{key}={name}"])
    with pytest.raises(UserError, match=r"data\.train"):
        load_config(overrides=[f"data.train=[{json.dumps(name)}]"])


@pytest.mark.parametrize("name", GOOD)
def test_good_names_are_taken(name):
    assert is_name(name)
    assert load_config(overrides=[f"run.name={name}", f"data.dev={name}"]).data.dev == name


def test_the_folder_of_packs_is_no_run():
    for name in ("packed", "PACKED"):
        with pytest.raises(UserError, match="packed features"):
            load_config(overrides=[f"run.name={name}"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.py", "run.name=.."],
        ["test.py", "run.name=."],
        ["tune.py", "run.name=packed"],
        ["test.py", "--split", "dev[1]"],
        ["test.py", "--split", "../x"],
        ["test.py", "--split", ""],
        ["-m", "corpora.folder", ".", "no.tsv", "out", "--name", "../x"],
    ],
)
def test_every_command_says_it_in_one_message(arguments, tmp_path):
    before = (HOME / "config.yaml").read_bytes()
    script = [str(HOME / arguments[0])] if arguments[0].endswith(".py") else [arguments[0]]
    command = [sys.executable, *script, *arguments[1:]]
    more = [f"run.dir={tmp_path}"] if arguments[0].endswith(".py") else []
    result = subprocess.run([*command, *more], cwd=HOME, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert NAME_RULE in result.stderr or "packed features" in result.stderr
    assert (HOME / "config.yaml").read_bytes() == before
    assert list(tmp_path.iterdir()) == []


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), max_size=6))
def test_a_table_is_read_back_equal(rows):
    content = "".join(format_csv(("id", "text"), rows))
    assert list(csv.reader(io.StringIO(content, newline="")))[1:] == [list(row) for row in rows]
    read = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
    assert list(read.itertuples(index=False, name=None)) == [tuple(row) for row in rows]


@settings(max_examples=200, deadline=None)
@given(name=st.binary(min_size=1, max_size=20).filter(lambda name: not set(b"\0/") & set(name)))
def test_any_file_name_is_read_back_from_disk_as_the_bytes_it_is(tmp_path_factory, name):
    path = tmp_path_factory.getbasetemp() / "names.csv"
    text = name.decode("utf-8", "surrogateescape")
    write_csv(path, ("id", "text"), [(text, "A"), ("next", "B")])
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert [row[0].encode("utf-8", "surrogateescape") for row in rows[1:]] == [name, b"next"]


def test_the_report_takes_names_of_all_kinds(tmp_path):
    names = ["new\nline", "carriage\rreturn", "latin-\udce9", 'quote"s', "a,b", "\u2028", "=1+1"]
    corpus = Corpus(
        FeatureFormat(4, True, "mean"), [Path(f"{name}.npy") for name in names], (9,) * 7, ("A BEE",) * 7, None
    )
    search = {"mode": "greedy", "ctc_weight": 0.5, "lm_weight": 0.0}
    row = make_row("test.py", "dev", 7, "best.pt", search, score(corpus.transcripts, ["A BEE"] * 7), 1.0)
    write_results(tmp_path, row, corpus, ["A BEE"] * 7, None)
    assert read_decodings(tmp_path) == [row]
    assert row["cer"] == "0"
    (split,) = gather(tmp_path)["splits"]
    assert sorted(row[0] for row in split["rows"]) == sorted(names)
    assert (tmp_path / "report.html").stat().st_size
