"""python -m report runs/NAME: a report drawn again by hand."""

import shutil
from pathlib import Path

import pytest

from report.__main__ import main
from report.build import gather
from tests.report.test_build import make_run
from utils.cli import run_command
from utils.errors import UserError
from utils.files import temporary_name


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run_folder(drawn, tmp_path) -> Path:
    return shutil.copytree(drawn, tmp_path / "run")


def test_redrawn_from_what_is_in_the_folder(run_folder, monkeypatch, capsys):
    expected = (run_folder / "report.html").read_text(encoding="utf-8")
    (run_folder / "report.html").unlink()
    monkeypatch.setattr("sys.argv", ["report", str(run_folder)])
    run_command(main)
    assert capsys.readouterr().out.strip() == str(run_folder / "report.html")
    assert len((run_folder / "report.html").read_text(encoding="utf-8")) == len(expected)
    assert len(gather(run_folder)["splits"]) == 2


def test_several_runs_are_one_page_beside_the_first(run_folder, monkeypatch, capsys, tmp_path):
    other = shutil.copytree(run_folder, tmp_path / "deep" / "other")
    for more, page in (([], tmp_path / "comparison.html"), (["--output", "mine.html"], Path("mine.html"))):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["report", str(run_folder), str(other), *more])
        run_command(main)
        assert capsys.readouterr().out.strip() == str(page)
        assert page.stat().st_size
    for wrong, words in (
        ([str(run_folder), str(tmp_path)], "found neither metrics"),
        ([str(run_folder), str(other), "--output", "no/folder/x.html"], "x.html: cannot be written"),
        ([str(run_folder), "--output", "x.html"], "--output: found a single run"),
    ):
        monkeypatch.setattr("sys.argv", ["report", *wrong])
        with pytest.raises(UserError, match=words):
            main()


def test_a_folder_that_is_no_run_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    with pytest.raises(UserError, match=r"found neither metrics\.csv nor predictions"):
        main()
    (tmp_path / "report.html").write_text("")  # a report alone holds nothing to draw another one from
    with pytest.raises(UserError, match=r"found neither metrics\.csv nor predictions"):
        main()


def test_a_report_that_cannot_be_written_is_an_exit_code(run_folder, monkeypatch, capsys):
    temporary_name(run_folder / "report.html").mkdir()
    monkeypatch.setattr("sys.argv", ["report", str(run_folder)])
    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: report.html: cannot be written")
