"""Augmentation of one utterance's features: speed, vocal tract length, and SpecAugment.

It runs in the DataLoader's workers before padding, so masks lie inside the real length. Its random numbers are a
function of seed, epoch and utterance alone: the same for any number of workers, and after a resume.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.sampler import wrap_seed

MEL_TOP = 2840.0  # mel of 8 kHz, the upper end of speech sampled at 16 kHz
CEPSTRAL_GRID = 64  # points at which the spectrum behind cepstral coefficients is warped


@dataclass(frozen=True)
class Augmentation:
    """Vocal tract length and speed perturbation before normalisation, SpecAugment (Park et al. 2019) after it.

    Masks are filled with 0, the mean of normalised features.
    """

    seed: int
    cepstral: bool  # see `warp_frequencies`
    vocal_tract: float  # frequencies are warped by a factor within 1 ± this
    from_epoch: int  # first epoch with SpecAugment
    frequency_masks: int  # per utterance
    frequency_width: int  # feature dimensions, at most, of each
    time_masks: int  # per utterance
    time_width: int  # frames, at most, of each
    time_fraction: float  # of the utterance, at most, for each time mask

    def perturb(self, features: Tensor, index: int, epoch: int, speed: float) -> Tensor:
        """Warps frequencies and changes the speed.

        Args:
            features: `(T, D)`, as stored.
            index: position of the utterance in the corpus.
            epoch: from 1.
            speed: factor by which the utterance becomes faster.

        Returns:
            `(T', D)`.
        """
        if self.vocal_tract:
            draw = torch.rand((), generator=torch.Generator().manual_seed(self._seed(index, epoch, purpose=1)))
            factor = 1 + self.vocal_tract * (2 * float(draw) - 1)
            features = warp_frequencies(features, factor, self.cepstral)
        return resample_time(features, speed) if speed != 1 else features

    def mask(self, features: Tensor, index: int, epoch: int) -> Tensor:
        """SpecAugment: normalised `features (T, D)` to the same shape; arguments as of `perturb`."""
        if epoch < self.from_epoch:
            return features
        from torchaudio.functional import mask_along_axis  # here, since nothing else than training needs torchaudio

        masked = features.unsqueeze(0)
        with torch.random.fork_rng(devices=[]):  # torchaudio draws from the global generator
            torch.manual_seed(self._seed(index, epoch, purpose=2))
            for _ in range(self.frequency_masks):
                masked = mask_along_axis(masked, self.frequency_width, 0.0, axis=2)
            for _ in range(self.time_masks):
                masked = mask_along_axis(masked, self.time_width, 0.0, axis=1, p=self.time_fraction)
        return masked.squeeze(0)

    def _seed(self, index: int, epoch: int, purpose: int) -> int:
        return wrap_seed(((self.seed * 1_000_003 + epoch) * 10_000_019 + index) * 10 + purpose)


def resample_time(features: Tensor, speed: float) -> Tensor:
    """Speed perturbation of a feature sequence `(T, D)`: linear interpolation to `round(T / speed)` frames."""
    frames = max(1, round(len(features) / speed))
    return F.interpolate(features.T.unsqueeze(0), size=frames, mode="linear", align_corners=False)[0].T


def warp_frequencies(features: Tensor, factor: float, cepstral: bool) -> Tensor:
    """Vocal tract length perturbation (Jaitly and Hinton 2013): what was at frequency `factor * f` comes to `f`.

    Speakers of another size resonate at other frequencies: a cheap way to more voices than the corpus has.

    Args:
        features: `(T, D)`.
        factor: above 1 lowers the resonances.
        cepstral: whether features are MFCC, the first `D` coefficients of the cosine transform of log mel bands, and
            not the log mel bands themselves.

    Returns:
        `(T, D)`.
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
