"""Sound files that end early are noticed, whole ones are not."""

import numpy as np
import pytest
import soundfile

from corpora.audio import read_speech
from corpora.truncation import missing_end
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
