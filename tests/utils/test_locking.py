"""A folder has one writer at a time; the lock of a process that ends is free."""

import multiprocessing
import os
import signal
import socket

import pytest

from utils import locking
from utils.errors import UserError
from utils.locking import sole_writer


def hold(folder, pipe):
    with sole_writer(folder, "train.py"):
        pipe.send("locked")
        pipe.poll(20)


@pytest.fixture
def holder(tmp_path):
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert mine.poll(20)
    yield process
    mine.send("leave")
    process.join(20)


def test_a_second_writer_is_told_who_the_first_is(holder, tmp_path):
    expected = rf"found at work already: train\.py \(process {holder.pid} on {socket.gethostname()}, since 20\d\d-"
    with pytest.raises(UserError, match=expected), sole_writer(tmp_path, "train.py"):
        pass
    with sole_writer(tmp_path, "test.py-dev"):  # other files
        pass


def test_a_killed_writer_blocks_nobody(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with sole_writer(tmp_path, "train.py"):
        pass
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".owner"] == []


def test_an_owner_that_is_just_being_written_is_another_process(holder, tmp_path):
    (tmp_path / ".train.py.owner").write_text("{")
    with pytest.raises(UserError, match=r"train\.py \(another process\)"), sole_writer(tmp_path, "train.py"):
        pass


def test_the_refusal_of_rank_0_is_that_of_all(tmp_path):
    class OtherRank:
        is_main = False

        def all_gather(self, value):
            return ["rank 0 says no", value]

    with pytest.raises(UserError, match="rank 0 says no"), sole_writer(tmp_path, "train.py", OtherRank()):
        pass


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), PermissionError(13, "Permission denied")])
def test_a_folder_that_cannot_be_locked_is_a_warning(tmp_path, monkeypatch, caplog, error):
    def fail(lock):
        raise error

    monkeypatch.setattr(locking.FileLock, "acquire", fail)
    with sole_writer(tmp_path, "train.py"):
        pass
    assert "cannot be locked" in caplog.text
