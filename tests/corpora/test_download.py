"""Archives from a server on this machine: resumed, verified, unpacked, refused."""

import hashlib
import http.server
import io
import re
import tarfile
import threading

import pytest

from corpora.download import BASE, CHECKSUMS, download
from utils.errors import UserError

PART = "dev-clean"


def make_archive(names=("LibriSpeech/README.TXT", f"LibriSpeech/{PART}/84/121/84-121.trans.txt")) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz", compresslevel=0) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 300_000
            tar.addfile(member, io.BytesIO(name.encode() * 30_000))
    return written.getvalue()


class Server:
    """Serves `content`; breaks off after `limit` bytes; ignores Range, or leaves lengths out, where it is told to."""

    def __init__(self, content: bytes):
        self.content, self.limit, self.ranges, self.lengths, self.asked = content, None, True, True, []
        serves = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                serves.asked.append((self.path, wanted))
                first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and serves.ranges else 0
                if self.path != f"/12/{PART}.tar.gz":
                    self.send_error(404)
                elif first >= len(serves.content):
                    self.send_error(416)
                else:
                    self.send_response(206 if first else 200)
                    if serves.lengths:
                        self.send_header("Content-Length", str(len(serves.content) - first))
                    self.end_headers()
                    self.wfile.write(serves.content[first:][: serves.limit])

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}/12"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def fetch(self, folder, checksum=None, part=PART):
        checksums = {part: checksum or hashlib.md5(self.content).hexdigest()}
        download(part, folder, self.base, checksums, wait=0)


@pytest.fixture
def server():
    server = Server(make_archive())
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_where_the_server_does_not_tell_how_long_it_is_the_checksum_does(server, tmp_path):
    server.lengths, server.limit = False, 400_000
    server.fetch(tmp_path / "new" / "folder")
    assert [wanted for _, wanted in server.asked] == [None, "bytes=400000-"]
    assert names(tmp_path / "new" / "folder") == UNPACKED


def test_five_attempts_that_gain_nothing_are_enough(server, tmp_path):
    server.limit = 0
    with pytest.raises(UserError, match=r"cannot be fetched \(.*\); 0\.0 MB are here"):
        server.fetch(tmp_path)
    assert len(server.asked) == 5


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


UNPACKED = [f"{PART}/84/121/84-121.trans.txt"]


def test_fetched_verified_and_unpacked_once(server, tmp_path, caplog):
    server.fetch(tmp_path)
    assert "fetched, verified and unpacked" in caplog.messages[0]
    assert names(tmp_path) == UNPACKED
    assert (tmp_path / UNPACKED[0]).stat().st_size == 300_000
    server.fetch(tmp_path)
    assert "is there already" in caplog.messages[1]
    assert len(server.asked) == 1


def test_a_lost_connection_goes_on_where_it_broke_off(server, tmp_path):
    server.limit = 200_000
    server.fetch(tmp_path)
    assert [wanted for _, wanted in server.asked] == [None, "bytes=200000-", "bytes=400000-", "bytes=600000-"]
    assert names(tmp_path) == UNPACKED


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_killed_download_goes_on(share, ranges, server, tmp_path):
    server.ranges = ranges  # without: all is sent again
    partial = server.content[: int(share * len(server.content))]
    (tmp_path / f"{PART}.tar.gz.part").write_bytes(partial)
    server.fetch(tmp_path)
    assert server.asked[0][1] == f"bytes={len(partial)}-"
    assert names(tmp_path) == UNPACKED


def test_an_archive_fetched_elsewhere_is_verified_and_used(server, tmp_path):
    archive = tmp_path / f"{PART}.tar.gz"
    archive.write_bytes(server.content[:-1])
    with pytest.raises(UserError, match=r"dev-clean\.tar\.gz: found MD5 .* expected .* remove it"):
        server.fetch(tmp_path)
    archive.write_bytes(server.content)
    server.fetch(tmp_path)
    assert names(tmp_path) == UNPACKED
    assert not server.asked


def test_another_content_is_refused(server, tmp_path):
    with pytest.raises(UserError, match=rf"found MD5 .*expected {CHECKSUMS[PART]}"):
        server.fetch(tmp_path, CHECKSUMS[PART])
    assert not (tmp_path / PART).exists()


def test_no_network_and_no_such_file(server, tmp_path):
    with pytest.raises(UserError, match="404"):
        server.fetch(tmp_path, part="train-clean-5")
    (tmp_path / f"{PART}.tar.gz.part").write_bytes(server.content[:500_000])
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(
        UserError, match=r"cannot be fetched \(.*0\.5 MB are here\. With a network .* goes on from there"
    ):
        server.fetch(tmp_path)
    assert names(tmp_path) == [f"{PART}.tar.gz.part"]


@pytest.mark.parametrize(
    "name", [f"LibriSpeech/{PART}/../../../evil.txt", f"/LibriSpeech/{PART}/evil.txt", "LibriSpeech/other/a.txt"]
)
def test_archives_that_reach_outside_or_hold_something_else(name, server, tmp_path):
    server.content = make_archive([name])
    with pytest.raises(UserError, match="cannot be unpacked"):
        server.fetch(tmp_path / "in")
    assert not list(tmp_path.rglob("evil.txt"))
    assert not (tmp_path / "in" / PART).exists()


def test_the_official_table():
    assert BASE == "https://www.openslr.org/resources/12"
    assert len(CHECKSUMS) == 7
    assert all(re.fullmatch(r"[0-9a-f]{32}", checksum) for checksum in CHECKSUMS.values())
