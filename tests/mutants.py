"""Do the tests notice? Small faults put into a copy of the code, one at a time: an operator, a number, a condition.

    make mutants                                        # a sample of every room
    make mutants ROOMS="models decoding" SAMPLE=40 SEED=1
    make mutants ROOMS=models/attention.py:57           # every mutant of a line, to try a new test on it

Cosmic Ray makes the mutants and runs the tests. What it has no option for is here: the sample, and the choice of tests.
A fault in models/attention.py has to be noticed by tests/models/test_attention.py; where there is no such file, by
tests/models. Nothing is written in the working tree.
"""

import argparse
import itertools
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkItem
from tqdm import tqdm

HOME = Path(__file__).parents[1]
ROOMS = ["models", "decoding", "training", "utils", "corpora", "report", "."]
# Faults that people make. Not `|`, which is mostly in types, and no two that are the same for numbers or truth values.
OPERATORS = re.compile(
    "core/("
    "ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul|BitAnd_BitOr)|"
    "ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is)|"
    "ReplaceUnaryOperator_(USub_UAdd|Delete_.*)|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr|"
    "ReplaceOrWithAnd|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ExceptionReplacer|NumberReplacer|"
    "ZeroIterationForLoop)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", default=ROOMS, help="folders, files, or file:line")
    parser.add_argument("--sample", type=int, default=10, help="mutants a room")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        for room in arguments.rooms:
            items = list(mutants_of(room))
            if ":" not in room:
                items = sample_of(items, arguments.sample, random.Random(f"{arguments.seed} {room}"))
            try_room(room, items)


def copy_tree(folder: Path) -> None:
    """What git tracks, or would if it were added."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=HOME, text=True)
    for name in filter(None, listed.split("\0")):
        if (HOME / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HOME / name, folder / name)


def mutants_of(room: str) -> Iterator[WorkItem]:
    """Every mutant of a folder, a file or a line, in the order of the code."""
    path, _, line = room.partition(":")
    paths = [Path(path)] if path.endswith(".py") else sorted(Path(path).glob("*.py" if path == "." else "**/*.py"))
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "session.sqlite") as database:
        init(paths, database, {})
        items = database.work_items
    for item in sorted(items, key=lambda item: (place(item), spec(item).operator_name, spec(item).occurrence)):
        if OPERATORS.fullmatch(spec(item).operator_name) and line in ("", str(spec(item).start_pos[0])):
            yield item


def sample_of(items: list[WorkItem], size: int, random_numbers: random.Random) -> list[WorkItem]:
    """Draws places, and a mutant of each: a place with many mutants weighs no more than others. In the code's order."""
    places = [list(group) for _, group in itertools.groupby(items, key=place)]
    random_numbers.shuffle(places)
    drawn = filter(is_python, (random_numbers.choice(mutants) for mutants in places))
    return sorted(itertools.islice(drawn, size), key=place)


def spec(item: WorkItem) -> MutationSpec:
    return item.mutations[0]


def place(item: WorkItem) -> tuple[str, tuple[int, int], tuple[int, int]]:
    return str(spec(item).module_path), spec(item).start_pos, spec(item).end_pos


def is_python(item: WorkItem) -> bool:
    """False for the like of `def f(a, / , b)`, where the operator is none."""
    source = spec(item).module_path.read_text(encoding="utf-8")
    try:
        compile(mutate_code(source, get_operator(spec(item).operator_name)(), spec(item).occurrence), "mutant", "exec")
    except SyntaxError:
        return False
    return True


def try_room(room: str, items: list[WorkItem]) -> None:
    """Runs the tests on every mutant; prints the survivors, and a line about all."""
    survived = 0
    for item in tqdm(items, desc=room, disable=None):
        command, seconds = tests_of(spec(item).module_path)
        result = mutate_and_test(item.mutations, command, timeout=20 + 4 * seconds)
        if result.test_outcome == TestOutcome.INCOMPETENT:
            sys.exit(result.output)
        if result.test_outcome == TestOutcome.SURVIVED:
            survived += 1
            changed = [line for line in result.diff.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
            tqdm.write("\n".join([f"{spec(item).module_path}:{spec(item).start_pos[0]} survived", *changed]))
    tqdm.write(f"{room}: {len(items)} mutants, {len(items) - survived} noticed, {survived} survived")


@cache
def tests_of(module: Path) -> tuple[str, float]:
    """The command that runs a module's tests, and its seconds where the code is as it should be."""
    command = shlex.join([sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *map(str, mirrors(module))])
    start = time.monotonic()
    outcome, output = run_tests(command, timeout=1800)
    if outcome != TestOutcome.SURVIVED:
        sys.exit(f"{command} fails as it is:\n{output}")
    return command, time.monotonic() - start


def mirrors(module: Path) -> list[Path]:
    """The test file of a module's name, or else those of its room."""
    mirror = Path("tests", module.parent, f"test_{module.stem.strip('_')}.py")
    return [mirror] if mirror.exists() else sorted(mirror.parent.glob("test_*.py"))


if __name__ == "__main__":
    main()
