"""What is installed where users run this: an image's own packages stay, and both ends of every range are pinned."""

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOME = Path(__file__).parents[1]
COLAB = {  # the image of August 2026
    "torch": "2.11.0+cu128",
    "torchaudio": "2.11.0+cu128",
    "numpy": "2.1.3",
    "pandas": "2.2.3",
    "matplotlib": "3.10.0",
    "pillow": "11.3.0",
    "pydantic": "2.13.4",
    "wandb": "0.28.1",
    "tqdm": "4.67.3",
    "soundfile": "0.14.0",
}


def requirements_of(name: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (HOME / name).read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(each.name): each for each in found}


@pytest.mark.parametrize("name", COLAB)
def test_what_colab_has_is_kept(name):
    assert requirements_of("requirements.txt")[name].specifier.contains(COLAB[name])


def pin(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return only.version


@pytest.mark.parametrize("constraints", ["constraints.txt", "constraints-oldest.txt"])
def test_pins_lie_within_the_ranges(constraints):
    pinned = requirements_of(constraints)
    for name, requirement in requirements_of("requirements.txt").items():
        assert requirement.specifier.contains(pin(pinned[name])), name
    minor = {pin(pinned[name]).rsplit(".", 1)[0] for name in ("torch", "torchaudio")}
    assert len(minor) == 1


def test_the_oldest_pins_are_the_lower_ends():
    oldest = requirements_of("constraints-oldest.txt")
    for name, requirement in requirements_of("requirements.txt").items():
        (lower,) = [each.version for each in requirement.specifier if each.operator == ">="]
        assert pin(oldest[name]).startswith(f"{lower}."), name


def test_the_tests_run_with_pinned_versions():
    """With those of constraints.txt, or of constraints-oldest.txt."""
    files = [requirements_of(name) for name in ("constraints.txt", "constraints-oldest.txt")]
    for name in requirements_of("requirements.txt"):
        assert version(name).partition("+")[0] in {pin(pinned[name]) for pinned in files}, name
