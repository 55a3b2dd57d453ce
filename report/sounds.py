"""The sound of utterances on a run's page, where their features were made of recordings that are still there."""

import base64
import io
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
import soundfile

from corpora.audio import read_speech
from corpora.checks import read_transcript
from corpora.common import SOURCES, Source, Sources
from utils.errors import BadFile
from utils.features import FeatureConfig

LISTED = 60  # rows of the tables, those with the largest distance, that have a sound if there is room
SOUND_BYTES = 2_000_000  # of all sounds, in base64: about six minutes
LARGEST = 20_000_000  # bytes of a recording: more is no utterance


def add_sounds(data: dict, listed: int = LISTED) -> None:
    """Adds sounds to what the page shows: of the attention maps, and of the utterances with the largest distance.

    `data["sounds"]` has them, MP3 in base64; an utterance of the maps gets its place there as `sound`, a row of a table
    as its last element. What has no recording, or no longer the one that the features were made of, gets none.

    Args:
        data: from `report.build.gather`.
        listed: rows of the tables that may have one.
    """
    sounds: list[str] = data.setdefault("sounds", [])
    root, dev = (data["settings"].get("data", {}).get(key) for key in ("root", "dev"))
    if not (root and dev):
        return
    root, sources = Path(root), cache(lambda partition: Sources(Path(root, partition, SOURCES)))

    @cache
    def place_of(partition: str, identity: str) -> int | None:
        left = SOUND_BYTES - sum(map(len, sounds))
        if left < SOUND_BYTES / 20:  # nearly full: no more work for the little that may still fit
            return None
        sound = _sound_of(sources, partition, identity)
        if sound is None or len(sound) > left:
            return None
        sounds.append(sound)
        return len(sounds) - 1

    for shown in data["maps"]["utterances"]:
        shown["sound"] = place_of(dev, shown["utterance"])
    for partition, row in islice(_worst(data["splits"]), listed):
        said = "".join(part if isinstance(part, str) else part[0] for part in row[3])
        if _is_text(root / partition / "transcripts" / f"{row[0]}.npy", said):  # else decoded with another data.root
            row.append(place_of(partition, row[0]))


def _worst(splits: list[dict]) -> Iterator[tuple[str, list]]:
    """Partition and row of what the tables list, the first of each table before the second of any."""
    tables = ([(split["partition"], row) for row in split["rows"]] for split in splits)
    return filter(None, chain.from_iterable(zip_longest(*tables)))


def _sound_of(sources: Callable[[str], Sources], partition: str, identity: str) -> str | None:
    """MP3, mono, in base64: every browser plays it. None without the recording that the features were made of."""
    try:
        source = sources(partition).known.get(identity)
        if source is None or not source.audio or (audio := Path(source.audio)).stat().st_size > LARGEST:
            return None
        if Source.of(audio).digest != source.digest:
            return None
        speech, file = read_speech(audio, FeatureConfig()), io.BytesIO()
        speech /= max(1.0, np.abs(speech).max())
        soundfile.write(file, speech, FeatureConfig.sample_rate, format="MP3")
    except (BadFile, OSError, ValueError, soundfile.SoundFileError):  # gone; or a libsndfile that writes no MP3
        return None
    return base64.b64encode(file.getvalue()).decode()


def _is_text(transcript: Path, said: str) -> bool:
    """Whether a transcript is `said`, but for case and punctuation, which data.text may change."""
    try:
        return _letters(read_transcript(transcript)) == _letters(said)
    except (BadFile, OSError, ValueError):
        return False


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
