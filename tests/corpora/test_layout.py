"""The folders of each semester, and what is said where they are missing."""

from pathlib import Path

import numpy as np
import pytest

from corpora.layout import PathList, find_partition
from corpora.loading import load_corpus
from tests.conftest import write_utterance
from utils.errors import UserError


def describe(root, partition: str, caplog) -> str:
    load_corpus([find_partition(root, partition)], "mean")
    return caplog.messages[-1]


def write(root, partition, features_dir, transcripts_dir, features, tokens, names=("b", "a", "c")):
    for name, length in zip(names, (20, 30, 40), strict=False):
        for folder, array in ((features_dir, features(length)), (transcripts_dir, np.array(tokens))):
            if folder:
                path = root / partition / folder / f"{name}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, array)


BOUNDED, BARE = ["<sos>", "H", "I", "<eos>"], ["H", "I"]


@pytest.mark.parametrize(
    ("features_dir", "transcripts_dir", "shape", "tokens", "words"),
    [
        ("mfcc", "transcripts", lambda T: (T, 28), BOUNDED, "found: F23 layout, 28-dim mfcc, transcripts with sos/eos"),
        ("mfcc", "transcripts", lambda T: (T, 27), BOUNDED, "found: S23/S24 layout, 27-dim mfcc, transcripts with"),
        ("mfcc", "transcript/raw", lambda T: (T, 15), BOUNDED, "found: F22 layout, 15-dim mfcc, transcripts with"),
        ("mfcc", "transcript", lambda T: (T, 13), BOUNDED, "found: S22 layout, 13-dim mfcc, transcripts with"),
        ("fbank", "text", lambda T: (80, T), BARE, "found: F24 layout, 80-dim fbank, stored (dimension, time), "),
    ],
)
def test_semesters(tmp_path, caplog, features_dir, transcripts_dir, shape, tokens, words):
    write(tmp_path, "train", features_dir, transcripts_dir, lambda T: np.ones(shape(T), np.float32), tokens)
    write(tmp_path, "test", features_dir, None, lambda T: np.ones(shape(T), np.float32), tokens)
    assert words in describe(tmp_path, "train", caplog)
    corpus = load_corpus([find_partition(tmp_path, "train")], "mean")
    assert corpus.lengths == (30, 20, 40)
    assert corpus.texts == ("HI", "HI", "HI")
    assert {array.shape[1] for array in corpus.features} == {corpus.format.dim}
    test = find_partition(tmp_path, "test")
    assert test.transcripts is None
    assert test.layout.transcripts == transcripts_dir
    assert "no transcripts" in describe(tmp_path, "test", caplog)


def test_order_is_sorted_file_names(tmp_path):
    """'-' sorts before '.', so a-1.npy comes before a.npy; 10 comes before 9."""
    for name in ("a", "a-1", "9", "10"):
        write_utterance(tmp_path / "dev", name, "HI", np.ones((20, 4), np.float32))
    assert [path.stem for path in find_partition(tmp_path, "dev").features] == ["10", "9", "a-1", "a"]


def test_s22_test_order(tmp_path):
    write(tmp_path, "train", "mfcc", "transcript", lambda T: np.ones((T, 13)), BOUNDED)
    write(tmp_path, "test", "mfcc", None, lambda T: np.ones((T, 13)), BOUNDED)
    (tmp_path / "test" / "test_order.csv").write_text("file\nc.npy\na.npy\nb.npy\n")
    assert [path.stem for path in find_partition(tmp_path, "test").features] == ["c", "a", "b"]
    (tmp_path / "test" / "test_order.csv").write_text("file\nc.npy\na.npy\n")
    with pytest.raises(UserError, match=r"test_order.csv: .*b\.npy"):
        find_partition(tmp_path, "test")


def test_missing_folders_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="kaggle competitions download -c attention-based-speech") as error:
        find_partition(tmp_path / "nowhere", "train-clean-100")
    assert "make demo" in str(error.value)
    with pytest.raises(UserError, match="expected folders PARTITION/mfcc"):
        find_partition(tmp_path, "train-clean-100")
    write_utterance(tmp_path / "dev", "a", "HI", np.ones((20, 4), np.float32))
    with pytest.raises(UserError, match="partitions that are there: dev"):
        find_partition(tmp_path, "train-clean-100")
    for path in (tmp_path / "dev" / "mfcc").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"dev/mfcc: found no \.npy file, expected one per utterance"):
        find_partition(tmp_path, "dev")


def test_a_misspelt_root_is_shown_what_is_near_it(tmp_path, monkeypatch):
    """The most alike first; how to download stands there only if nothing is like it."""
    for root in ("hw4p2", "mini"):
        write_utterance(tmp_path / "data" / root / "train", "a", "HI", np.ones((20, 4), np.float32))
    write_utterance(tmp_path / "data" / "mini" / "dev", "a", "HI", np.ones((20, 4), np.float32))
    (tmp_path / "data" / "minus").mkdir()
    monkeypatch.chdir(tmp_path)
    mini, other = "  data.root=data/mini  (dev, train)", "  data.root=data/hw4p2  (train)"
    with pytest.raises(UserError, match=r"near it that hold partitions:\n  data.root=data/mini  \(dev, train\)$"):
        find_partition("data/mini/mini/x", "train")
    for wrong in ("data/mnii", "mini", "./daat/minni"):
        with pytest.raises(UserError) as error:
            find_partition(wrong, "train")
        assert str(error.value) == (
            f"data.root: found no folder {Path(wrong)}; folders near it that hold partitions:\n{mini}\n{other}"
        )
    with pytest.raises(UserError, match=r"(?s)folders near it .*data/mini.*\nTo get the competition's data"):
        find_partition("data/11-785", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no folder empty/a/b\.\nTo get the competition's data"):
        find_partition("empty/a/b", "train")
    for number in range(9):
        write_utterance(tmp_path / "data" / f"n{number}" / "train", "a", "HI", np.ones((20, 4), np.float32))
    with pytest.raises(UserError, match=r"data/mini .*(?s:.*)\n  and 5 more$"):
        find_partition("data/minj", "train")


def test_paths_are_a_sequence_over_several_folders():
    first, second = PathList.of(Path("a"), ["1", "2"]), PathList.of(Path("b"), ["3"])
    both = first + second
    assert list(both) == [Path("a/1"), Path("a/2"), Path("b/3")]
    assert (len(both), both[-1]) == (3, Path("b/3"))
    assert list(both[1:]) == list(both.take([1, 2])) == [Path("a/2"), Path("b/3")]
    assert both[:2] == first
    assert both != first
    assert both[2:] + first == PathList.of(Path("b"), ["3"]) + PathList.of(Path("a"), ["1", "2"])
    assert first != list(first)
