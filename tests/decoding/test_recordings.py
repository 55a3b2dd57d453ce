"""Recordings to texts and times: a language of tones is written as audio, learned, and heard again from other audio."""

import difflib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import Levenshtein
import numpy as np
import pytest
import soundfile
import torch
from matplotlib.image import imread

from config import load_config
from corpora.audio import resample
from corpora.common import make_corpus
from corpora.folder import find_utterances
from decoding.recogniser import Recogniser
from decoding.recordings import monotone_path, time_words, transcribe_recordings
from decoding.transcribe import DecodingOptions
from decoding.transcriber import load
from tests.conftest import SMALL, draw_text
from train import Trainer, main
from utils.checkpoint import LoadedModels, load_checkpoint, load_models, save_checkpoint
from utils.distributed import SINGLE_PROCESS
from utils.errors import UserError
from utils.features import OLD_NAMES, FeatureConfig, FeatureFormat
from utils.vocabulary import SPECIAL, TextForm, Vocabulary

pytestmark = pytest.mark.slow  # it trains a model
HOME = Path(__file__).parents[2]
RATE = FeatureConfig.sample_rate
PITCH = {letter: 300 * 1.4**index for index, letter in enumerate("ABCDE'")}  # Hz; a space is silence
LETTER = 0.1  # seconds


def say(text: str, generator: np.random.Generator) -> np.ndarray:
    """A tone for each letter, at any phase, in a little noise."""
    samples = round(LETTER * RATE)
    time = np.arange(samples) / RATE
    tones = [
        0.2 * (letter in PITCH) * np.sin(2 * np.pi * PITCH.get(letter, 0) * time + generator.uniform(0, 6))
        for letter in text
    ]
    return np.concatenate(tones) + 0.0005 * generator.normal(size=samples * len(text))


