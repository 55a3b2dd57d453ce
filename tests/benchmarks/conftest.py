"""A small model for the benchmarks, and how tests run their commands. Times are never asserted."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import gemm
from config import load_config
from tests.conftest import SMALL
from utils.cli import run_command
from utils.files import to_yaml

TINY = "2,40,12,6"  # a shape: batch size, frames, features, tokens
RunBenchmark = Callable[..., None]


@pytest.fixture
def small_config(tmp_path, monkeypatch) -> Path:
    """A configuration file with a small model; matrix products are small as well."""
    monkeypatch.setitem(gemm.SIZE, "cpu", 64)
    monkeypatch.setattr(gemm, "SECONDS", 0.001)
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(load_config(overrides=SMALL).model_dump()), encoding="utf-8")
    return path


@pytest.fixture
def run_benchmark(monkeypatch) -> RunBenchmark:
    """Runs the command of a module of benchmarks in this process."""

    def run(module: ModuleType, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
        run_command(module.main)

    return run


@pytest.fixture
def measure_tiny(run_benchmark, small_config, tmp_path) -> Callable[..., dict[str, Any]]:
    """Runs a command for one round on a tiny shape and returns the figures that it wrote as JSON."""

    def measure(module: ModuleType, *arguments: str) -> dict[str, Any]:
        written = tmp_path / "figures.json"
        flags = ["--shape", TINY, "--config", str(small_config), "--device", "cpu", "--rounds", "1"]
        run_benchmark(module, *flags, "--json", str(written), *arguments)
        figures = json.loads(written.read_text(encoding="utf-8"))
        assert figures["command"] == module.__name__
        assert figures["machine"].keys() >= {"commit", "hardware", "threads", "torch"}
        return figures

    return measure
