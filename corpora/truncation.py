"""Audio files that end before they should, as after a broken download: decoders read them without a word.

Only what the container itself tells is checked: the sizes in a WAV header, the last page of an Ogg stream, the last
frame of an MP3. A FLAC that ends early is an error of its decoder.
"""

import struct
from pathlib import Path

CHUNK_HEADER = 8  # bytes: name and size of a RIFF chunk
UNKNOWN = (0, 0xFFFFFFFF)  # sizes in headers of streams whose length was not known when they were begun
OGG_END = 0x04  # flag of a stream's last page
MP3_BITRATES = {  # kbit/s of Layer III by MPEG version (ISO 11172-3, 13818-3)
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_RATES = (44_100, 48_000, 32_000)  # Hz of MPEG 1; half of it in MPEG 2, a quarter in MPEG 2.5


def missing_end(path: Path) -> str | None:
    """What shows that a sound file ends early, as a noun phrase; None if nothing does."""
    content = path.read_bytes()
    if content[:4] in (b"RIFF", b"RF64") and content[8:12] == b"WAVE":
        return _wav(content)
    if content[:4] == b"OggS":
        return _ogg(content)
    if content[:3] == b"ID3" or (len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0):
        return _mp3(content)
    return None


def _wav(content: bytes) -> str | None:
    position = 12
    while position + CHUNK_HEADER <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        there = len(content) - position - CHUNK_HEADER
        if name == b"data":
            return f"{there:,} of {size:,} bytes of sound" if size not in UNKNOWN and there < size else None
        position += CHUNK_HEADER + size + size % 2
    return "no sound after the header"


def _ogg(content: bytes) -> str | None:
    last = content.rfind(b"OggS")
    header = content[last : last + 27]
    if len(header) == 27:
        segments = content[last + 27 : last + 27 + header[26]]
        if len(segments) == header[26] and last + 27 + header[26] + sum(segments) <= len(content):
            return None if header[5] & OGG_END else "a stream without its last page"
    return "half of a page at its end"


def _mp3(content: bytes) -> str | None:
    position = 0
    if content[:3] == b"ID3" and len(content) >= 10:  # a tag whose size has seven bits per byte
        position = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    while position + 4 <= len(content):
        length = _mp3_frame_length(content[position : position + 4])
        if length is None:  # a tag, or something that the decoder will skip
            return None
        if position + length > len(content):
            return f"{len(content) - position} of {length} bytes of its last frame"
        position += length
    return None


def _mp3_frame_length(header: bytes) -> int | None:
    """Bytes of a Layer III frame; None if this is not the header of one."""
    if header[0] != 0xFF or header[1] & 0xE0 != 0xE0 or header[1] & 0x06 != 0x02:
        return None
    version = header[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    kilobits = MP3_BITRATES[1 if version == 3 else 2][bitrate]
    hertz = MP3_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kilobits * 1000 // hertz + (header[2] >> 1 & 1)
