"""Files that are whole or absent; YAML, CSV and lines as people write them."""

import errno
import os
import re

import pytest
import yaml

from utils.errors import UserError
from utils.files import (
    atomic_write,
    flatten,
    is_leftover,
    is_name,
    make_folders,
    parse_yaml,
    read_csv,
    read_lines,
    sweep_temporaries,
    taken_back,
    temporary_name,
    to_yaml,
    write_csv,
)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_the_old_file_is_kept_under_another_name_or_stays(call, tmp_path, monkeypatch):
    """The new one is on the disk before the old one moves, which comes back where the last step fails."""
    path, old = tmp_path / "last.pt", tmp_path / "last.previous.pt"
    for content in ("1", "2", "3"):
        with atomic_write(path, keep_old=old) as temporary:
            temporary.write_text(content)
    assert (old.read_text(), path.read_text()) == ("2", "3")
    real = getattr(os, call)

    def full(*arguments):
        if call == "fsync" or str(arguments[0]).endswith(".tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"), atomic_write(path, keep_old=old) as temporary:
        temporary.write_text("4")
    assert path.read_text() == "3"
    assert [file.name for file in tmp_path.glob("*.tmp")] == []


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_the_old_file_stays_where_writing_fails(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_the_new_content_is_on_the_disk_before_the_old_file_goes(tmp_path, monkeypatch):
    path, order = tmp_path / "table.csv", []
    path.write_text("old")
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: order.append(path.read_text()) or sync(number))
    monkeypatch.setattr(os, "replace", lambda *names: order.append("replaced") or replace(*names))
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert order == ["old", "replaced"]


@pytest.mark.parametrize("filename", [None, "another"])
def test_a_disk_error_names_the_file(tmp_path, filename):
    """write() on a full disk does not tell which file it was."""
    path = tmp_path / "last.pt"
    with pytest.raises(OSError, match="No space") as raised, atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device", filename)
    assert raised.value.filename == (filename or str(path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2E+5", -2e5),
        ("1.e3", 1000.0),
        ("1.5", 1.5),
        ("3", 3),
        ("e5", "e5"),
        ("1e", "1e"),
        ("'1e3'", "1e3"),
    ],
)
def test_numbers_in_yaml_are_numbers(text, value):
    """YAML 1.1 takes 1e-3 for text."""
    found = parse_yaml(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_settings_read_back_as_they_were_written():
    settings = {"b": {"x": 1e-5, "y": [1, {"z": None}]}, "a": "한", "off": "off", "whole": "12", "point": "1.5"}
    text = to_yaml(settings)
    assert parse_yaml(text) == settings
    assert list(parse_yaml(text)) == list(settings)
    assert "한" in text
    assert flatten(settings) == {
        "b.x": 1e-5,
        "b.y": [1, {"z": None}],
        "a": "한",
        "off": "off",
        "whole": "12",
        "point": "1.5",
    }


@pytest.mark.parametrize("text", ["3e-4", "1e3", "2.E5"])
def test_text_that_looks_like_a_number_reads_back_as_text(text):
    """A run called after its learning rate: run.name=3e-4."""
    assert parse_yaml(to_yaml({"name": text})) == {"name": text}


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\rc\n", ["a", "b", "c"]),
        (b"\xef\xbb\xbfa\n\nb\n", ["a", "", "b"]),
        ("a\u2028b\x0bc\x85d\n".encode(), ["a\u2028b\x0bc\x85d"]),
    ],
)
def test_only_line_breaks_end_a_line(tmp_path, content, lines):
    (tmp_path / "text").write_bytes(content)
    assert read_lines(tmp_path / "text") == lines


def test_tables_are_read_back_whatever_their_cells_hold(tmp_path):
    rows = [["a,b", '"'], ["line\nbreak", "\r"], ["", "NULL"]]
    write_csv(tmp_path / "new" / "deep" / "table.csv", ("id", "text"), rows)
    assert [list(row.values()) for row in read_csv(tmp_path / "new" / "deep" / "table.csv")] == rows
    (tmp_path / "short.csv").write_bytes(b"id,text\n1\n2,caf\xe9\n")
    assert read_csv(tmp_path / "short.csv") == [{"id": "1", "text": ""}, {"id": "2", "text": "café"}]
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbfid\n1\n")
    assert read_csv(tmp_path / "marked.csv") == [{"id": "1"}]


def test_tables_that_cannot_be_written_or_read_are_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"table\.csv: cannot be written"):
        write_csv(tmp_path / "file" / "table.csv", ("id",), [])
    with pytest.raises(UserError, match=r"none\.csv: cannot be read .*, expected a CSV file"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "wide.csv").write_text("id\n" + "a" * 200_000 + "\n")
    with pytest.raises(UserError, match=r"wide\.csv: cannot be read .*, expected a CSV file"):
        read_csv(tmp_path / "wide.csv")


@pytest.mark.parametrize("ended", [UserError("no"), KeyboardInterrupt()])
def test_folders_of_a_start_that_failed_are_taken_back(ended, tmp_path):
    """Those that it made and that hold no result; a bug leaves its log behind."""

    def start(folder, error=ended, *files):
        made = make_folders(folder)
        for name in (".lock", "log", *files):
            (folder / name).write_text("")
        with pytest.raises(type(error)), taken_back(made, "log"):
            raise error

    start(tmp_path / "runs" / "deep" / "a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs" / "b").mkdir(parents=True)
    start(tmp_path / "runs" / "a")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["b"]
    start(tmp_path / "runs" / "b")
    start(tmp_path / "runs" / "c", ended, "findings.txt")
    start(tmp_path / "runs" / "d", KeyError("a bug"))
    for name in ("b", "c", "d"):
        assert (tmp_path / "runs" / name / "log").exists()


def test_temporary_names_are_of_a_process_and_are_swept(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "last.pt"
    name = temporary_name(path)
    assert name.parent == path.parent
    assert re.fullmatch(r"last\.pt\.[0-9a-f]{8}\.tmp", name.name)
    assert temporary_name(path) == name
    monkeypatch.setattr(os, "getpid", lambda: 1)
    other = temporary_name(path)
    assert other != name
    path.parent.mkdir()
    for each in (path, name, other, path.with_name("mine.tmp")):
        each.touch()
    sweep_temporaries(tmp_path)
    assert sorted(each.name for each in path.parent.iterdir()) == ["last.pt", "mine.tmp"]


@pytest.mark.parametrize(
    ("name", "left"),
    [(".DS_Store", True), ("._a.npy", True), ("Thumbs.db", True), ("__MACOSX", True), ("a.npy", False), ("db", False)],
)
def test_what_systems_leave_behind(name, left):
    assert is_leftover(name) == left


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a", True),
        ("dev-clean", True),
        ("3e-4+x_y.z b", True),
        ("a" * 150, True),
        ("ü" * 75, True),
        ("a" * 151, False),
        ("ü" * 76, False),
        ("", False),
        ("a.", False),
        ("-a", False),
        ("a/b", False),
        ("a ", False),
    ],
)
def test_names_of_folders(name, fits):
    assert is_name(name) == fits


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(yaml.YAMLError, match="the key b stands twice"):
        parse_yaml("a: 1\nb: 2\nb: 3\n")


@pytest.mark.parametrize(("text", "value"), [("on", "on"), ("off", "off"), ("yes", True), ("No", False)])
def test_switches_in_yaml(text, value):
    assert parse_yaml(f"key: {text}")["key"] == value
