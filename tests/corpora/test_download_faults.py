"""Connections as they fail: every byte that came is kept, every failure ends in bounded time with one message."""

import contextlib
import hashlib
import socket
import threading
import time

import pytest

from corpora import download as module
from corpora.download import download
from tests.corpora.test_download import PART, make_archive
from utils.errors import UserError

CONTENT = make_archive()


class RawServer:
    """Answers connection after connection as told: each behaviour gets the socket and the first byte asked for.

    The last behaviour answers all further ones.
    """

    def __init__(self, *behaviours):
        self.behaviours, self.firsts = list(behaviours), []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self.socket.getsockname()[1]}/12"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
                threading.Thread(target=self.answer, args=(connection, behave), daemon=True).start()

    def answer(self, connection, behave):
        with connection, contextlib.suppress(OSError):
            request = connection.recv(65536).decode()
            first = int(request.partition("bytes=")[2].partition("-")[0] or 0)
            self.firsts.append(first)
            behave(connection, first)


def head(first, status=None, **headers):
    status = status or ("206 Partial Content" if first else "200 OK")
    lines = [f"HTTP/1.1 {status}", "Connection: close", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def all_of_it(connection, first):
    connection.sendall(head(first, Content_Length=len(CONTENT) - first) + CONTENT[first:])


def part_of_it(size, length=True):
    def behave(connection, first):
        headers = {"Content_Length": len(CONTENT) - first} if length else {}
        connection.sendall(head(first, **headers) + CONTENT[first : first + size])

    return behave


def stall_after(size):
    def behave(connection, first):
        part_of_it(size)(connection, first)
        time.sleep(1.5)

    return behave


def drip(connection, first):
    connection.sendall(head(first, Content_Length=len(CONTENT) - first))
    for position in range(first, first + 40):
        connection.sendall(CONTENT[position : position + 1])
        time.sleep(0.05)


def say(answer):
    return lambda connection, first: connection.sendall(answer)


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    monkeypatch.setattr(module, "LEAST", 1000)
    servers = []

    def run(*behaviours):
        server = RawServer(*behaviours)
        servers.append(server)
        checksums = {PART: hashlib.md5(CONTENT).hexdigest()}
        download(PART, tmp_path, server.base, checksums, wait=0)
        return server

    run.servers = servers
    yield run
    for server in servers:
        server.socket.close()


def test_a_stall_loses_no_byte(fetch, tmp_path):
    """Even before the first mebibyte has come."""
    server = fetch(stall_after(5000), stall_after(7000), all_of_it)
    assert server.firsts == [0, 5000, 12_000]
    assert next((tmp_path / PART).rglob("*.trans.txt"))


def test_a_connection_that_drips_ends(fetch, tmp_path):
    with pytest.raises(UserError, match=r"cannot be fetched \(\d+ bytes in .* s\); 0\.0 MB are here"):
        fetch(drip)
    (server,) = fetch.servers
    assert len(server.firsts) == module.ATTEMPTS
    assert server.firsts == sorted(server.firsts)
    assert server.firsts[-1] > 0
    partial = tmp_path / f"{PART}.tar.gz.part"
    assert CONTENT.startswith(partial.read_bytes())
    fetch(all_of_it)  # the same command goes on


def test_a_drop_without_a_length_is_a_lost_connection(fetch):
    server = fetch(part_of_it(300_000, length=False), part_of_it(10**9, length=False))
    assert server.firsts == [0, 300_000]


def test_a_server_that_ignores_or_shifts_the_range_begins_again(fetch):
    def shifted(connection, first):
        connection.sendall(
            head(first, Content_Length=len(CONTENT), Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
            + CONTENT
        )

    assert fetch(part_of_it(9000), shifted).firsts == [0, 9000]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://nowhere\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
    ],
    ids=range(11),
)
def test_answers_that_make_no_sense_are_one_message(fetch, answer):
    with pytest.raises(UserError, match=rf"/12/{PART}\.tar\.gz: "):
        fetch(say(answer))


def test_nothing_left_of_something_else(fetch, tmp_path):
    (tmp_path / f"{PART}.tar.gz.part").write_bytes(b"x" * (len(CONTENT) + 5))
    with pytest.raises(UserError, match="it is damaged: remove it, run this again"):
        fetch(say(head(0, "416 Range Not Satisfiable")))


@pytest.mark.parametrize("name", [f"{PART}.tar.gz", f"{PART}.tar.gz.part"])
def test_a_folder_in_the_place_of_the_archive(fetch, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"{name}: found a folder, expected the archive or nothing"):
        fetch(all_of_it)


def test_an_empty_folder_of_the_part_is_not_the_part(fetch, tmp_path):
    (tmp_path / PART).mkdir()
    fetch(all_of_it)
    assert next((tmp_path / PART).rglob("*.trans.txt"))
