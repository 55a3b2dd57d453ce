"""The competition's features: log mel energies of speech, 25 ms windows every 10 ms."""

from functools import cache

import numpy as np
import torch
import torchaudio

SAMPLE_RATE, MEL_BANDS, WINDOW, HOP = 16_000, 28, 400, 160  # 25 ms and 10 ms
FLOOR = 1e-6  # energy of silence: keeps the logarithm finite


@cache
def _mel(bands: int, highest: float) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, n_fft=WINDOW, hop_length=HOP, n_mels=bands, f_max=highest)


@cache
def _resample(sample_rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(sample_rate, SAMPLE_RATE)


def log_mel(
    speech: np.ndarray, sample_rate: int, bands: int = MEL_BANDS, highest: float = SAMPLE_RATE / 2
) -> np.ndarray:
    """Mono samples `(N,)` in -1..1 to features `(T, bands)` float32, 100 frames a second.

    highest: upper edge of the highest band in Hz, for audio that holds nothing above it.
    """
    energies = _mel(bands, highest)(_resample(sample_rate)(torch.from_numpy(speech)))
    return torch.log(energies + FLOOR).T.contiguous().numpy()
