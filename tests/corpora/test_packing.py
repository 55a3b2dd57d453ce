"""A pack says what the files say, follows them when they change, and is made by one process for all."""

import gc
import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.measure import resident
from corpora import packing
from corpora.checks import UtteranceRecord
from corpora.layout import find_partition
from corpora.loading import BadCorpus, load_corpus
from tests.conftest import make_toy_corpus, write_utterance
from utils.errors import UserError


def load(root, folder, names=("train",), **options):
    """A corpus, packed into `folder` unless `options` say otherwise."""
    partitions = [find_partition(root, name) for name in names]
    options = {"cache": "mmap", "cache_folder": folder, **options}
    return load_corpus(partitions, "mean", **options)


@pytest.fixture
def root(tmp_path):
    return make_toy_corpus(tmp_path / "data", {"train": 5, "more": 3})


def test_a_pack_holds_what_the_files_hold(root, tmp_path, caplog):
    names = ("train", "more")
    mapped = load(root, tmp_path / "packed", names)
    said = caplog.messages[:]
    read = load(root, None, names, cache="ram")
    assert (mapped.paths, mapped.lengths, mapped.texts) == (read.paths, read.lengths, read.texts)
    for features in (mapped.features, pickle.loads(pickle.dumps(mapped.features))):
        assert len(features) == 8
        for index, expected in enumerate(read.features):
            assert features[index].dtype == np.float32
            np.testing.assert_array_equal(features[index], expected)
    assert sum("packed train into" in line for line in said) == 1
    caplog.clear()
    load(root, tmp_path / "packed", names)
    assert not any("packed" in line for line in caplog.messages)


def test_a_changed_file_makes_a_new_pack_and_removes_the_old(root, tmp_path):
    folder = tmp_path / "packed"
    load(root, folder)
    (before,) = folder.iterdir()
    write_utterance(root / "train", "train-002", "NEW", np.ones((40, 12), dtype=np.float32))
    corpus = load(root, folder)
    (after,) = folder.iterdir()
    assert after != before
    assert corpus.texts[2] == "NEW"
    assert (corpus.features[2] == 1).all()


def test_a_changed_transcript_makes_a_new_pack(root, tmp_path):
    load(root, tmp_path / "packed")
    np.save(root / "train" / "transcripts" / "train-002.npy", np.array(list("NEW AS WELL")))
    assert load(root, tmp_path / "packed").texts[2] == "NEW AS WELL"


def test_half_precision_takes_half_the_space(root, tmp_path):
    corpus = load(root, tmp_path / "packed", half=True)
    read = load(root, None, cache="ram")
    in_memory = load(root, None, cache="ram", half=True)
    (pack,) = (tmp_path / "packed").iterdir()
    assert (pack / "features.bin").stat().st_size == 2 * sum(features.size for features in read.features)
    for half, kept, whole in zip(corpus.features, in_memory.features, read.features, strict=True):
        assert half.dtype == np.float32
        assert kept.dtype == np.float16
        np.testing.assert_array_equal(half, kept)
        np.testing.assert_allclose(half, whole, rtol=1e-3, atol=1e-3)


def test_features_stored_the_other_way_round(root, tmp_path):
    for path in (root / "train" / "mfcc").iterdir():
        np.save(path, np.load(path).T)
    corpus = load(root, tmp_path / "packed")
    read = load(root, None, cache="ram")
    assert not corpus.format.time_first
    for index, expected in enumerate(read.features):
        np.testing.assert_array_equal(corpus.features[index], expected)


def test_findings_are_the_same_whether_read_or_packed(root, tmp_path):
    (root / "train" / "mfcc" / "train-001.npy").write_bytes(b"not numpy")
    np.save(root / "train" / "transcripts" / "train-003.npy", np.array(["<sos>", "a", "<eos>"]))
    messages = []
    for options in ({"cache": "ram"}, {}, {}):  # the third time from the pack that the second made
        with pytest.raises(BadCorpus) as caught:
            load(root, tmp_path / "packed", **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] == messages[2]
    assert "train-001.npy" in messages[0]
    corpus = load(root, tmp_path / "packed", skip_bad=True)
    read = load(root, None, cache="ram", skip_bad=True)
    assert corpus.paths == read.paths
    for index, expected in enumerate(read.features):
        np.testing.assert_array_equal(corpus.features[index], expected)


