"""The sound of utterances on the page: which have one, and that it is theirs."""

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from corpora.common import Found, Utterance, make_corpus
from report import sounds
from report.build import BEST_TEXTS, COLUMNS, RunReport, gather, write_report
from report.sounds import add_sounds
from tests.report.test_build import make_row, read_data
from training.evaluate import AttentionMap, Evaluation, Prediction
from utils.features import FeatureConfig

SAID = {"a": "ONE", "b": "TWO TWO", "c": "GO ON"}
HERTZ = {"a": 400, "b": 700, "c": 1100}
SECONDS = {"a": 0.5, "b": 0.6, "c": 0.8}
PREDICTIONS = [("a", "ONE", "ONE", 0), ("b", "TWO TWO", "TWO TO", 1), ("c", "GO ON", "SO IN", 2)]


def make_heard_run(tmp_path: Path) -> Path:
    """A run on a corpus of three tones, decoded, with the attention map of `b`."""
    utterances = []
    for name, hertz in HERTZ.items():
        path = tmp_path / "secret" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        time = np.arange(round(22_050 * SECONDS[name])) / 22_050
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * time), 22_050)
        utterances.append(Utterance(name, path, SAID[name], ""))
    make_corpus([Found("dev", utterances, [])], tmp_path / "data", FeatureConfig(), 1, False)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"data: {{root: '{tmp_path / 'data'}', train: [train], dev: dev}}\n")
    pd.DataFrame([make_row(1)]).to_csv(folder / "metrics.csv", index=False)
    pd.DataFrame(PREDICTIONS, columns=COLUMNS).to_csv(folder / "predictions-dev.csv", index=False)
    add_epoch(folder)
    return folder


def add_epoch(folder: Path) -> None:
    shown = AttentionMap("b", [*SAID["b"], "<eos>"], np.eye(8), 0.6)
    RunReport(folder).add_epoch(make_row(1), Evaluation({}, [shown], [Prediction(*row) for row in PREDICTIONS]), True)


def heard(data: dict) -> list[dict[str, int]]:
    """Of each table, the place of the sound of those that have one."""
    return [{row[0]: row[4] for row in split["rows"] if row[4:] and row[4] is not None} for split in data["splits"]]


def test_each_utterance_has_its_own_sound(tmp_path):
    folder = make_heard_run(tmp_path)
    assert write_report(folder)
    data = read_data(folder)
    (shown,) = data["maps"]["utterances"]
    decoded, greedy = heard(data)
    assert decoded == greedy
    assert shown["sound"] == decoded["b"]
    assert sorted(decoded.values()) == [0, 1, 2] == list(range(len(data["sounds"])))
    for name, place in decoded.items():
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data["sounds"][place])))
        assert samples.ndim == 1
        assert len(samples) / rate == pytest.approx(SECONDS[name], abs=0.15)
        assert np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples) == pytest.approx(HERTZ[name], rel=0.02)
    assert "secret" not in (folder / "report.html").read_text(encoding="utf-8")


def test_during_training_only_the_maps_have_sound(tmp_path):
    folder = make_heard_run(tmp_path)
    data = read_data(folder)
    assert (len(data["sounds"]), data["maps"]["utterances"][0]["sound"]) == (1, 0)
    assert heard(data) == [{}, {}]
    RunReport(folder).complete()
    assert set(heard(read_data(folder))[0]) == {"a", "b", "c"}


def test_the_largest_distances_come_first_until_the_room_is_full(tmp_path, monkeypatch):
    data = gather(make_heard_run(tmp_path))
    data["maps"]["utterances"] = []
    add_sounds(data, listed=2)  # of two tables, the same utterance
    assert heard(data) == [{"c": 0}, {"c": 0}]
    monkeypatch.setattr(sounds, "SOUND_BYTES", len(data["sounds"][0]) + 20)
    data = gather(tmp_path / "run")
    data["maps"]["utterances"] = []
    add_sounds(data)
    assert heard(data) == [{"c": 0}, {"c": 0}]
    assert sum(map(len, data["sounds"])) <= sounds.SOUND_BYTES


