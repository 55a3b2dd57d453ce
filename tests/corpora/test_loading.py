"""Every file of a corpus is checked, and everything that is wrong is said at once."""

import numpy as np
import pytest

from corpora.layout import find_partition
from corpora.loading import Corpus, load_corpus, load_labelled
from tests.conftest import write_utterance
from utils.errors import UserError
from utils.features import FeatureFormat
from utils.vocabulary import TextForm


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


def test_the_vocabulary_of_the_training_transcripts_is_that_of_dev(tmp_path, caplog):
    texts = {"train": ["Äpfel sind rot", "rot, rot, rot, rot"], "dev": ["rote Apfel", "rot"]}
    for partition, lines in texts.items():
        for number, text in enumerate(lines):
            write_utterance(tmp_path / partition, f"{number}", text, np.ones((40, 4), np.float32))

    def load(**form):
        return load_labelled(tmp_path, {"train": ["train"], "dev": ["dev"]}, "mean", vocabulary=TextForm(**form))

    train, dev = load()
    assert train.vocabulary.characters == tuple(sorted(set("".join(texts["train"]))))
    assert dev.vocabulary == train.vocabulary
    assert dev.texts == ("rote Apfel", "rot")  # what it cannot write stays in what it is compared with
    assert dev.vocabulary.decode(dev.tokens_of(0)) == "rote pfel"
    assert "dev: 1 of 12 letters are not in the model's vocabulary ('A')" in caplog.text
    assert "10 of them occur fewer than 5 times, the rarest first: " in caplog.text
    assert load(case="lower", punctuation="remove")[0].texts == ("äpfel sind rot", "rot rot rot rot")
    assert train.digest != load(case="lower")[0].digest


def test_several_partitions_make_one_corpus(toy_root):
    train, dev = (find_partition(toy_root, name) for name in ("train", "dev"))
    corpus = load_corpus([train, dev], "mean")
    assert len(corpus) == 96 + 12
    assert corpus.paths == train.features + dev.features


def test_statistics_of_a_corpus(tmp_path):
    for number, frames in enumerate((100, 300, 320)):
        write_utterance(tmp_path / "dev", f"u{number}", "ABCD", np.ones((frames, 4), np.float32))
    corpus = load_corpus([find_partition(tmp_path, "dev")], "mean")
    assert corpus.size == "3 utterances, 0.00 hours"
    assert corpus.frames_per_character == 60
    assert corpus.p95_frames == 318
    for path in (tmp_path / "dev" / "transcripts").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no transcripts"):
        _ = load_corpus([find_partition(tmp_path, "dev")], "mean").transcripts


def test_hours_and_percentiles(tmp_path):
    lengths = tuple(range(60_000, 60_100))
    corpus = Corpus(FeatureFormat(4, True, "mean"), [tmp_path / "mfcc" / "a.npy"] * 100, lengths, ("AB",) * 100, None)
    assert corpus.size == f"100 utterances, {sum(lengths) / 360_000:.2f} hours"
    assert corpus.p95_frames == 60_094
    assert corpus.frames_per_character == sum(lengths) / 200


def test_digests_change_with_lengths_texts_and_features(tmp_path):
    def digests(lengths=(5, 6), texts=("A", "B"), checksums=(1, 2), names="ab"):
        paths = [tmp_path / "dev" / "mfcc" / f"{name}.npy" for name in names]
        return Corpus(FeatureFormat(4, True, "mean"), paths, lengths, texts, None, checksums)

    first = digests()
    assert list(first.digests) == ["dev/a", "dev/b"]
    assert all(0 <= number < 2**63 for number in first.digests.values())
    assert len(first.digest) == 16
    for other in (digests(lengths=(5, 7)), digests(texts=("A", "C")), digests(checksums=(1, 3))):
        assert other.digests["dev/a"] == first.digests["dev/a"]
        assert other.digests["dev/b"] != first.digests["dev/b"]
        assert other.digest != first.digest
    assert digests(names="ba").digest != first.digest
    assert digests().digest == first.digest
    assert digests(texts=None, checksums=()).digests.keys() == first.digests.keys()


