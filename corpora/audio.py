"""Audio: reading and resampling recordings, computing features, cutting long recordings at pauses."""

import math
import re
import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from corpora.truncation import missing_end
from utils.errors import BadFile, UserError
from utils.features import FeatureConfig

AUDIO = (".flac", ".wav", ".mp3", ".ogg")
FLOOR = 1e-6  # energy of silence: keeps the logarithm finite
FFT_SIZES = (400, 512, 1024, 2048)
LOUDEST = 1e6  # of a sample; integers that somebody forgot to scale reach 8e6 and are not speech in -1..1
LONGEST_FILE = 24 * 3600  # seconds
WHOLE = "a whole one, with all that its text says"
MAX_RATIO = 50_000_000  # of resampling: the product of its terms is the size of the filter

LONGEST = 20.0  # seconds of a piece: few utterances of any corpus are longer
PAUSE = 0.2  # seconds, smoothed: shorter ones may be within words
SILENCE = 1.0  # seconds of a pause that end a piece, whatever its length
MARGIN = 0.2  # seconds left around speech
INAUDIBLE = -65.0  # dB of full scale
EVEN = 10.0  # dB from quiet to loud: less is speech without a pause, or none
SMOOTHING = 10  # hops: closures of plosives are no pauses


def make_feature_config(features: str, lowest: float, highest: float) -> FeatureConfig:
    """A feature configuration from the makers' arguments.

    The window is padded to an FFT that gives each band a frequency of its own.

    Args:
        features: mel28 (or 28), so many log mel bands; mfcc13, so many cepstra of 40 bands, or of as many as needed.
        lowest: Hz, lower edge of the bands.
        highest: Hz, upper edge of the bands.

    Raises:
        UserError: names the argument, what was found and what was expected.
    """
    match = re.fullmatch(r"(mel|mfcc)?([1-9]\d{0,3})", features)
    if not match:
        raise UserError(
            f"--features: found {features!r}, expected mel and a number, or mfcc and a number: mel28, mfcc13"
        )
    cepstra = int(match[2]) if match[1] == "mfcc" else 0
    bands = max(40, cepstra) if cepstra else int(match[2])
    rate = FeatureConfig.sample_rate
    if not 0 <= lowest < highest <= rate / 2:
        raise UserError(f"--lowest, --highest: found {lowest:g} and {highest:g}, expected 0 to {rate / 2:g} Hz, rising")
    for fft in FFT_SIZES:
        if (_filters(fft // 2 + 1, lowest, highest, bands, rate).amax(0) > 0).all():
            return FeatureConfig(bands, cepstra, lowest, highest, n_fft=fft)
    raise UserError(f"--features: found {bands} bands from {lowest:g} to {highest:g} Hz, too narrow for any frequency")


@cache
def _filters(frequencies: int, lowest: float, highest: float, bands: int, rate: int) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty bands, which is what is asked here
        return torchaudio.functional.melscale_fbanks(frequencies, lowest, highest, bands, rate)


@cache
def _transform(feature_config: FeatureConfig) -> torch.nn.Module:
    mel = {
        "n_fft": feature_config.n_fft,
        "win_length": feature_config.win_length,
        "hop_length": feature_config.hop_length,
        "n_mels": feature_config.n_mels,
        "f_min": feature_config.f_min,
        "f_max": feature_config.f_max,
    }
    if feature_config.n_mfcc:  # its logarithm has the same floor
        return torchaudio.transforms.MFCC(
            feature_config.sample_rate, feature_config.n_mfcc, log_mels=True, melkwargs=mel
        )
    return torchaudio.transforms.MelSpectrogram(feature_config.sample_rate, **mel)


@cache
def _resampler(old: int, new: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(old, new)


def resample(speech: np.ndarray, old: int, new: int) -> np.ndarray:
    """Samples `(N,)` at a rate of `old` Hz, resampled to `new` Hz."""
    return speech if old == new else _resampler(old, new)(torch.from_numpy(speech)).numpy()


def features_of(speech: np.ndarray, feature_config: FeatureConfig) -> np.ndarray:
    """Features of mono speech.

    Args:
        speech: `(N,)`, samples in -1..1 at the configuration's sample rate, more than half of `n_fft`.
        feature_config: how features are computed.

    Returns:
        `(T, D)` float32.
    """
    transformed = _transform(feature_config)(torch.from_numpy(speech))
    if not feature_config.n_mfcc:
        transformed = torch.log(transformed + FLOOR)
    return transformed.T.contiguous().numpy()


def read_speech(path: Path, feature_config: FeatureConfig) -> np.ndarray:
    """Samples `(N,)` of a sound file, the mean of its channels, at the configuration's sample rate.

    Raises:
        BadFile: libsndfile cannot read it, or it ends early, is too short, too long, too loud, or of an odd rate.
    """
    try:
        if not path.is_file():
            raise BadFile("a folder" if path.is_dir() else "no such file", "an audio file")
        if (early := missing_end(path)) is not None:
            raise BadFile(f"a file that ends early ({early})", WHOLE)
        info = soundfile.info(path)
        if info.frames > LONGEST_FILE * info.samplerate:
            raise BadFile(f"{info.frames:,} samples, as its header claims", f"at most {LONGEST_FILE // 3600} hours")
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except BadFile:
        raise
    except Exception as error:  # libsndfile and its wrapper fail in many ways, all of which mean the same
        reason = " ".join(str(error).split())
        raise BadFile(f"what cannot be read ({reason})", f"audio, such as {', '.join(AUDIO)}") from None
    if len(samples) < info.frames:
        raise BadFile(f"a file that ends early ({len(samples):,} of {info.frames:,} samples)", WHOLE)
    least = max(feature_config.win_length, feature_config.n_fft // 2 + 1) / feature_config.sample_rate
    if len(samples) < least * rate:
        raise BadFile(f"{len(samples)} samples", f"{1000 * least:g} ms of speech or more")
    speech = samples.mean(axis=1)
    if not np.isfinite(speech).all():
        raise BadFile("samples that are not finite", "numbers between -1 and 1")
    if (loudest := float(np.abs(speech).max())) > LOUDEST:
        raise BadFile(f"samples up to {loudest:.3g}", "numbers between -1 and 1")
    if rate * feature_config.sample_rate > MAX_RATIO * math.gcd(rate, feature_config.sample_rate) ** 2:
        raise BadFile(f"{rate} samples per second", "a usual number, such as 8000, 16000, 22050, 44100 or 48000")
    return resample(speech, rate, feature_config.sample_rate)


# ------------------------------------------------------------------------------------------------------------- pieces


def loudness(speech: np.ndarray, hop: int) -> np.ndarray:
    """Smoothed loudness of `speech (N,)` in dB of full scale, one value per `hop` samples: `(ceil(N / hop),)`."""
    padded = np.pad(speech.astype(np.float64) - speech.mean(), (0, -len(speech) % hop))
    power = (padded**2).reshape(-1, hop).mean(axis=1)
    around = np.convolve(np.pad(power, SMOOTHING // 2, mode="edge"), np.ones(SMOOTHING) / SMOOTHING, mode="valid")
    return 10 * np.log10(around[: len(power)] + 1e-12)


def cut_at_pauses(speech: np.ndarray, rate: int, longest: float = LONGEST) -> list[tuple[int, int]]:
    """Cuts a recording into pieces with speech in them.

    Speech is what is louder than a third of the way, in dB, from the quietest twentieth to the loudest. Pieces end at
    long pauses; one that is too long is split at its longest pause, or, if nobody paused, where it is quietest.

    Args:
        speech: `(N,)` samples.
        rate: Hz.
        longest: seconds of a piece, at most.

    Returns:
        Samples `[start, end)` of each piece, in order; none if nothing is loud enough to be heard.
    """
    hop = rate // 100
    level = loudness(speech, hop)
    quiet, loud = np.percentile(level, [5, 95])
    if loud < INAUDIBLE:
        return []
    heard = level > max(INAUDIBLE, quiet + (loud - quiet) / 3 if loud - quiet > EVEN else INAUDIBLE)
    edges = np.flatnonzero(np.diff(heard, prepend=False, append=False)).reshape(-1, 2)  # [start, end) of what is heard
    spans = [tuple(edges[0])]
    for start, end in edges[1:]:
        if start - spans[-1][1] < 100 * PAUSE:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    pieces, margin = [], round(100 * MARGIN)
    for group in _apart(spans, round(100 * SILENCE)):
        pieces += _part(group, level, round(100 * longest) - 2 * margin)
    middles = [(before[1] + after[0]) // 2 for before, after in pairwise(pieces)]  # margins do not overlap
    firsts, lasts = [0, *middles], [*middles, len(level)]
    return [
        (max(start - margin, first) * hop, min(min(end + margin, last) * hop, len(speech)))
        for (start, end), first, last in zip(pieces, firsts, lasts, strict=True)
    ]


def _apart(spans: list[tuple[int, int]], silence: int) -> list[list[tuple[int, int]]]:
    """Groups of spans with at least `silence` hops between two groups."""
    groups = [[spans[0]]]
    for span in spans[1:]:
        if span[0] - groups[-1][-1][1] >= silence:
            groups.append([])
        groups[-1].append(span)
    return groups


def _part(spans: list[tuple[int, int]], level: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """One piece, or, if it is longer than `longest`, the pieces of its two parts around the best place to cut."""
    start, end = spans[0][0], spans[-1][1]
    if end - start <= longest:
        return [(start, end)]
    if len(spans) > 1:
        pauses = [after[0] - before[1] for before, after in pairwise(spans)]
        cut = int(np.argmax(pauses)) + 1
        return _part(spans[:cut], level, longest) + _part(spans[cut:], level, longest)
    third = (end - start) // 3
    cut = start + third + int(np.argmin(level[start + third : end - third]))
    return _part([(start, cut)], level, longest) + _part([(cut, end)], level, longest)
