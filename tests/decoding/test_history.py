"""decodings.csv: rows in, rows out, and what is said of a file that is replaced."""

import csv
import math
from pathlib import Path

import pytest

from decoding import history
from decoding.history import (
    COLUMNS,
    add_decoding,
    best_of,
    describe_checkpoints,
    describe_replaced,
    describe_search,
    last_of,
    make_row,
    read_decodings,
)
from utils.errors import UserError
from utils.metrics import Score

BEAM = {"mode": "beam", "beam_size": 8, "rank": "mbr", "ctc_weight": 0.5, "lm_weight": 0.3, "length_reward": 0.8}
GREEDY = {**BEAM, "mode": "greedy", "ctc_weight": 0.0, "lm_weight": 0.0}


def row(search=BEAM, distance=1.0, split="dev", command="test.py", checkpoints="best.pt"):
    score = None if distance is None else Score(distance, distance / 10, math.nan)
    return make_row(command, split, 12, checkpoints, search, score, 3.25)


def test_rows_come_back_and_the_best_and_the_last_are_found(tmp_path):
    rows = [row(), row(GREEDY, 0.5), row(distance=0.7), row(distance=None, split="test"), row(command="tune.py")]
    for one in rows:
        add_decoding(tmp_path, one)
    assert read_decodings(tmp_path) == rows
    assert best_of(rows, "dev") == rows[1]
    assert best_of([{**rows[1], "command": "tune.py", "wer": ""}, {**rows[1], "wer": "0.1"}], "dev")["wer"] == "0.1"
    assert last_of(rows, "dev") == rows[2]
    assert last_of(rows, "test") == rows[3]
    assert best_of(rows, "test") is last_of(rows, "other") is None
    with (tmp_path / history.FILE).open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == list(COLUMNS)
    cells = dict(zip(COLUMNS, table[2], strict=True))
    assert cells["mode"] == "greedy"
    assert (cells["beam_size"], cells["rank"], cells["length_reward"], cells["wer"]) == ("", "", "", "")
    assert (cells["distance"], cells["cer"], cells["seconds"]) == ("0.5", "0.05", "3.2")


def test_settings_in_words(tmp_path):
    assert describe_search(row()) == "beam 8, CTC 0.5, language model 0.3, length 0.8, mbr"
    assert describe_search(row(GREEDY)) == "greedy"
    both = describe_checkpoints([tmp_path / "a" / "best.pt", tmp_path / "b" / "best.pt"], tmp_path / "a")
    assert describe_search(row(GREEDY, checkpoints=both)) == f"greedy, best.pt + {tmp_path / 'b' / 'best.pt'}"


def test_what_is_replaced_is_said_unless_it_is_the_same(tmp_path):
    path = tmp_path / "predictions-dev.csv"
    assert describe_replaced(path, row(), row(GREEDY)) == ""  # nothing is there
    path.touch()
    said = describe_replaced(path, row(), row(GREEDY))
    assert said.endswith(" (beam 8, CTC 0.5, language model 0.3, length 0.8, mbr, distance 1.000)")
    assert describe_replaced(path, row(), row()) == ""
    assert describe_replaced(path, row(), row(distance=2.0)) != ""  # the same settings, another model
    assert describe_replaced(path, row(), row(checkpoints="a + b")) != ""
    assert describe_replaced(path, None, row()).startswith("; in place of the one of 20")


def test_a_table_that_somebody_changed_stays_and_a_new_one_is_begun(tmp_path, caplog):
    path = tmp_path / history.FILE
    path.write_text("time;split\n1;dev\n")
    assert read_decodings(tmp_path) == []
    add_decoding(tmp_path, row())
    assert read_decodings(tmp_path) == [row() | {"time": read_decodings(tmp_path)[0]["time"]}]
    (aside,) = tmp_path.glob("decodings-*.csv")
    assert aside.read_text() == "time;split\n1;dev\n"
    assert "found other columns" in caplog.text
    path.write_text(path.read_text() + "half a li")  # killed, or damaged by hand
    add_decoding(tmp_path, row(distance=2.0))
    assert [one["distance"] for one in read_decodings(tmp_path)] == ["1", "2"]
    path.write_text(path.read_text() + ",".join(({"split": "dev", "wer": "24,1 %"}).get(name, "") for name in COLUMNS))
    assert len(read_decodings(tmp_path)) == 2


def test_a_table_that_a_spreadsheet_saved_empty_is_begun_anew(tmp_path):
    (tmp_path / history.FILE).write_bytes(b"\xef\xbb\xbf")
    add_decoding(tmp_path, row())
    assert len(read_decodings(tmp_path)) == 1


def test_a_table_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / history.FILE).mkdir()
    with pytest.raises(UserError, match=r"decodings\.csv: cannot be written"):
        add_decoding(Path(tmp_path), row())
