"""Augmentation of one utterance's features: speed perturbation and SpecAugment.

It happens before padding, in the data workers, so masks lie inside the real length. What is drawn is a function of
seed, epoch and utterance alone: the same whatever the number of workers, and after a resume.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import mask_along_axis


@dataclass(frozen=True)
class Augmentation:
    """Speed perturbation, and SpecAugment (Park et al. 2019) from epoch `from_epoch` on.

    Widths in frames and feature dimensions; time masks are also kept below `time_fraction` of the utterance.
    Masks are filled with 0, the mean of normalised features.
    """

    seed: int
    from_epoch: int
    frequency_masks: int
    frequency_width: int
    time_masks: int
    time_width: int
    time_fraction: float

    def __call__(self, features: Tensor, index: int, epoch: int, speed: float) -> Tensor:
        """`features (T, D)` of utterance `index` to `(T', D)`; epochs count from 1."""
        if speed != 1:
            features = resample_time(features, speed)
        if epoch < self.from_epoch:
            return features
        masked = features.unsqueeze(0)
        with torch.random.fork_rng(devices=[]):  # torchaudio draws from the global generator
            torch.manual_seed((self.seed * 1_000_003 + epoch) * 10_000_019 + index)
            for _ in range(self.frequency_masks):
                masked = mask_along_axis(masked, self.frequency_width, 0.0, axis=2)
            for _ in range(self.time_masks):
                masked = mask_along_axis(masked, self.time_width, 0.0, axis=1, p=self.time_fraction)
        return masked.squeeze(0)


def resample_time(features: Tensor, speed: float) -> Tensor:
    """Speed perturbation of a feature sequence `(T, D)`: linear interpolation to `round(T / speed)` frames."""
    frames = max(1, round(len(features) / speed))
    return F.interpolate(features.T.unsqueeze(0), size=frames, mode="linear", align_corners=False)[0].T
