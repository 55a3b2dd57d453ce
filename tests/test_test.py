"""test.py as a person runs it, on toy speech: distances, a submission to the byte, decodings that are killed."""

import csv
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.conftest import draw_text, run, speak, write_utterance
from utils.files import parse_yaml, to_yaml, write_csv


@pytest.fixture
def decode(trained, tmp_path):
    """Runs test.py on a copy of the trained run, in the folder that it is in."""
    shutil.copytree(trained.folder, tmp_path / "toy")

    def decode(*arguments: str, **options):
        return run("test.py", *trained.arguments, f"run.dir={tmp_path}", *arguments, cwd=tmp_path, **options)

    return decode


def last_line(result) -> str:
    return result.stdout.strip().splitlines()[-1]


def test_a_template_of_the_submission_is_not_for_other_splits(decode, toy_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(toy_root, root)
    (root / "sample_submission.csv").write_text("index,label\n" + "".join(f"{row},\n" for row in range(9)))
    assert last_line(decode("--split", "dev", f"data.root={root}")).startswith("dev: 12 utterances, distance ")


def test_a_split_without_transcripts_gives_its_texts(decode, tmp_path):
    result = decode("--split", "test", "decoding.mode=greedy")
    texts = pd.read_csv(tmp_path / "toy" / "hypotheses-test.csv", keep_default_na=False)
    assert list(texts.columns) == ["id", "hypothesis"]
    assert texts["id"].tolist() == [f"test-{number:03d}" for number in range(9)]
    assert texts["hypothesis"].str.len().min() > 0
    assert "hypotheses-test.csv: hypotheses, since test has no transcripts" in result.stdout
    assert not (tmp_path / "submission.csv").exists()


def test_a_split_is_scored(decode, toy_root, tmp_path):
    folder = tmp_path / "toy"
    result = decode("--split", "dev", "decoding.beam_size=4")
    predictions = pd.read_csv(folder / "predictions-dev.csv", keep_default_na=False)
    assert list(predictions.columns) == ["id", "reference", "hypothesis", "distance"]
    assert predictions["id"].tolist() == [f"dev-{number:03d}" for number in range(12)]
    distance = predictions["distance"].mean()
    cer = 100 * predictions["distance"].sum() / predictions["reference"].str.len().sum()
    assert last_line(result).startswith(f"dev: 12 utterances, distance {distance:.3f}, CER {cer:.2f} %, WER ")
    assert last_line(result).endswith(" s (beam 4)")
    assert cer < 10
    assert f"{folder / 'report.html'}: its table lists them" in result.stdout
    assert "predictions-dev.csv" in (folder / "report.html").read_text()
    refused = decode("--split", "dev", "data.root=nowhere", expect=2).stderr
    assert f"found no folder nowhere; {folder} was trained with data.root={toy_root}: repeat the" in refused
    again = decode("--split", "dev", "decoding.mode=greedy")
    greedy = last_line(again)
    assert greedy.endswith(" s (greedy)")
    replaced = (
        r"predictions-dev\.csv: references and hypotheses; in place of that of .* \(beam 4, CTC 0\.5, length 0\.8, "
    )
    assert re.search(f"{replaced}distance {distance:.3f}\\)", again.stdout)
    history = pd.read_csv(folder / "decodings.csv", keep_default_na=False, dtype=str)[-2:]
    assert history["mode"].tolist() == ["beam", "greedy"]
    assert history["split"].tolist() == ["dev", "dev"]
    assert float(history["distance"].iloc[0]) == pytest.approx(distance, abs=1e-4)
    data = json.loads(re.search(r'id="data">(.*?)</script>', (folder / "report.html").read_text())[1])
    assert [one["search"] for one in data["decodings"][:2]] == ["greedy, CTC 0.5", "beam 4, CTC 0.5, length 0.8"]
    assert data["splits"][0]["search"] == "greedy, CTC 0.5"
    metrics = pd.read_csv(folder / "metrics.csv")
    assert f"distance {metrics['dev_distance'].min():.3f}" in greedy  # the distance that picked best.pt


def test_a_run_is_decoded_as_it_was_trained_without_its_settings_repeated(trained, tmp_path):
    """Named by its folder, by one checkpoint or by its name; a --config says what it changes."""
    folder = trained.folder
    shutil.copytree(folder, tmp_path / "toy")
    own = ["decoding.ctc_weight=0.2", "decoding.length_reward=0.1"]
    asked = run("test.py", *trained.arguments, "--split", "dev", *own).stdout.splitlines()[-1]
    (tmp_path / "own.yaml").write_text("decoding: {ctc_weight: 0.2, length_reward: 0.1}")
    settings = parse_yaml((tmp_path / "toy" / "config.yaml").read_text())
    settings["decoding"] |= {"ctc_weight": 0.2, "length_reward": 0.1}
    settings["test"]["submission"] = "../elsewhere.csv"  # not taken from a run
    settings["of_another_version"] = {"key": 1}
    (tmp_path / "toy" / "config.yaml").write_text(to_yaml(settings))
    by_folder, by_checkpoint = [str(tmp_path / "toy")], ["--checkpoint", str(tmp_path / "toy" / "best.pt")]
    for way in (by_folder, by_checkpoint, [f"run.dir={tmp_path}", "run.name=toy"]):
        found = run("test.py", *way, "--split", "dev", cwd=tmp_path).stdout.splitlines()[-1]
        assert re.sub(r"[\d.]+ s ", "", found) == re.sub(r"[\d.]+ s ", "", asked)
    changed = run("test.py", str(folder), "--split", "dev", "--config", str(tmp_path / "own.yaml")).stdout
    assert "own.yaml changes what the run was trained with: decoding.ctc_weight 0.5 -> 0.2, decoding.length_" in changed
    assert re.sub(r"[\d.]+ s ", "", changed.splitlines()[-1]) == re.sub(r"[\d.]+ s ", "", asked)
    (tmp_path / "toy" / "config.yaml").write_text("[1, 2")
    assert "config.yaml: found no settings of a run" in run("test.py", *by_folder, expect=2).stderr


def test_the_submission_to_the_byte(decode, tmp_path):
    """Without --split: data.test, in sorted file order, whatever the batches; several checkpoints as an ensemble."""
    assert last_line(decode()).startswith("test: 9 utterances, ")
    alone = (tmp_path / "submission.csv").read_bytes()
    both = [str(tmp_path / "toy" / "best.pt")] * 2
    ensemble = tmp_path / "more" / "ensemble.csv"
    decode("--checkpoint", *both, f"test.submission={ensemble}")
    assert ensemble.read_bytes() == alone
    assert (tmp_path / "toy" / "submission.csv").read_bytes() == alone
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["index", "label"]
    assert [row[0] for row in rows[1:]] == [str(index) for index in range(9)]
    assert alone == ("\n".join(",".join(row) for row in rows) + "\n").encode()
    assert any(len(row[1]) > 1 for row in rows[1:])

    other = decode("decoding.mode=greedy").stdout
    assert "submission.csv: a copy of it; in place of that of " in other
    assert "toy/submission.csv: 9 rows, header index,label" in other
    history = pd.read_csv(tmp_path / "toy" / "decodings.csv", keep_default_na=False)[-3:]  # others decode it as well
    assert history["checkpoints"].tolist() == ["best.pt", "best.pt + best.pt", "best.pt"]
    assert history["submission"].tolist() == ["submission.csv", str(ensemble), "submission.csv"]


def test_a_killed_decoding_goes_on(decode, tmp_path):
    """What was decoded before is taken as it is, unless it was decoded with something else."""
    decode()
    expected = (tmp_path / "submission.csv").read_text().splitlines()
    assert not list((tmp_path / "toy").glob("decoding-*.jsonl"))  # nothing stays behind

    decode(fault="interrupt@decoded:1", expect=130)
    (kept,) = (tmp_path / "toy").glob("decoding-test-0.jsonl")
    content = kept.read_text()
    count = len(re.findall(r'"test-\d+\.npy": "', content))
    assert 1 <= count < 9
    marked = re.sub(r'("test-\d+\.npy": "[^"]*)"', r'\1X"', content)
    kept.write_text(marked + '{"test-00')  # killed while it wrote this line
    other = decode("--resume", "decoding.beam_size=3", "--split", "dev").stdout
    assert "nothing to resume" in other
    resumed = decode("--resume").stdout
    assert f"{count} utterances are decoded already" in resumed
    found = (tmp_path / "submission.csv").read_text().splitlines()
    assert [line.removesuffix("X") for line in found] == expected
    assert sum(line.endswith("X") for line in found) == count
    decode()
    assert (tmp_path / "submission.csv").read_text().splitlines() == expected


def test_an_empty_prediction_is_an_empty_string(tmp_path):
    path = tmp_path / "s.csv"
    write_csv(path, ("index", "label"), [(0, ""), (1, "IT'S")])
    assert path.read_bytes() == b"index,label\n0,\n1,IT'S\n"
    with path.open(newline="") as file:
        assert list(csv.reader(file))[1] == ["0", ""]


def test_utterances_three_times_as_long_are_neither_cut_nor_repeated(decode, toy_root, tmp_path):
    """Training has at most 8 characters an utterance; these have about 24."""
    generator = np.random.default_rng(7)
    root = tmp_path / "data"
    shutil.copytree(toy_root / "train", root / "train")
    for number in range(12):
        text = draw_text(generator, "ABCDE '", 26, 29)
        write_utterance(root / "long", f"long-{number:02d}", text, speak(text, generator))

    def decoded(*weights):
        decode(f"data.root={root}", "--split", "long", *weights)
        table = pd.read_csv(tmp_path / "toy" / "predictions-long.csv", keep_default_na=False)
        lengths = table["reference"].str.len()
        return table["distance"].sum() / lengths.sum(), table["hypothesis"].str.len() / lengths

    cer, ratio = decoded()
    assert cer < 0.12
    assert ratio.between(0.85, 1.3).all()
    # Attention alone is no such help so far from its training; but the beam must not make it worse than greedy.
    greedy, _ = decoded("decoding.ctc_weight=0", "decoding.mode=greedy")
    beam, ratio = decoded("decoding.ctc_weight=0")
    assert beam < greedy + 0.05
    assert ratio.max() < 1.5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--format", "srt"], "--format: it is made of recordings: name them with --audio FILE"),
        (["--plot", "x.png"], "--plot: it is made of recordings"),
        (["--audio", "a.wav", "--out", "x"], "--out: it is the folder of what --format writes: add --format txt|srt"),
    ],
)
def test_flags_that_need_another(flags, words, tmp_path):
    assert words in run("test.py", f"run.dir={tmp_path}", *flags, expect=2).stderr
