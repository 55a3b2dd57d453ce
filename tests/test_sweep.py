"""configs/sweep.yaml as wandb's agent uses it: what it would run is a command that train.py takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from config import known_keys, load_config
from tests.conftest import HOME, environment, messages


@pytest.fixture
def sweep() -> dict:
    return yaml.safe_load((HOME / "configs" / "sweep.yaml").read_text())


def choices(parameter: dict) -> list:
    return parameter.get("values") or [parameter[key] for key in ("value", "min", "max") if key in parameter]


def test_all_parameters_are_keys_and_all_values_are_taken(sweep):
    assert sweep["parameters"].keys() <= known_keys().keys()
    for key, parameter in sweep["parameters"].items():
        assert choices(parameter)
        for value in choices(parameter):
            *sections, name = key.split(".")
            found = load_config(overrides=[f"{key}={value}"])
            for section in sections:
                found = getattr(found, section)
            assert getattr(found, name) == value


def test_the_command_of_a_trial_runs(sweep, tmp_path):
    """With the arguments that wandb makes of a trial, and two more that end it early."""
    trial = {key: {"value": choices(parameter)[0]} for key, parameter in sweep["parameters"].items()}
    trial |= {"data.root": {"value": "nowhere"}, "run.dir": {"value": str(tmp_path)}}
    parts = {
        **create_sweep_command_args({"args": trial}),
        "env": ["/usr/bin/env"],
        "program": [sweep["program"]],
    }
    command = []
    for part in create_sweep_command(sweep["command"]):
        macro = part.startswith("${") and part.endswith("}")
        command += parts[part[2:-1]] if macro else [part]
    assert "training.epochs=10" in command
    our_python_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = environment(PATH=our_python_first, WANDB_RUN_ID="abc123")
    (tmp_path / "sweep-abc123").mkdir()  # a folder that was there stays when a start fails, and has its log
    result = subprocess.run(command, cwd=HOME, env=variables, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "data.root: found no folder nowhere" in result.stderr
    assert result.stderr in messages(tmp_path / "sweep-abc123")
