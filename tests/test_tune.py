"""The search for decoding weights, on scores made so that the right answer is known; and tune.py on toy speech."""

import re
import shutil

import pytest
import torch

from config import load_config
from decoding.rescoring import SourceScores, Weights, combine
from decoding.tuning import (
    CTC_WEIGHTS,
    LM_WEIGHTS,
    NBest,
    best_rank,
    best_weights,
)
from tests.conftest import SMALL, run
from tune import read_texts
from utils.errors import UserError
from utils.files import parse_yaml
from utils.vocabulary import KAGGLE


def made(weights: Weights, N=400, K=6, noise=0.0) -> NBest:
    """Lists whose best hypothesis, distance 0, is the one that these weights prefer; the last place is empty."""
    torch.manual_seed(0)
    lengths = torch.randint(5, 40, (N, K)).double()
    sources = SourceScores(*(-torch.rand(N, K).double() * 3 * lengths for _ in range(3)), lengths)
    scores = combine(sources, weights) + noise * torch.randn(N, K)
    real = torch.ones(N, K, dtype=torch.bool)
    real[:, -1] = False
    scores[:, -1] = float("-inf")
    distances = torch.where(scores == scores.amax(1, keepdim=True), 0, 5)
    return NBest(sources, distances, real, [[[3]] * (K - 1)] * N)


def mean_distance(nbest: NBest, weights: Weights) -> float:
    chosen = combine(nbest.scores, weights).masked_fill(~nbest.real, float("-inf")).argmax(1, keepdim=True)
    return float(nbest.distances.gather(1, chosen).double().mean())


@pytest.mark.parametrize("truth", [Weights(0.3, 0.0, 1.0), Weights(0.7, 0.4, 0.5), Weights(0.0, 0.2, 1.0)])
def test_the_weights_that_made_the_lists_are_found(truth):
    nbest = made(truth)
    found = best_weights(nbest, CTC_WEIGHTS, LM_WEIGHTS)
    assert found.ctc_weight == pytest.approx(truth.ctc_weight, abs=0.15)
    assert found.lm_weight == pytest.approx(truth.lm_weight, abs=0.15)
    assert mean_distance(nbest, found) < 0.2 * mean_distance(nbest, Weights(1.0, 0.8, 0.0))


def test_without_a_ctc_branch_its_weight_stays_zero():
    assert best_weights(made(Weights(0.0, 0.3, 1.0)), [0.0], LM_WEIGHTS).ctc_weight == 0


def one_list(*texts_and_logs) -> NBest:
    logs = torch.tensor([[log for _, log in texts_and_logs]], dtype=torch.double)
    zeros, ones = torch.zeros_like(logs), torch.ones_like(logs)
    tokens = [[KAGGLE.encode(text)[1:-1] for text, _ in texts_and_logs]]
    return NBest(SourceScores(logs, zeros, zeros, ones), zeros, ones.bool(), tokens)


def test_minimum_bayes_risk_where_it_is_better():
    crowd = one_list(("CATS", -1.2), ("CAR", -1.3), ("CAT", -1.25), ("DOG", -1.0))
    assert best_rank(crowd, Weights(0.0, 0.0, 0.0), ["CAT"]) == "mbr"
    assert best_rank(crowd, Weights(0.0, 0.0, 0.0), ["DOG"]) == "likelihood"
    assert best_rank(one_list(("CAT", -0.1)), Weights(0.0, 0.0, 0.0), ["CAT"]) == "likelihood"


def test_only_training_transcripts_and_the_given_text_are_read(toy_root, tmp_path):
    config = load_config(overrides=[*SMALL, f"data.root={toy_root}"])
    texts = read_texts(config, None)
    assert len(texts) == 96
    more = tmp_path / "more.txt"
    more.write_text("It's  noon.\n\n12\nüber", encoding="utf-8")
    assert read_texts(config, more)[96:] == ["IT'S NOON", "UBER"]
    more.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"--text: .*more\.txt: cannot be read as UTF-8"):
        read_texts(config, more)
    with pytest.raises(UserError, match=r"data\.train: found no transcripts in test"):
        read_texts(load_config(overrides=[*SMALL, f"data.root={toy_root}", "data.train=test"]), None)


def test_a_failed_start_leaves_no_folder(trained, tmp_path):
    folders = [f"run.dir={tmp_path / 'runs'}", "run.name=both", "--checkpoint", str(trained.folder / "best.pt")]
    refused = run("tune.py", *trained.arguments, *folders, "--text", "nowhere.txt", expect=2)
    assert "--text: nowhere.txt: cannot be read" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_needs_a_name(trained, tmp_path):
    models = ["--checkpoint", *[str(trained.folder / "best.pt")] * 2]
    refused = run("tune.py", *models, cwd=tmp_path, expect=2).stderr
    assert "--checkpoint: found 2 models without a name, expected one for their ensemble" in refused
    assert list(tmp_path.iterdir()) == []


def test_tuned_weights_are_found_kept_and_used(trained, tmp_path):
    folder = tmp_path / "toy"
    shutil.copytree(trained.folder, folder)
    arguments = [*trained.arguments, f"run.dir={tmp_path}"]
    more = tmp_path / "more.txt"
    more.write_text("a bee\n\n123\nA DEAD CAD")
    # Without normalisation and with too much of the language model, so that there is something to gain.
    poor = ["decoding.ctc_weight=0.3", "decoding.lm_weight=3", "decoding.length_reward=0"]
    missing = run("test.py", *arguments, "--split", "dev", *poor, expect=2)
    assert "lm.pt: found no language model; python tune.py makes it" in missing.stderr
    result = run("tune.py", *arguments, *poor, "decoding.mode=greedy", "--text", str(more))
    assert "lm.pt: 98 texts, " in result.stdout
    before, after = map(float, re.search(r"dev: distance ([\d.]+) -> ([\d.]+): CTC ", result.stdout).groups())
    assert after < before
    tuned = parse_yaml((folder / "decoding.yaml").read_text())["decoding"]
    assert set(tuned) == {"mode", "rank", "ctc_weight", "lm_weight", "length_reward"}
    assert tuned["mode"] == "beam"  # as it was measured, also where the run decodes greedily
    decoded = run("test.py", *arguments, "--split", "dev").stdout
    assert f"decoding weights: {folder / 'decoding.yaml'}" in decoded
    assert f"distance {after:.3f}" in decoded
    overridden = run("test.py", *arguments, "--split", "dev", *poor).stdout  # the command line has the last word
    assert f"distance {before:.3f}" in overridden
    language_model = (folder / "lm.pt").read_bytes()
    again = run("tune.py", *arguments).stdout
    assert "left as it is" in again
    assert (folder / "lm.pt").read_bytes() == language_model  # one unit with the weights
    assert parse_yaml((folder / "decoding.yaml").read_text())["decoding"] == tuned
    (folder / "decoding.yaml").write_text("decoding: {ctc_weights: 1}")
    assert "unknown key decoding.ctc_weights" in run("test.py", *arguments, "--split", "dev", expect=2).stderr
