"""Data roots as people have them: what systems leave behind, empty folders, a root too high, odd row orders."""

import numpy as np
import pytest

from corpora.folder import find_utterances
from corpora.layout import detect_layout, find_partition
from corpora.librispeech import find_partitions
from corpora.loading import load_corpus, load_labelled
from tests.conftest import make_toy_corpus
from tune import read_texts
from utils.errors import UserError
from utils.files import is_leftover

LEFT = ["._{}", ".DS_Store", "Thumbs.db", "desktop.ini", ".{}", ".ipynb_checkpoints/{}", "__MACOSX/{}"]


@pytest.fixture
def littered(tmp_path):
    """A corpus in every folder of which Macs, Windows and notebooks have left something."""
    root = make_toy_corpus(tmp_path / "data", {"train": 6, "dev": 3, "test": 3})
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for pattern in LEFT:
            for name in ("train-000.npy", "dev-001.npy", "new.npy"):
                path = folder / pattern.format(name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (root / "__MACOSX" / "train" / "transcripts").mkdir(parents=True)
    return root


def test_what_systems_leave_is_no_utterance(littered):
    train, dev = load_labelled(littered, {"train": ["train"], "dev": ["dev"]}, "mean")
    assert [len(train), len(dev)] == [6, 3]
    partition = find_partition(littered, "test")
    assert [path.name for path in partition.features] == [f"test-00{n}.npy" for n in range(3)]
    assert len(partition.orphans) == 0
    with pytest.raises(UserError, match=r"partitions that are there: dev, test, train;"):
        find_partition(littered, "other")


def test_leftovers_in_a_tree_of_audio(tmp_path):
    chapter = tmp_path / "audio" / "part" / "1" / "2"
    chapter.mkdir(parents=True)
    (chapter / "1-2.trans.txt").write_text("1-2-0 A BEE\n")
    for name in ("1-2-0.wav", "._1-2-0.wav", ".hidden.wav"):
        (chapter / name).write_bytes(b"")
    (chapter / "._1-2.trans.txt").write_bytes(b"\0\5\26\7")
    for folder in ("__MACOSX", ".ipynb_checkpoints"):
        for place in (tmp_path / "audio" / folder / "1", chapter / folder):
            place.mkdir(parents=True)
            (place / "1-2.trans.txt").write_text("9 NOBODY\n")
    (found,) = find_partitions(tmp_path / "audio")
    assert ([utterance.id for utterance in found.utterances], found.findings) == (["1-2-0"], [])


def test_leftovers_in_a_table(tmp_path, caplog):
    for name in ("a.wav", "._a.wav", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "t.tsv").write_text("a.wav\tA BEE\n._a.wav\tA BEE\nThumbs.db\tA BEE\n")
    with caplog.at_level("INFO", "las"):
        found = find_utterances(tmp_path, tmp_path / "t.tsv", "train")
    assert ([utterance.id for utterance in found.utterances], found.findings) == (["a"], [])
    assert "2 lines name files that a system left behind" in caplog.text


@pytest.mark.parametrize("name", ["a.npy", "Thumbs.npy", "desktop.npy", "macosx", "-.npy", "_a.npy"])
def test_other_names_are_utterances(name):
    assert not is_leftover(name)


@pytest.mark.parametrize("content", [None, "template", "leftover"])
def test_a_folder_of_transcripts_without_any_is_none(tmp_path, content):
    root = make_toy_corpus(tmp_path, {"train": 3, "test": 4})
    folder = root / "test" / "transcripts"
    for path in folder.iterdir():
        path.unlink()
    if content:
        name = "random_submission.csv" if content == "template" else "._test-000.npy"
        (folder / name).write_text("index,label\n0,A\n")
    partition = find_partition(root, "test")
    assert partition.transcripts is None
    corpus = load_corpus([partition], "mean")
    assert (len(corpus), corpus.texts) == (4, None)
    with pytest.raises(UserError, match=r"data\.dev: test has no transcripts: found no \.npy file in .*transcripts"):
        load_labelled(root, {"train": ["train"], "dev": ["test"]}, "mean")


@pytest.mark.parametrize("deeper", ["x", "x/x", "hw4_data/hw4p2_data", "a/b/c"])
def test_a_root_too_high_names_the_folder_that_fits(tmp_path, deeper):
    make_toy_corpus(tmp_path / deeper, {"train": 2})
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError) as error:
        detect_layout(tmp_path)
    assert str(error.value).endswith(f"this one fits: data.root={tmp_path / deeper}")


def test_a_root_too_low_names_the_folder_that_fits(tmp_path):
    make_toy_corpus(tmp_path, {"train": 2})
    for deeper in ("train", "train/mfcc", "train/transcripts"):
        with pytest.raises(UserError, match=rf"this one fits: data\.root={tmp_path}$"):
            detect_layout(tmp_path / deeper)


def s22(tmp_path):
    """Partition test with features a, b and c of S22."""
    for name in "abc":
        for folder in ("train/mfcc", "train/transcript", "test/mfcc"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            array = np.array(["A"]) if folder.endswith("transcript") else np.ones((5, 3), "f4")
            np.save(tmp_path / folder / f"{name}.npy", array)
    return tmp_path / "test" / "test_order.csv"


@pytest.mark.parametrize(
    "content",
    [
        b"file\nc\na\nb\n",
        b"\xef\xbb\xbffile\r\nc.npy\r\na.npy\r\nb.npy\r\n",
        b"note,file\ncaf\xe9,c\n,a\n,b\n",
        b"file,note\nc\na,x\nb,x,y\n\n",
        b'"file"\n"c"\n" a"\nb \n',
    ],
    ids=["plain", "byte order mark", "latin-1", "short and long rows", "quotes and spaces"],
)
def test_an_order_as_people_write_it(tmp_path, content):
    s22(tmp_path).write_bytes(content)
    assert [path.stem for path in find_partition(tmp_path, "test").features] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column 'file'"),
        (b"name\nc\n", "no column 'file'"),
        (b"file\nc\na\n", "its files are not those of"),
        (b"file\nc\na\nb\nb\n", "its files are not those of"),
        (b"x,file\nc\na\nb\n", "its files are not those of"),
        (bytes(300), "no column 'file'"),
        (b"file\nc\n" + b"a" * 200_000, "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_an_order_that_is_none_is_one_message(tmp_path, content, words):
    path = s22(tmp_path)
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        find_partition(tmp_path, "test")
    assert str(path) in str(error.value)


def test_more_text_is_a_file_or_a_folder_of_transcripts(tmp_path, toy_root, caplog):
    from config import load_config

    config = load_config(overrides=["data.train=[train]", f"data.root={toy_root}"])
    own = read_texts(config, None)
    folder = tmp_path / "text-for-LM"
    folder.mkdir()
    np.save(folder / "1.npy", np.array(["<sos>", *"MORE TEXT", "<eos>"]))
    np.save(folder / "2.npy", np.array([*"AND MORE"]))
    (folder / "._1.npy").write_bytes(b"x")
    assert read_texts(config, folder) == [*own, "MORE TEXT", "AND MORE"]
    (folder / "3.npy").write_bytes(b"x")
    assert len(read_texts(config, folder)) == len(own) + 2
    assert "1 unreadable transcripts left out, such as 3.npy: found" in caplog.text
    lines = tmp_path / "more.txt"
    lines.write_bytes("\ufeffone\u2028line\r\ntwo\x0blines\x85too".encode())
    assert read_texts(config, lines) == [*own, "ONE LINE", "TWO LINES TOO"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--text: .*empty: found a folder without \.npy files"):
        read_texts(config, tmp_path / "empty")