def command(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=HOME,
        env={"OMP_NUM_THREADS": "2", **os.environ},
        capture_output=True,
        text=True,
    )
    assert result.returncode == expect, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has learned tones, its corpus made by corpora.folder, and its arguments."""
    root, generator = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    (root / "audio").mkdir()
    for partition, size in {"train": 96, "dev": 8}.items():
        lines = []
        for number in range(size):
            text = draw_text(generator, "ABCDE' ", 3, 8).strip()
            quiet = 0.0005 * generator.normal(size=round(RATE * generator.uniform(0.1, 0.3)))
            path = root / "audio" / f"{partition}{number}.wav"
            soundfile.write(path, np.concatenate([quiet, say(text, generator), quiet]), RATE)
            lines.append(f"{path.name}\t{text.lower()}\n")
        table = root / f"{partition}.tsv"
        table.write_text("".join(lines))
        make_corpus(
            [find_utterances(root / "audio", table, partition)],
            root / "data",
            FeatureConfig(),
            2,
            False,
        )
    arguments = [*SMALL, "augment.vocal_tract=0", "augment.speed=0", "augment.frequency_masks=0", "training.epochs=24"]
    arguments += ["augment.time_masks=0", "training.guided_attention=1", "data.normalize=mean", "training.batch_size=4"]
    arguments += [f"data.root={root / 'data'}", f"run.dir={root}", "run.name=tones"]
    main(load_config(overrides=arguments))
    return root / "tones", arguments


def times(output: str) -> list[tuple[str, float, float]]:
    found = re.findall(r"^ +([\d.]+) +([\d.]+)  (\S+)$", output, re.MULTILINE)
    return [(word, float(start), float(end)) for start, end, word in found]


def test_texts_and_times_of_other_audio(run, tmp_path):
    """At another rate, in stereo, half a minute long, beside other files."""
    _, arguments = run
    generator = np.random.default_rng(1)
    silence = 0.0005 * generator.normal(size=3 * RATE)
    said, parts, at = [], [], 0.0
    for number in range(14):
        words = [draw_text(generator, "ABCDE'", 3, 4) for _ in range(2)]
        text = " ".join(words)
        pause = 1.2 + 0.5 * (number % 4)
        parts += [silence[: round(pause * RATE)], say(text, generator)]
        at += pause
        for word in words:
            said.append((word, at, at + LETTER * len(word)))
            at += LETTER * (len(word) + 1)
        at -= LETTER
    at += 1
    speech = np.concatenate([*parts, silence[:RATE]]).astype(np.float32)
    slow = resample(speech, RATE, 22_050)
    soundfile.write(tmp_path / "long.flac", np.stack([slow, 0.2 * slow], axis=1), 22_050)
    soundfile.write(tmp_path / "short.wav", np.concatenate([silence, say("BAD CAB", generator), silence]), RATE)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(RATE), RATE)

    files = [tmp_path / name for name in ("long.flac", "short.wav", "nothing.wav")]
    result = command("test.py", *arguments, "--plot", tmp_path / "pictures", "--audio", *files, "decoding.beam_size=4")
    heard = {line.split(",")[0]: line for line in result.stdout.splitlines() if line.startswith(str(tmp_path))}
    opening = f"{files[0]}, {at:.1f} s: "
    assert heard[str(files[0])].startswith(opening)
    text = " ".join(word for word, *_ in said)
    assert Levenshtein.distance(heard[str(files[0])].removeprefix(opening), text) < 0.05 * len(text)
    assert heard[str(files[1])] == f"{files[1]}, 6.7 s: BAD CAB"
    assert heard[str(files[2])] == f"{files[2]}, 1.0 s: (no speech was found)"
    assert result.stdout.strip().endswith("s (beam 4)")

    found = times(result.stdout)
    expected = [*said, ("BAD", 3.0, 3.3), ("CAB", 3.4, 3.7)]
    same = difflib.SequenceMatcher(None, *([word for word, *_ in words] for words in (found, expected)), autojunk=False)
    pairs = [
        (found[match.a + i], expected[match.b + i]) for match in same.get_matching_blocks() for i in range(match.size)
    ]
    assert len(pairs) > 0.7 * len(expected)  # enough words to compare; how many a toy model hears varies with torch
    away = np.abs([[mine - true for mine, true in zip(a[1:], b[1:], strict=True)] for a, b in pairs])
    assert np.median(away) < 0.05
    assert away.max() < 0.2
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures[-1] == "short.png"
    assert pictures[:2] == ["long-01.png", "long-02.png"]
    assert imread(tmp_path / "pictures" / "short.png").shape[1] >= 700


def test_the_feature_configuration_goes_from_the_corpus_into_the_checkpoint_and_stays(run, tmp_path):
    folder, arguments = run
    for name in ("best.pt", "last.pt"):
        loaded = load_models([folder / name])
        assert loaded.feature_config == FeatureConfig()
        assert 100 < loaded.p95_frames < 200
    data = tmp_path / "data"
    shutil.copytree(folder.parent / "data", data)

    def resumed():
        config = load_config(overrides=[*arguments, f"data.root={data}"])
        return Trainer(config, torch.device("cpu"), SINGLE_PROCESS)

    (data / "features.json").unlink()
    assert resumed().data.feature_config == FeatureConfig()
    (data / "features.json").write_text('{"bands": 28, "highest": 5500}')
    with pytest.raises(UserError, match=r"features\.json: found .* 0 to 5500 Hz.* expected .* 0 to 8000 Hz"):
        resumed()


def test_a_single_picture_and_clear_messages(run, tmp_path):
    folder, arguments = run
    path = tmp_path / "a.wav"
    soundfile.write(path, say("ABE CAD", np.random.default_rng(2)), RATE)
    command("test.py", *arguments, "--audio", path, "--plot", tmp_path / "sub" / "a.png", "decoding.mode=greedy")
    assert [picture.name for picture in (tmp_path / "sub").iterdir()] == ["a.png"]

    (tmp_path / "text.mp3").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    bad = [tmp_path / name for name in ("text.mp3", "empty.wav", "missing.flac")]
    refused = command("test.py", *arguments, "--audio", *bad, path, expect=2).stderr
    assert "text.mp3: found what cannot be read" in refused
    assert "empty.wav: found 0 samples, expected 25 ms" in refused
    assert "missing.flac: found no such file" in refused

    old = load_checkpoint(folder / "best.pt")
    del old["feature_config"]
    save_checkpoint(tmp_path / "old.pt", old)
    unknown = command("test.py", *arguments, "--checkpoint", tmp_path / "old.pt", "--audio", path, expect=2).stderr
    assert "old.pt: how features are computed from speech is not known" in unknown


def test_the_same_from_python_and_as_subtitles(run, tmp_path):
    """By the folder of the run or by a checkpoint, with its settings, or others."""
    folder, arguments = run
    generator = np.random.default_rng(5)
    silence = 0.0005 * generator.normal(size=RATE)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.concatenate([silence, say("BAD CAB", generator), silence]), RATE)
    transcriber = load(folder, beam_size=4)
    recording = transcriber.transcribe(str(path))
    assert recording.text == "BAD CAB"
    assert [word.text for word in recording.words] == ["BAD", "CAB"]
    assert str(transcriber.options) == "beam 4"
    assert recording.monotonicity > 0.5
    pair = load(folder / "best.pt", folder / "last.pt", mode="greedy")
    assert (len(pair.loaded.models), str(pair.options)) == (2, "greedy")
    with pytest.raises(UserError, match=r"decoding\.beam: found|unknown key decoding\.beam"):
        load(folder, beam=4)
    with pytest.raises(UserError, match="no checkpoint"):
        load(tmp_path / "nowhere" / "best.pt")

    out = tmp_path / "subtitles"
    result = command("test.py", *arguments, "--audio", path, "--format", "srt", "--out", out, "decoding.beam_size=4")
    assert f"{out / 'a.srt'}: {path}" in result.stdout
    assert "warning" not in result.stdout
    assert times(result.stdout) == []  # they are in the file
    number, times_of, text = (out / "a.srt").read_text().strip().split("\n")
    assert (number, text) == ("1", "BAD CAB")
    assert re.fullmatch(r"00:00:0[01],\d{3} --> 00:00:01,\d{3}", times_of)

    lost = load_checkpoint(folder / "best.pt")
    for name, weights in lost["model"].items():
        if name.startswith("speller.attention"):
            weights.zero_()
    save_checkpoint(tmp_path / "lost.pt", lost)
    lost_command = ["--checkpoint", tmp_path / "lost.pt", "--audio", path, "decoding.ctc_weight=0.9"]
    assert (
        "a.wav: the attention does not read along (monotonicity "
        in command("test.py", *arguments, *lost_command).stdout
    )


def test_checkpoints_of_other_features_do_not_go_together(run, tmp_path):
    folder, _ = run
    other = load_checkpoint(folder / "best.pt")
    other["feature_config"]["f_max"] = 5500.0
    save_checkpoint(tmp_path / "other.pt", other)
    with pytest.raises(
        UserError, match=r"other\.pt: found features of .*5500 Hz.*, expected .*8000 Hz.*, as in .*best\.pt$"
    ):
        load_models([folder / "best.pt", tmp_path / "other.pt"])
    other |= {"feature_config": None, "p95_frames": "many"}
    save_checkpoint(tmp_path / "other.pt", other)
    assert load_models([folder / "best.pt", tmp_path / "other.pt"]).feature_config is None
    assert load_models([tmp_path / "other.pt"]).p95_frames is None
    for nonsense in ("mel", {"bands": 10**9}, {"code": torch.ones(2)}):
        other["feature_config"] = nonsense
        save_checkpoint(tmp_path / "other.pt", other)
        with pytest.raises(UserError, match=r"other\.pt: feature_config: "):
            load_models([tmp_path / "other.pt"])


def test_a_checkpoint_with_the_old_names_is_the_same(run, tmp_path):
    """As the project wrote them before FeatureConfig had the names of torchaudio's arguments."""
    folder, _ = run
    old = load_checkpoint(folder / "best.pt")
    now = old.pop("feature_config")
    names = {name: key for key, name in OLD_NAMES.items()}
    old["recipe"] = {names[name]: value for name, value in now.items()}
    old["usual_frames"] = old.pop("p95_frames")
    assert set(old["recipe"]) == {"bands", "cepstra", "lowest", "highest", "rate", "window", "hop", "fft"}
    save_checkpoint(tmp_path / "old.pt", old)
    expected, found = load_models([folder / "best.pt"]), load_models([tmp_path / "old.pt"])
    assert (found.feature_config, found.p95_frames) == (expected.feature_config, expected.p95_frames)


