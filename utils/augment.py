"""Augmentation of one utterance's features: speed, vocal tract length, and SpecAugment.

It happens before padding, in the data workers, so masks lie inside the real length. What is drawn is a function of
seed, epoch and utterance alone: the same whatever the number of workers, and after a resume.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import mask_along_axis

MEL_TOP = 2840.0  # mel of 8 kHz, the upper end of speech sampled at 16 kHz
CEPSTRAL_GRID = 64  # points at which the spectrum behind cepstral coefficients is warped


@dataclass(frozen=True)
class Augmentation:
    """What is done to an utterance before (`perturb`) and after (`mask`) its features are normalised.

    vocal_tract: frequencies are warped by a factor within 1 ± this.   cepstral: see `warp_frequencies`.
    The rest is SpecAugment (Park et al. 2019) from epoch `from_epoch` on; widths in frames and feature dimensions, time
    masks also kept below `time_fraction` of the utterance. Masks are filled with 0, the mean of normalised features.
    """

    seed: int
    cepstral: bool
    vocal_tract: float
    from_epoch: int
    frequency_masks: int
    frequency_width: int
    time_masks: int
    time_width: int
    time_fraction: float

    def perturb(self, features: Tensor, index: int, epoch: int, speed: float) -> Tensor:
        """`features (T, D)` of utterance `index`, as stored, to `(T', D)`; epochs count from 1."""
        if self.vocal_tract:
            draw = torch.rand((), generator=torch.Generator().manual_seed(self._seed(index, epoch, purpose=1)))
            factor = 1 + self.vocal_tract * (2 * float(draw) - 1)
            features = warp_frequencies(features, factor, self.cepstral)
        return resample_time(features, speed) if speed != 1 else features

    def mask(self, features: Tensor, index: int, epoch: int) -> Tensor:
        """Normalised `features (T, D)` to the same shape."""
        if epoch < self.from_epoch:
            return features
        masked = features.unsqueeze(0)
        with torch.random.fork_rng(devices=[]):  # torchaudio draws from the global generator
            torch.manual_seed(self._seed(index, epoch, purpose=2))
            for _ in range(self.frequency_masks):
                masked = mask_along_axis(masked, self.frequency_width, 0.0, axis=2)
            for _ in range(self.time_masks):
                masked = mask_along_axis(masked, self.time_width, 0.0, axis=1, p=self.time_fraction)
        return masked.squeeze(0)

    def _seed(self, index: int, epoch: int, purpose: int) -> int:
        return ((self.seed * 1_000_003 + epoch) * 10_000_019 + index) * 10 + purpose


def resample_time(features: Tensor, speed: float) -> Tensor:
    """Speed perturbation of a feature sequence `(T, D)`: linear interpolation to `round(T / speed)` frames."""
    frames = max(1, round(len(features) / speed))
    return F.interpolate(features.T.unsqueeze(0), size=frames, mode="linear", align_corners=False)[0].T


def warp_frequencies(features: Tensor, factor: float, cepstral: bool) -> Tensor:
    """Vocal tract length perturbation (Jaitly and Hinton 2013): what was at frequency `factor * f` comes to `f`.

    features: `(T, D)`, log mel bands, or `cepstral`: the first D coefficients of their cosine transform (MFCC).
    Speakers of another size resonate at other frequencies: a cheap way to more voices than the corpus has.
    """
    D = features.size(1)
    bands = CEPSTRAL_GRID if cepstral else D
    position = (torch.arange(bands) + 0.5) / bands  # of each band on the mel axis, 0 to 1
    hertz = 700 * (10 ** (position * MEL_TOP / 2595) - 1)
    source = (2595 * torch.log10(1 + factor * hertz / 700) / MEL_TOP).clamp(max=1.0)
    if cepstral:  # the smooth spectrum that the coefficients stand for, read at the warped positions, transformed back
        order = torch.arange(D)
        scale = torch.where(order == 0, 1.0, 2**0.5)
        before, after = (scale * torch.cos(torch.pi * order * x.unsqueeze(1)) for x in (source, position))
        return features @ (before.T @ after / bands)
    place = (source * bands - 0.5).clamp(0, bands - 1)
    below = place.floor().long().clamp(max=bands - 2)
    share = place - below
    return features[:, below] * (1 - share) + features[:, below + 1] * share
