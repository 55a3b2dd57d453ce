"""Fetches the official archives of LibriSpeech (openslr.org/12): resumed where they broke off, verified, unpacked."""

import hashlib
import http.client
import logging
import os
import shutil
import ssl
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from utils.errors import UserError

BASE = "https://www.openslr.org/resources/12"
CHECKSUMS = {  # MD5, of md5sum.txt there
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
}
CHUNK = 2**16
ATTEMPTS, WAIT = 5, 3.0  # in a row that gain too little; seconds between them
TIMEOUT = 60.0  # seconds in which an attempt has to gain LEAST bytes, or it counts as stalled
LEAST = 2**20
LOST = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError, ValueError)

logger = logging.getLogger(f"las.{__name__}")


def download(
    part: str,
    folder: Path,
    base: str = BASE,
    checksums: Mapping[str, str] = CHECKSUMS,
    wait: float = WAIT,
) -> None:
    """Fetches, verifies and unpacks a part of LibriSpeech into `folder/part`; does nothing if it is there.

    An interrupted download, `PART.tar.gz.part`, is resumed; a complete archive is not fetched again, and is removed
    once it is unpacked.

    Args:
        part: a key of `checksums`.
        folder: to unpack into.
        base: URL of the folder with the archives.
        checksums: MD5 of each part's archive.
        wait: seconds between attempts.

    Raises:
        UserError: the archive cannot be fetched, or is not the one that was expected.
    """
    if next((folder / part).rglob("*.trans.txt"), None):
        logger.info(f"{folder / part}: is there already")
        return
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{part}.tar.gz"
    partial = archive.with_name(f"{archive.name}.part")
    for path in (archive, partial):
        if path.is_dir():
            raise UserError(f"{path}: found a folder, expected the archive or nothing; move it away")
    if not archive.exists():
        _fetch(f"{base}/{archive.name}", partial, checksums[part], wait)
        os.replace(partial, archive)
    _verify(archive, checksums[part])
    _unpack(archive, part, folder)
    archive.unlink()
    logger.info(f"{folder / part}: fetched, verified and unpacked")


def _fetch(url: str, partial: Path, checksum: str, wait: float) -> None:
    """Downloads `url` into `partial`, resuming after the bytes that are there, until it is complete.

    Raises:
        UserError: the server refuses, or ATTEMPTS in a row gained too little.
    """
    attempt = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            complete = _continue(url, partial, before)
            if complete or (complete is None and _md5(partial) == checksum):
                return
            reason = "the connection was lost"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise UserError(f"{url}: found {error}, expected the archive; try again later") from None
            reason = str(error)
        except LOST as error:
            reason = " ".join(str(getattr(error, "reason", error)).split())[:200] or type(error).__name__
        there = partial.stat().st_size if partial.exists() else 0
        attempt = 1 if there - before >= LEAST else attempt + 1
        if attempt >= ATTEMPTS:
            raise UserError(
                f"{url}: cannot be fetched ({reason}); {there / 1e6:,.1f} MB are here. With a network connection the "
                f"same command goes on from there; or fetch it elsewhere and put it into {partial.parent}"
            )
        time.sleep(wait)


def _continue(url: str, partial: Path, there: int) -> bool | None:
    """Appends the rest of `url` to the first `there` bytes.

    Returns:
        Whether the file is complete now; None if the server did not tell how long it is.

    Raises:
        TimeoutError: fewer than LEAST bytes came in TIMEOUT seconds.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing is left; the checksum will tell
        raise
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT and _begins_at(response, there)
        done = there if resumed else 0
        length = int(response.headers.get("Content-Length", "-1"))
        total = done + length if length >= 0 else None
        bar = tqdm(
            desc=f"fetching {url.rsplit('/', 1)[1]}", total=total, initial=done, unit="B", unit_scale=True, disable=None
        )
        with bar, partial.open("ab" if resumed else "wb") as file:
            since, gained = time.monotonic(), 0
            while chunk := response.read1(CHUNK):  # what has come, not what is still awaited
                file.write(chunk)
                bar.update(len(chunk))
                done, gained = done + len(chunk), gained + len(chunk)
                if time.monotonic() - since > TIMEOUT:
                    if gained < LEAST:
                        raise TimeoutError(f"{gained:,} bytes in {TIMEOUT:.0f} s")
                    since, gained = time.monotonic(), 0
    return None if total is None else done >= total


def _begins_at(response: http.client.HTTPResponse, position: int) -> bool:
    """Whether a partial response continues at the byte that was asked for."""
    given = response.headers.get("Content-Range", f"bytes {position}-")
    return given.partition("-")[0].removeprefix("bytes").strip() == str(position)


def _md5(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _verify(archive: Path, checksum: str) -> None:
    found = _md5(archive)
    if found != checksum:
        raise UserError(f"{archive}: found MD5 {found}, expected {checksum}; it is damaged: remove it, run this again")


def _unpack(archive: Path, part: str, folder: Path) -> None:
    """Unpacks `LibriSpeech/PART/` of the archive as `folder/PART`, which is complete or absent."""
    temporary = folder / f".{part}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar, tqdm(desc=f"unpacking {part}", unit="file", disable=None) as bar:
            for member in tar:
                if PurePosixPath(member.name).parts[1:2] == (part,):
                    tar.extract(member, temporary, filter="data")
                    bar.update()
        os.replace(temporary / "LibriSpeech" / part, folder / part)
    except (tarfile.TarError, EOFError, FileNotFoundError) as error:
        raise UserError(
            f"{archive}: cannot be unpacked ({error}), expected LibriSpeech/{part}; remove it, run this again"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