@pytest.mark.parametrize(("usual", "longest"), [(300, 3.0), (10, 2.0), (5000, 20.0), (None, 20.0)])
def test_pieces_are_as_long_as_the_model_is_used_to(usual, longest, make_las, tmp_path):
    generator = np.random.default_rng(3)
    soundfile.write(tmp_path / "a.wav", say("ABCDE " * 50, generator), RATE)
    model = make_las(feature_dim=28)
    loaded = LoadedModels([model], FeatureFormat(28, True, "mean"), FeatureConfig(), usual)
    options = DecodingOptions("greedy", 1, "likelihood", 0.0)
    path = tmp_path / "a.wav"
    (recording,) = transcribe_recordings(Recogniser([model]), [path], loaded, options, torch.device("cpu"))
    lengths = [piece.end - piece.start for piece in recording.pieces]
    assert longest / 3 < max(lengths) <= longest
    assert sum(lengths) == pytest.approx(30, abs=0.5)
    assert all(len(piece.attention) == len(piece.text) + 1 for piece in recording.pieces)


# -------------------------------------------------------------------------------------------------------------- times


def test_the_path_never_falls_and_is_the_best_of_all_such():
    weights = np.random.default_rng(0).dirichlet(np.ones(6), size=5)
    logs = np.log(weights)
    every = np.stack(np.meshgrid(*[range(6)] * 5, indexing="ij"), -1).reshape(-1, 5)
    rising = every[(np.diff(every, axis=1) >= 0).all(1)]
    best = rising[logs[np.arange(5), rising].sum(1).argmax()]
    assert monotone_path(weights).tolist() == best.tolist()