def test_several_processes_at_once_end_with_one_pack(root, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tests.corpora.test_packing import load; "
        "corpus = load(Path(sys.argv[1]), Path(sys.argv[2])); print(sum(float(f.sum()) for f in corpus.features))"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "packed")]
    home = Path(__file__).parents[2]
    processes = [subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(sums) == 1
    assert len(os.listdir(tmp_path / "packed")) == 1


def test_a_folder_that_cannot_be_written_and_a_damaged_pack(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache: train cannot be packed into .*ram and off need no disk"):
        load(root, tmp_path / "file")
    load(root, tmp_path / "packed")
    (pack,) = (tmp_path / "packed").iterdir()
    for name in ("shapes.npy", "texts.txt", "findings.json", "features.bin"):
        content = (pack / name).read_bytes()
        for damaged in (content[:-1], b""):
            (pack / name).write_bytes(damaged)
            with pytest.raises(UserError, match="damaged pack"):
                load(root, tmp_path / "packed")
        (pack / name).write_bytes(content)
    load(root, tmp_path / "packed")


def test_a_pack_that_a_newer_one_replaces_is_still_read(root, tmp_path):
    """Another run has found changed files; this one goes on with what it has checked."""
    corpus = load(root, tmp_path / "packed")
    before = corpus.features[2]
    write_utterance(root / "train", "train-002", "NEW", np.ones((40, 12), dtype=np.float32))
    newer = load(root, tmp_path / "packed")
    assert (newer.features[2] == 1).all()
    np.testing.assert_array_equal(corpus.features[2], before)


def test_what_was_read_does_not_stay_in_memory(tmp_path):
    """Mapped as a whole, all 80 MB of it would."""
    for number in range(20):
        write_utterance(tmp_path / "data" / "train", f"{number:02d}", "HI", np.zeros((50_000, 20), np.float32))
    corpus = load(tmp_path / "data", tmp_path / "packed")
    gc.collect()
    before = resident("VmRSS")
    for features in corpus.features:
        features.sum()
    del features
    gc.collect()
    assert resident("VmRSS") - before < 20e6


def test_changed_bytes_of_a_pack_are_found_where_they_are_read(root, tmp_path):
    corpus = load(root, tmp_path / "packed")
    (file,) = (tmp_path / "packed").glob("*/features.bin")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    corpus.read(3)
    with pytest.raises(UserError, match=r"train-004\.npy: found other bytes for it in .* a whole pack: remove "):
        corpus.read(4)


@pytest.mark.parametrize("cache", ["mmap", "off"])
def test_other_features_of_the_same_size_and_time_are_found(root, tmp_path, cache):
    corpus = load(root, tmp_path / "packed", cache=cache)
    path = root / "train" / "mfcc" / "train-002.npy"
    times, features = (path.stat().st_atime_ns, path.stat().st_mtime_ns), np.load(path)
    np.save(path, features[::-1])
    os.utime(path, ns=times)
    with pytest.raises(UserError, match=r"train-002\.npy: found other features than"):
        load(root, tmp_path / "packed") if cache == "mmap" else corpus.read(2)


def test_digests_are_of_what_the_files_hold_however_it_is_kept(root, tmp_path):
    ways = [{}, {"half": True}, {"cache": "ram"}, {"cache": "ram", "half": True}, {"cache": "off"}]
    found = [load(root, tmp_path / "packed", ("train", "more"), **way).digests for way in ways]
    assert all(each == found[0] for each in found)
    assert list(found[0])[:1] == ["train/train-000"]
    assert len(set(found[0].values())) == 8


def test_a_pack_stays_as_long_as_it_is_read_and_what_killed_packing_left_goes(root, tmp_path):
    """Workers that are spawned open it by its name, long after."""
    folder = tmp_path / "packed"
    corpus = load(root, folder)
    (first,) = folder.iterdir()
    left = folder / f".{first.name}-killed"
    left.mkdir()
    (left / "features.bin").write_bytes(b"half of it")
    for number in range(2):
        write_utterance(root / "train", "train-002", "NEW" * (number + 1), np.ones((40, 12), dtype=np.float32))
        load(root, folder)
        assert first.is_dir()
        assert len(list(folder.iterdir())) == 2
    worker = pickle.loads(pickle.dumps(corpus.features))
    np.testing.assert_array_equal(worker[2], corpus.read(2))
    del corpus, worker
    gc.collect()
    write_utterance(root / "train", "train-002", "OTHER", np.ones((40, 12), dtype=np.float32))
    load(root, folder)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(("files", "compared"), [(5, 5), (32, 32), (33, 17), (70, 24)])
def test_some_files_from_all_over_a_pack_are_compared_with_it(files, compared, monkeypatch):
    """At most 32, in even steps."""
    asked = []
    monkeypatch.setattr(packing, "read_utterance", lambda path, *_: asked.append(path) or UtteranceRecord(checksum=7))
    pack = SimpleNamespace(contents=SimpleNamespace(checksums=[7] * files), file=Path("pack/features.bin"))
    packing._compare(pack, SimpleNamespace(features=list(range(files))))
    assert len(asked) == compared
    assert {later - one for one, later in pairwise(asked)} == {-(-files // 32)}
    pack.contents.checksums[0] = 8
    with pytest.raises(UserError, match=r"0: found other features than were packed.*: remove pack$"):
        packing._compare(pack, SimpleNamespace(features=list(range(files))))


def test_files_are_packed_some_at_a_time(root, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "AT_A_TIME", 2)
    mapped, read = load(root, tmp_path / "packed"), load(root, None, cache="ram")
    assert mapped.texts == read.texts
    for index, expected in enumerate(read.features):
        np.testing.assert_array_equal(mapped.features[index], expected)
    write_utterance(root / "train", "train-004", "NEW", np.ones((40, 12), dtype=np.float32))
    assert load(root, tmp_path / "packed").texts[4] == "NEW"
    assert len(list((tmp_path / "packed").iterdir())) == 2  # `mapped` holds the first