def test_features_are_kept_in_half_precision_where_that_is_asked_for(tmp_path):
    write_utterance(tmp_path / "dev", "a", "HI", np.full((20, 4), 1.0001, np.float32))
    partition = find_partition(tmp_path, "dev")
    for half, dtype in ((True, np.float16), (False, np.float32)):
        corpus = load_corpus([partition], "mean", half=half)
        assert corpus.features[0].dtype == dtype
        assert corpus.read(0).dtype == np.float32
        assert (corpus.read(0)[0, 0] == 1) == half


def test_features_of_another_utterance_of_the_same_size_are_noticed(tmp_path):
    write_utterance(tmp_path / "dev", "a", "HI", np.ones((20, 4), np.float32))
    corpus = load_corpus([find_partition(tmp_path, "dev")], "mean", cache="off")
    assert corpus.read(0).shape == (20, 4)
    np.save(corpus.paths[0], np.full((20, 4), 2, np.float32))
    with pytest.raises(UserError, match=r"a\.npy: found other features than when it was checked"):
        corpus.read(0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (np.ones((30, 4), np.float32), r"found shape \(30, 4\), expected \(20, 4\), as when it was checked"),
        (b"", "found an empty file, expected a .npy array, as when it was checked"),
        (None, "found no file, .*as when it was checked"),
    ],
)
def test_a_file_that_changed_since_it_was_checked_is_named(tmp_path, content, found):
    write_utterance(tmp_path / "dev", "a", "HI", np.ones((20, 4), np.float32))
    corpus = load_corpus([find_partition(tmp_path, "dev")], "mean", cache="off")
    path = corpus.paths[0]
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UserError, match=rf"a\.npy: {found}"):
        corpus.read(0)


def test_a_part_of_a_partition_with_a_famous_name_is_a_warning(tmp_path, caplog):
    write_utterance(tmp_path / "dev-clean", "a", "HI", np.ones((20, 4), np.float32))
    write_utterance(tmp_path / "dev", "a", "HI", np.ones((20, 4), np.float32))
    for name, expected in (("dev-clean", ["dev-clean has 1 utterances, the whole of it 2,703"]), ("dev", [])):
        caplog.clear()
        load_corpus([find_partition(tmp_path, name)], "mean")
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warnings == expected


def test_all_roles_have_the_features_of_the_first_and_are_reported_together(tmp_path):
    for partition, dim in (("train", 4), ("dev", 4)):
        for name in ("a", "b"):
            write_utterance(tmp_path / partition, name, "HI", np.ones((20, dim), np.float32))
    roles, reports = {"train": ["train"], "dev": ["dev"]}, tmp_path / "run"
    train, dev = load_labelled(tmp_path, roles, "mean_variance", reports=reports)
    assert train.format == dev.format == FeatureFormat(4, True, "mean_variance")
    assert not reports.exists()

    np.save(tmp_path / "train" / "mfcc" / "a.npy", np.full((20, 4), np.inf))
    np.save(tmp_path / "dev" / "mfcc" / "b.npy", np.ones((20, 5)))
    with pytest.raises(UserError) as error:
        load_labelled(tmp_path, roles, "mean", reports=reports)
    assert "train/mfcc/a.npy': found inf" in str(error.value)
    assert "dev/mfcc/b.npy': found shape (20, 5); expected shape (T, 4)" in str(error.value)
    assert str(error.value).count("data.skip_bad=true") == 1
    assert "a.npy" in (reports / "findings-train.txt").read_text()
    assert "b.npy" in (reports / "findings-dev.txt").read_text()
    corpora = load_labelled(tmp_path, roles, "mean", skip_bad=True)
    assert [[path.stem for path in corpus.paths] for corpus in corpora] == [["b"], ["a"]]
