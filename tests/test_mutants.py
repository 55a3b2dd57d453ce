"""The mutation tester: what it draws, what runs, and that the working tree stays as it is."""

import random
from pathlib import Path

import pytest

from tests import mutants

TOY = "def double(x):\n    return 2 * x\n\n\ndef untested(x, /):\n    return x > 0\n"
TEST = "from toy import double\n\n\ndef test_double():\n    assert double(2) == 4\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    (tmp_path / "tests" / "test_toy.py").write_text(TEST, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n", encoding="utf-8")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.chdir(tmp_path)
    mutants.tests_of.cache_clear()
    yield tmp_path
    mutants.tests_of.cache_clear()


def test_survivors_are_shown_with_their_line_and_change(project, capsys):
    noticed, *_, survivor = mutants.mutants_of("toy.py")
    mutants.try_room("toy.py", [noticed, survivor])
    assert capsys.readouterr().out.splitlines() == [
        "toy.py:6 survived",
        "-    return x > 0",
        "+    return x > -1",
        "toy.py: 2 mutants, 1 noticed, 1 survived",
    ]
    assert (project / "toy.py").read_text(encoding="utf-8") == TOY


def test_tests_that_fail_as_they_are_notice_nothing(project):
    (project / "tests" / "test_toy.py").write_text("assert False\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="fails as it is"):
        mutants.try_room("toy.py", list(mutants.mutants_of("toy.py")))


def test_a_seed_draws_the_same_mutants_again_all_of_them_python(project):
    everything = list(mutants.mutants_of("."))
    assert not all(map(mutants.is_python, everything))  # the / of a signature is no division

    def drawn(size, seed):
        sample = mutants.sample_of(everything, size, random.Random(seed))
        return [(mutants.place(item), mutants.spec(item).operator_name) for item in sample]

    assert drawn(2, 0) == drawn(2, 0)
    assert len({tuple(drawn(2, seed)) for seed in range(9)}) > 1
    assert len(drawn(99, 0)) == len({place for place, _ in drawn(99, 0)}) == 4  # 2, *, >, 0: one mutant each


def test_the_copy_has_what_git_would_have(tmp_path):
    mutants.copy_tree(tmp_path)
    assert (tmp_path / "models" / "las.py").read_bytes() == (mutants.HOME / "models" / "las.py").read_bytes()
    assert not (tmp_path / ".venv").exists()


def test_a_module_is_noticed_by_its_mirror_or_by_its_room(project):
    assert mutants.mirrors(Path("toy.py")) == mutants.mirrors(Path("other.py")) == [Path("tests/test_toy.py")]
    (project / "tests" / "test_other.py").touch()
    assert mutants.mirrors(Path("__other__.py")) == [Path("tests/test_other.py")]
    assert mutants.mirrors(Path("toy.py")) == [Path("tests/test_toy.py")]
    assert mutants.mirrors(Path("third.py")) == [Path("tests/test_other.py"), Path("tests/test_toy.py")]
