"""Sound files that end early are noticed, whole ones are not."""

import struct

import numpy as np
import pytest
import soundfile

from corpora.audio import read_speech
from corpora.truncation import _mp3_frame_length, missing_end
from utils.errors import BadFile
from utils.features import FeatureConfig

KINDS = [("wav", "PCM_16"), ("wav", "FLOAT"), ("mp3", None), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("flac", "PCM_16")]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(filter(None, kind)))
def sound(request, tmp_path):
    """A second of noise in a file."""
    suffix, subtype = request.param
    path = tmp_path / f"a.{suffix}"
    speech = 0.1 * np.random.default_rng(0).normal(size=16_000)
    soundfile.write(path, speech, 16_000, subtype=subtype)
    return path


def test_a_whole_file_is_read(sound):
    assert missing_end(sound) is None
    assert abs(len(read_speech(sound, FeatureConfig())) - 16_000) < 2_500  # codecs pad


@pytest.mark.parametrize("share", [0.3, 0.5, 0.77, 0.95])
def test_a_file_that_ends_early_is_a_finding(sound, share):
    content = sound.read_bytes()
    sound.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadFile, match=r"ends early|cannot be read"):
        read_speech(sound, FeatureConfig())


def test_a_stream_of_unknown_length_is_whole(tmp_path):
    """ffmpeg writes such headers to pipes."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8000), 16_000)
    content = bytearray(path.read_bytes())
    position = content.index(b"data") + 4
    content[position : position + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert missing_end(path) is None


def test_tags_before_and_after_an_mp3(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=16_000), 16_000)
    content = path.read_bytes()
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + content + b"TAG" + bytes(125))
    assert missing_end(path) is None


@pytest.mark.parametrize("suffix", ["raw", "wav", "mp3", "ogg", "flac", "txt"])
def test_anything_else_is_a_finding(tmp_path, suffix):
    for number, content in enumerate((b"", b"x", bytes(1000), b"OggS", b"RIFF\0\0\0\0WAVE", b"\xff\xfb\x90\x00")):
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(content)
        with pytest.raises(BadFile):
            read_speech(path, FeatureConfig())


def test_samples_that_no_recording_has(tmp_path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.full(8000, 1e30), 16_000, subtype="FLOAT")
    with pytest.raises(BadFile, match=r"samples up to 1e\+30"):
        read_speech(path, FeatureConfig())


def test_a_header_that_claims_months_takes_no_memory(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(8000), 16_000)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the 36 bits of the number of samples
    content[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=r"as its header claims|cannot be read"):
        read_speech(path, FeatureConfig())


# ------------------------------------------------------------------------------------------------- to the last byte


def told(folder, content: bytes) -> str | None:
    path = folder / "a"
    path.write_bytes(content)
    return missing_end(path)


def wav(claimed: int, there: int, kind: bytes = b"RIFF") -> bytes:
    """With a chunk of an odd size, which is padded, before the sound."""
    chunk = struct.pack("<4sI", b"LIST", 3) + b"abc\0"
    return kind + bytes(4) + b"WAVE" + chunk + struct.pack("<4sI", b"data", claimed) + bytes(there)


@pytest.mark.parametrize("kind", [b"RIFF", b"RF64"])
def test_a_wave_file_has_as_many_bytes_as_its_header_says(kind, tmp_path):
    assert told(tmp_path, wav(1000, 1000, kind)) is None
    assert told(tmp_path, wav(1000, 1001, kind)) is None
    assert told(tmp_path, wav(1000, 999, kind)) == "999 of 1,000 bytes of sound"
    assert told(tmp_path, wav(1, 0, kind)) == "0 of 1 bytes of sound"
    for unknown in (0, 2**32 - 1):
        assert told(tmp_path, wav(unknown, 10, kind)) is None
    assert told(tmp_path, wav(1000, 0, kind)[:-8]) == "no sound after the header"
    assert told(tmp_path, wav(1000, 0, kind)[:-1]) == "no sound after the header"


def page(flags: int, *segments: int) -> bytes:
    return b"OggS\0" + bytes([flags]) + bytes(20) + bytes([len(segments), *segments]) + bytes(sum(segments))


def test_an_ogg_stream_has_a_whole_last_page(tmp_path):
    assert told(tmp_path, page(2, 9) + page(4, 255, 7)) is None
    assert told(tmp_path, page(2, 9) + page(5, 7)) is None
    assert told(tmp_path, page(2, 9) + page(4)) is None
    assert told(tmp_path, page(4, 9) + page(0, 7)) == "a stream without its last page"
    for missing in (1, 7, 8, 9, 20):
        assert told(tmp_path, (page(2, 9) + page(4, 255, 7))[: -254 - missing]) == "half of a page at its end"


ONE = [*range(32, 65, 8), *range(80, 129, 16), *range(160, 257, 32), 320]  # kbit/s of MPEG 1
TWO = [*range(8, 65, 8), *range(80, 161, 16)]  # and of MPEG 2 and 2.5


def mp3_header(version: int, bitrate: int, rate: int, padding: int) -> bytes:
    return bytes([0xFF, 0xE2 | version << 3, bitrate << 4 | rate << 2 | padding << 1, 0])


@pytest.mark.parametrize(
    ("version", "kilobits", "rates", "factor"),
    [
        (3, ONE, (44_100, 48_000, 32_000), 144),
        (2, TWO, (22_050, 24_000, 16_000), 72),
        (0, TWO, (11_025, 12_000, 8_000), 72),
    ],
)
def test_frames_of_an_mp3_are_as_long_as_the_standard_says(version, kilobits, rates, factor):
    for index, bitrate in enumerate(kilobits, 1):
        for rate, hertz in enumerate(rates):
            for padding in (0, 1):
                length = factor * bitrate * 1000 // hertz + padding
                assert _mp3_frame_length(mp3_header(version, index, rate, padding)) == length
    assert _mp3_frame_length(mp3_header(version, 0, 0, 0)) is _mp3_frame_length(mp3_header(version, 15, 0, 0)) is None
    assert _mp3_frame_length(mp3_header(version, 1, 3, 0)) is None


def test_what_is_no_header_of_a_layer_3_frame():
    good = mp3_header(3, 9, 0, 0)
    assert _mp3_frame_length(good) == 417
    assert _mp3_frame_length(mp3_header(1, 9, 0, 0)) is None
    for first, second in ((0xFE, good[1]), (0xFF, good[1] & 0x7F), (0xFF, good[1] ^ 0x04), (0xFF, good[1] ^ 0x06)):
        assert _mp3_frame_length(bytes([first, second, *good[2:]])) is None


def test_an_mp3_ends_with_a_whole_frame(tmp_path):
    frame = mp3_header(3, 9, 0, 0) + bytes(413)
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x02" + bytes(130)
    for opening in (b"", tag):
        assert told(tmp_path, opening + 3 * frame) is None
        assert told(tmp_path, opening + 3 * frame + frame[:3]) is None  # too short for a header
        assert told(tmp_path, opening + 3 * frame + frame[:4]) == "4 of 417 bytes of its last frame"
        assert told(tmp_path, opening + (3 * frame)[:-1]) == "416 of 417 bytes of its last frame"
        assert told(tmp_path, opening + 2 * frame + b"TAG" + bytes(125)) is None