def test_a_sound_that_does_not_fit_leaves_room_for_smaller_ones(tmp_path, monkeypatch):
    folder = make_heard_run(tmp_path)
    data = gather(folder)
    add_sounds(data)
    monkeypatch.setattr(sounds, "SOUND_BYTES", len(data["sounds"][heard(data)[0]["c"]]) - 1)
    data = gather(folder)
    data["maps"]["utterances"] = []
    add_sounds(data)
    assert set(heard(data)[0]) == {"b"}


def forget_paths(record: Path) -> None:
    lines = [line.split("\t") for line in record.read_text(encoding="utf-8").strip().split("\n")]
    record.write_text("\n".join(f"{line[0]}\t{line[-1]}" for line in lines), encoding="utf-8")


OF_AUDIO = {
    "gone": lambda audio: audio.unlink(),
    "a folder": lambda audio: (audio.unlink(), audio.mkdir()),
    "empty": lambda audio: audio.write_bytes(b""),
    "another recording": lambda audio: audio.write_bytes(audio.with_name("a.wav").read_bytes()),
}
OF_TRANSCRIPT = {
    "another text": lambda transcript: np.save(transcript, np.array(list("STOP"))),
    "no transcript": lambda transcript: transcript.unlink(),
}
OF_RECORD = {
    "of an older version": forget_paths,
    "cut": lambda record: record.write_bytes(b"\nc\t/so\xff\tm"),
    "missing": lambda record: record.unlink(),
    "a folder in its place": lambda record: (record.unlink(), record.mkdir()),
}


@pytest.mark.parametrize("damage", [*OF_AUDIO, *OF_TRANSCRIPT, *OF_RECORD])
def test_what_cannot_be_heard_has_no_button(damage, tmp_path, caplog):
    folder, dev = make_heard_run(tmp_path), tmp_path / "data" / "dev"
    for damages, path in (
        (OF_AUDIO, tmp_path / "secret" / "c.wav"),
        (OF_TRANSCRIPT, dev / "transcripts" / "c.npy"),
        (OF_RECORD, dev / "sources.tsv"),
    ):
        damages.get(damage, bool)(path)
    caplog.clear()
    assert write_report(folder)
    assert not caplog.records
    left = set() if damage in OF_RECORD else {"a", "b"}
    assert [set(table) for table in heard(read_data(folder))] == [left, left]


def test_a_library_that_writes_no_mp3_gives_no_button(tmp_path, monkeypatch):
    folder = make_heard_run(tmp_path)
    for error in (soundfile.LibsndfileError(1), ValueError("Unknown format: 'MP3'")):
        monkeypatch.setattr(sounds.soundfile, "write", lambda *args, error=error, **options: raise_(error))
        assert write_report(folder)
        assert read_data(folder)["sounds"] == []


def raise_(error: Exception) -> None:
    raise error


def test_texts_that_data_text_changed_are_the_same_words(tmp_path):
    folder = make_heard_run(tmp_path)
    rows = [("c", "go, on", "so in", 3), ("b", "two three", "two", 2)]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "predictions-dev.csv", index=False)
    (folder / BEST_TEXTS).unlink()
    assert write_report(folder)
    assert set(heard(read_data(folder))[0]) == {"c"}


@pytest.mark.parametrize("settings", ["{root: '.', train: [train], dev: dev}", "{dev: dev}", "{root: '.'}"])
def test_features_without_audio_have_none(settings, tmp_path):
    """As Kaggle's, or of a run whose settings do not say where they are."""
    (tmp_path / "config.yaml").write_text(f"data: {settings}\n")
    pd.DataFrame(PREDICTIONS, columns=COLUMNS).to_csv(tmp_path / "predictions-dev.csv", index=False)
    assert write_report(tmp_path)
    assert read_data(tmp_path)["sounds"] == []
    assert heard(read_data(tmp_path)) == [{}]
