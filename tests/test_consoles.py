"""Consoles that cannot show every letter: no command fails for it, what they cannot show is escaped."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tests.conftest import HOME, SMALL, environment, make_toy_corpus

STRANGE = "é한"
PROGRAMS = ("train.py", "test.py", "tune.py", "report", "corpora.demo", "corpora.folder", "corpora.librispeech")
RUN_ALL = """
import json, os, runpy, sys
for program, *arguments in json.loads(sys.argv[1]):
    bytes_ = [argument.encode() for argument in arguments]
    sys.argv = [program, *map(os.fsdecode, bytes_)]  # as the system would hand them over
    try:
        run = runpy.run_path if program.endswith(".py") else runpy.run_module
        run(program, run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    print(f"\\nended: {code}", file=sys.__stderr__, flush=True)
"""


def run_all(commands: list[list[str]], variables: dict[str, str]) -> tuple[list[int], str, str]:
    """The commands one after the other in one interpreter: exit codes, stdout, stderr, with escapes for what is odd."""
    clean = {key: value for key, value in environment(LC_ALL="C").items() if not key.startswith("PYTHONIO")}
    line = [sys.executable, "-c", RUN_ALL, json.dumps(commands)]
    result = subprocess.run(line, cwd=HOME, env={**clean, **variables}, capture_output=True)
    out, err = (stream.decode("ascii", "backslashreplace") for stream in (result.stdout, result.stderr))
    assert result.returncode == 0, err
    for word in ("Traceback", "UnicodeEncodeError", "UnicodeDecodeError", "Logging error"):
        assert word not in out + err, err
    return [int(line.removeprefix("ended: ")) for line in err.splitlines() if line.startswith("ended: ")], out, err


@pytest.fixture
def strange(tmp_path):
    """A folder with speech, whose name and texts no ASCII console can show."""
    root = tmp_path / STRANGE
    for folder in ("audio", "tree/train/1/2"):
        (root / folder).mkdir(parents=True)
        for name in ("1-2-3", "1-2-4"):
            soundfile.write(root / folder / f"{name}.wav", np.sin(np.arange(16000) / 9), 16000)
    table = f"1-2-3.wav\tHI “HO”\n1-2-4.wav\tHI {STRANGE}\n{STRANGE}.wav\tHO\n"
    (root / "table.tsv").write_text(table, encoding="utf-8")
    lines = f"1-2-3 HI “HO”\n1-2-4 HI {STRANGE}\n4 {STRANGE}\n"
    (root / "tree/train/1/2/1-2.trans.txt").write_text(lines, encoding="utf-8")
    yield root
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "variables",
    [
        *({"PYTHONIOENCODING": encoding} for encoding in ("ascii", "latin-1", "cp949", "ascii:strict")),
        {"PYTHONUTF8": "0"},
    ],
    ids=str,
)
def test_help_and_messages(variables, strange):
    commands = [[program, "--help"] for program in PROGRAMS]
    commands += [[program, f"--{STRANGE}"] for program in PROGRAMS]
    codes, _, _ = run_all(commands, variables)
    assert codes == [0] * len(PROGRAMS) + [2] * len(PROGRAMS)
    makers = [
        ["corpora.folder", f"{strange}/audio", f"{strange}/table.tsv", f"{strange}/a", "--name", "train", "--skip-bad"],
        ["corpora.librispeech", f"{strange}/tree", f"{strange}/b", "--skip-bad"],
        ["corpora.demo", f"{strange}/c", "--utterances", "16"],
        ["report", str(strange)],
    ]
    codes, out, _ = run_all(makers, variables)
    assert codes == [0, 0, 0, 2]
    assert "left out of the texts, since the vocabulary has no such character: " in out
    if "ascii" in variables.get("PYTHONIOENCODING", "ascii") and "PYTHONUTF8" not in variables:
        assert "'\\u201c' 1 times, '\\u201d' 1 times" in out
        assert "found '\\xe9', '\\ud55c' in 'HI \\xe9\\ud55c', expected" in out


def test_a_run_from_training_to_its_report(strange):
    """In a folder that the console cannot show; the log is UTF-8. Where the system cannot name it, one message each."""
    data = make_toy_corpus(strange / "data", {"train": 16, "dev": 4, "test": 2})
    keys = [*SMALL, f"data.root={data}", f"run.dir={strange}", "run.name=run", "training.epochs=1"]
    decoding = [*keys, "decoding.beam_size=2", f"test.submission={strange}/s.csv"]
    commands = [
        ["train.py", *keys],
        ["test.py", *decoding],
        ["test.py", *decoding, "--split", "dev"],
        ["report", f"{strange}/run"],
    ]
    codes, _, err = run_all(commands[:3], {"PYTHONUTF8": "0"})
    assert codes == [2, 2, 2]
    assert err.count("error: command line: run.dir: found ") == 3
    codes, out, _ = run_all(commands, {"PYTHONIOENCODING": "ascii:strict"})
    assert codes == [0, 0, 0, 0]
    assert "\\xe9\\ud55c/run/report.html" in out
    assert f"{STRANGE}/run/report.html" in (strange / "run" / "train.log").read_bytes().decode("utf-8")


def test_a_name_that_the_system_cannot_express_is_one_message(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"run: {{name: {STRANGE}}}\n", encoding="utf-8")
    codes, _, err = run_all([["train.py", "--config", str(settings), f"run.dir={tmp_path}"]], {"PYTHONUTF8": "0"})
    assert codes == [2]
    assert "found a name that this system cannot express in ascii: set PYTHONUTF8=1" in err