def test_a_glance_elsewhere_does_not_move_a_word():
    attention = np.kron(np.eye(6), np.ones((1, 5))) / 5  # AB CD <eos>, five steps each
    attention[1] = 0
    attention[1, 28] = 1  # B is looked for at the end
    words = time_words("AB CD", attention, 10.0, 13.0)
    assert [word.text for word in words] == ["AB", "CD"]
    assert [word.characters for word in words] == [slice(0, 2), slice(3, 5)]
    (_, first, until, _), (_, again, end, _) = words
    assert [first, again, end] == pytest.approx([10.25, 11.5, 12.5], abs=0.2)
    assert first < until <= again


def test_words_of_a_diagonal():
    attention = np.eye(6)
    words = time_words("AB CD", attention, 0.0, 6.0)
    assert [word.text for word in words] == ["AB", "CD"]
    assert [time for word in words for time in word[1:3]] == pytest.approx([0.5, 2.0, 3.0, 5.0], abs=1e-3)
    assert time_words("", np.ones((1, 4)) / 4, 0.0, 1.0) == []
    jamo = Vocabulary((*SPECIAL, *" \u1112\u1161\u11ab"), TextForm(units="jamo"))
    words = time_words("한 하", np.eye(7), 0.0, 7.0, jamo.count)  # three letters and two
    assert [(word.text, word.characters) for word in words] == [("한", slice(0, 3)), ("하", slice(4, 6))]
    assert [time for word in words for time in word[1:3]] == pytest.approx([0.5, 3.0, 4.0, 6.0], abs=1e-3)


def test_seconds_of_characters_that_are_spread_over_steps():
    """A character lies at the mean of what is within two steps of its path, steps counted from their middle."""
    attention = np.zeros((4, 12))
    attention[0, [0, 1, 2]] = 0.2, 0.6, 0.2
    attention[1, [3, 5, 8]] = 0.5, 0.3, 0.2  # the last is three steps after the first: another character's
    attention[2, [7, 9]] = 0.6, 0.4
    attention[3, 11] = 1.0  # <eos>
    (word,) = time_words("ABC", attention, 20.0, 26.0)
    places = 20 + (np.array([1.0, (0.5 * 3 + 0.3 * 5) / 0.8, 7.8, 11.0]) + 0.5) / 2  # half a second a step
    expected = places[0], (places[2] + places[3]) / 2
    assert (word.start, word.end) == pytest.approx(expected, abs=1e-3)


def test_seconds_do_not_depend_on_attention_that_counts_as_none():
    attention = np.kron(np.eye(4), np.ones((1, 3))) / 3
    faint = np.where(attention == 0, 5e-5, attention)
    found, expected = (time_words("A B", weights, 0.0, 12.0) for weights in (faint, attention))
    assert [word[:3] for word in found] == [word[:3] for word in expected]
