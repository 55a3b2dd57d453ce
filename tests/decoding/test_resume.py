"""Texts that a killed decoding leaves behind."""

from decoding.resume import PartialResults
from utils.distributed import SINGLE_PROCESS, DistributedContext


def partial(folder, key="key", resume=True, context=SINGLE_PROCESS):
    return PartialResults(folder, "dev", key, resume, context)


def test_what_was_added_is_there_until_it_is_removed(tmp_path):
    first = partial(tmp_path, resume=False)
    first.add({"a": "ONE"})
    first.add({"b": "TWO", "c": ""})
    again = partial(tmp_path)
    assert again.texts == {"a": "ONE", "b": "TWO", "c": ""}
    again.add({"d": "FOUR"})
    assert partial(tmp_path).texts == {"a": "ONE", "b": "TWO", "c": "", "d": "FOUR"}
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_texts_of_another_key_or_without_resume_are_not_used(tmp_path, caplog):
    partial(tmp_path).add({"a": "ONE"})
    assert partial(tmp_path, key="other").texts == {}
    assert "nothing to resume: starting over" in caplog.messages[-1]
    partial(tmp_path).add({"a": "ONE"})
    assert partial(tmp_path, resume=False).texts == {}
    assert partial(tmp_path).texts == {}


def test_a_line_that_was_cut_off_is_left_out_and_the_next_one_is_whole(tmp_path):
    first = partial(tmp_path)
    first.add({"a": "ONE"})
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text() + '{"b": "TW')
    again = partial(tmp_path)
    assert again.texts == {"a": "ONE"}
    again.add({"c": "THREE"})
    assert partial(tmp_path).texts == {"a": "ONE", "c": "THREE"}


def test_the_files_of_all_ranks_are_read(tmp_path):
    class Pretended(DistributedContext):
        def all_gather(self, value):
            return [value]

    for rank in (1, 0):
        partial(tmp_path, context=Pretended(rank, 2)).add({f"of {rank}": "TEXT"})
    assert partial(tmp_path).texts == {"of 0": "TEXT", "of 1": "TEXT"}
    assert len(list(tmp_path.iterdir())) == 2
