"""notebook.ipynb as a newcomer runs it, from the first cell to the last, in a fresh copy of the repository."""

import re
import shutil

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from tests.conftest import HOME

NOTEBOOK = HOME / "notebook.ipynb"
SMALLEST = {"UTTERANCES": 32, "EPOCHS": 1}


@pytest.fixture
def clone(tmp_path):
    """What git has of the repository, without data and runs."""
    for path in [*HOME.glob("*.py"), HOME / "config.yaml", HOME / "requirements.txt"]:
        shutil.copy(path, tmp_path)
    for package in [HOME / "configs", *(path.parent for path in HOME.glob("*/__init__.py"))]:
        shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_it_is_small_and_has_no_output_and_no_key():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= 12
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert not re.search(r"[0-9a-f]{32}", "".join(cell.source for cell in code))


def test_from_nothing_to_a_submission(clone, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    for name, value in SMALLEST.items():
        parameters.source, found = re.subn(rf"(?m)^{name} = \d+", f"{name} = {value}", parameters.source)
        assert found == 1
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(clone)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in text
    assert "error:" not in text
    assert "synthetic speech, 32 utterances for train, 2 utterances for dev" in text
    assert re.search(r"best: epoch 1, dev distance [\d.]+", text)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert len(pd.read_csv(clone / "submission.csv", keep_default_na=False)) == 2
    assert "index,label" in text
