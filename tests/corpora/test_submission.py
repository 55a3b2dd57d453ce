"""The competition's CSV: header, rows, and cells that Kaggle accepts."""

import logging

import numpy as np
import pandas as pd
import pytest

from corpora.layout import find_partition
from corpora.submission import copy_submission, find_format, write_submission
from utils.errors import UserError

F23 = ("mfcc", "transcripts")


def write_root(root, folders=F23, count=3, labelled=("train",)):
    """Partitions train and test of a few frames, with transcripts where `labelled`."""
    for partition in ("train", "test"):
        for index in range(count):
            for folder, array in zip(folders, (np.ones((5, 4), "f4"), np.array(["A"])), strict=True):
                if folder == folders[0] or partition in labelled:
                    (root / partition / folder).mkdir(parents=True, exist_ok=True)
                    np.save(root / partition / folder / f"u{index}.npy", array)
    return root


def form_of(root, columns=None):
    return find_format(root, find_partition(root, "test"), columns)


@pytest.mark.parametrize(
    ("folders", "more", "columns"),
    [
        (("mfcc", "transcript"), None, ("id", "predictions")),
        (("mfcc", "transcript/raw"), None, ("id", "label")),
        (F23, None, ("index", "label")),
        (("fbank", "text"), None, ("Index", "Labels")),
        (("fbank", "text"), "text-for-LM", ("id", "transcription")),
    ],
)
def test_header_of_each_semester(tmp_path, folders, more, columns):
    root = write_root(tmp_path, folders)
    if more:
        (root / more).mkdir()
    form = form_of(root)
    assert form.columns == columns
    assert form.ids == ["0", "1", "2"]
    assert "test.columns" in form.reason  # says how to set another one


def test_the_key_comes_before_the_template_and_the_template_before_the_layout(tmp_path):
    root = write_root(tmp_path)
    (root / "Sample_Submission.csv").write_bytes("\ufeffutterance,text\r\n0,A\r\n1,A\r\n2,A\r\n".encode())
    assert form_of(root).columns == ("utterance", "text")
    assert "Sample_Submission.csv" in form_of(root).reason
    form = form_of(root, ["x", "y"])
    assert (form.columns, form.reason) == (("x", "y"), "as test.columns says")


def test_a_template_with_file_names_gives_ids_and_order(tmp_path):
    root = write_root(tmp_path)
    (root / "sample_submission.csv").write_text("id,label\nu2,\nu0.npy,\nu1,\n")
    form = form_of(root)
    write_submission(tmp_path / "s.csv", form, {"u0": "ZERO", "u1": "ONE", "u2": "TWO"})
    assert (tmp_path / "s.csv").read_text() == "id,label\nu2,TWO\nu0.npy,ZERO\nu1,ONE\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,label\nu0,\nu1,\nother,\n", "other"),
        ("id,label\nu0,\nu1,\n", "u2"),
        ("id,label\nu0,\nu1,\nu1,\nu2,\n", "named twice"),
        ("id,label\n0,\n1,\n", "found 2 rows, expected 3"),
        ("id,label\n0,\n2,\n1,\n", "found row 1 after row 2, expected ascending numbers"),
        ("id,label\n0,\n1,\n1,\n", "found row 1 after row 1, expected ascending numbers"),
        ("id\n0\n1\n2\n", "expected two"),
        ("id,label,more\n0,,\n", "expected two"),
        ("", "expected two"),
        ("id,label\n0,a,b,c\n", "expected two"),
    ],
)
def test_a_template_that_does_not_fit_is_one_message(tmp_path, content, words):
    root = write_root(tmp_path)
    (root / "sample_submission.csv").write_text(content)
    with pytest.raises(UserError, match=words) as error:
        form_of(root)
    assert "sample_submission.csv" in str(error.value)


def test_a_template_in_a_folder_of_transcripts_is_not_trusted(tmp_path):
    root = write_root(tmp_path, ("mfcc", "transcript/raw"))
    (root / "test" / "transcript" / "raw").mkdir(parents=True)
    (root / "test" / "transcript" / "sample_submission.csv").write_text("index,label\n0,A\n")
    (root / "test" / "transcript" / "raw" / "sample_submission.csv").write_text("index,label\n0,A\n")
    assert form_of(root).columns == ("id", "label")


@pytest.mark.parametrize(
    "texts",
    [
        {"u0": "", "u1": "  ", "u2": "TREE"},
        {"u0": "NA", "u1": "NULL", "u2": "NAN"},
        {"u0": "NONE", "u1": "N/A", "u2": "INF"},
        {"u0": "TRUE"},
        {},
    ],
)
def test_pandas_finds_no_missing_value_and_every_row(tmp_path, texts, caplog):
    caplog.set_level(logging.INFO, "las")
    form = form_of(write_root(tmp_path))
    write_submission(tmp_path / "s.csv", form, texts)
    table = pd.read_csv(tmp_path / "s.csv")
    assert len(table) == 3
    assert not table.isna().any().any()
    for row, name in enumerate(("u0", "u1", "u2")):
        if texts.get(name, "").strip():
            assert str(table["label"][row]).upper().strip() == texts[name]
        else:
            assert name in caplog.text  # named in the warning


def test_files_without_a_text_get_the_most_frequent_letter_and_are_counted(tmp_path, caplog):
    form = form_of(write_root(tmp_path))
    write_submission(tmp_path / "s.csv", form, {"u1": "A BEE SEES", "u2": ""})
    assert (tmp_path / "s.csv").read_text().splitlines()[1:] == ["0,E", "1,A BEE SEES", "2,E"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["1 of 3 files could not be read" in line and "u0" in line for line in warnings] == [True, False]
    assert "1 of 3 files gave no text" in warnings[1]


def test_what_survives_is_said(tmp_path, caplog):
    write_submission(tmp_path / "s.csv", form_of(write_root(tmp_path)), {"u0": "NA", "u1": "A", "u2": "B"})
    assert "row 0: the text 'NA' would be read as a missing value" in caplog.text
    assert (tmp_path / "s.csv").read_text().splitlines()[1] == "0,NA "


def test_a_copy_goes_into_a_folder_new_or_old_and_not_onto_itself(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("id,label\n0,A\n", encoding="utf-8")
    for copy in (tmp_path / "new" / "folder" / "a.csv", tmp_path / "new" / "folder" / "b.csv"):
        assert copy_submission(path, copy)
        assert copy.read_bytes() == path.read_bytes()
    assert not copy_submission(path, tmp_path / "new" / ".." / "submission.csv")
    with pytest.raises(UserError, match=r"test\.submission: cannot write .*submission\.csv is written"):
        copy_submission(path, path / "below-a-file.csv")
