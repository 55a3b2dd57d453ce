"""Every file of a corpus is checked, and everything that is wrong is said at once."""

import numpy as np
import pytest

from corpora.layout import find_partition
from corpora.loading import load_corpus
from tests.conftest import write_utterance
from utils.errors import UserError


@pytest.fixture
def broken_root(tmp_path):
    """The exact F23 names, one good pair, and every kind of bad file."""
    folder = tmp_path / "data" / "train-clean-100"
    good = np.random.default_rng(0).normal(size=(80, 28)).astype(np.float32)
    for name in ("good", "wide", "nan", "inf", "short", "truncated", "no-transcript", "letters", "silent", "empty"):
        write_utterance(folder, name, "GOOD DAY", good)
    for name in ("good-2", "good-3"):
        write_utterance(folder, name, "IT'S", good)
    features, transcripts = folder / "mfcc", folder / "transcripts"
    np.save(features / "wide.npy", np.ones((80, 30), np.float32))
    for value in ("nan", "inf"):
        array = good.copy()
        array[7, 3] = float(value)
        np.save(features / f"{value}.npy", array)
    np.save(features / "short.npy", good[:20])
    (features / "truncated.npy").write_bytes((features / "good.npy").read_bytes()[:-100])
    (transcripts / "no-transcript.npy").unlink()
    np.save(transcripts / "letters.npy", np.array(["<sos>", "Ü", "<eos>"]))
    np.save(transcripts / "silent.npy", np.array(["<sos>", "<eos>"]))
    (features / "empty.npy").write_bytes(b"")
    np.save(transcripts / "orphan.npy", np.array(["<sos>", "A", "<eos>"]))
    return tmp_path / "data"


def test_every_kind_of_bad_file_is_in_one_report(broken_root, tmp_path, caplog):
    report = tmp_path / "run" / "findings.txt"

    def load(**options):
        partition = find_partition(broken_root, "train-clean-100")
        limits = {"character_limit": lambda frames: -(-frames // 4), "report": report}
        return load_corpus([partition], "mean", **limits, **options)

    with pytest.raises(UserError) as error:
        load()
    message = str(error.value)
    for file, found in {
        "mfcc/wide.npy": "found shape (80, 30); expected shape (T, 28)",
        "mfcc/nan.npy": "found nan at [7, 3]",
        "mfcc/inf.npy": "found inf at [7, 3]",
        "transcripts/short.npy": "found a transcript of 8 characters (1 doubled) for 20 frames; expected at most 5",
        "mfcc/truncated.npy": "found a truncated file",
        "transcripts/no-transcript.npy": "found no file",
        "transcripts/letters.npy": "outside the vocabulary: 'Ü'",
        "transcripts/silent.npy": "found an empty transcript",
        "mfcc/empty.npy": "found an empty file",
        "transcripts/orphan.npy": "found no features for it",
    }.items():
        line = next(line for line in message.splitlines() if file in line)
        assert found in line
        assert "expected" in line
        assert line in report.read_text()
    assert len(message.splitlines()) == 12
    assert "data.skip_bad=true" in message

    corpus = load(skip_bad=True)
    assert [path.stem for path in corpus.paths] == ["good-2", "good-3", "good"]
    assert "going on without them" in caplog.messages[0]


def test_a_corpus_of_bad_files_alone_is_an_error_even_when_skipping(tmp_path):
    write_utterance(tmp_path / "dev", "a", "HI", np.full((20, 4), np.nan, np.float32))
    with pytest.raises(UserError, match="finite numbers"):
        load_corpus([find_partition(tmp_path, "dev")], "mean", skip_bad=True)


def test_several_partitions_make_one_corpus(toy_root):
    train, dev = (find_partition(toy_root, name) for name in ("train", "dev"))
    corpus = load_corpus([train, dev], "mean")
    assert len(corpus) == 96 + 12
    assert corpus.paths == train.features + dev.features
