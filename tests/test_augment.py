import torch

from utils.augment import Augmentation, resample_time

SETTINGS = {"frequency_masks": 2, "frequency_width": 4, "time_masks": 2, "time_width": 30, "time_fraction": 0.2}


def test_nothing_before_its_epoch_and_a_function_of_seed_epoch_utterance():
    augmentation = Augmentation(seed=0, from_epoch=3, **SETTINGS)
    features = torch.ones(100, 12)
    assert torch.equal(augmentation(features, 5, epoch=2, speed=1.0), features)
    masked = augmentation(features, 5, epoch=3, speed=1.0)
    torch.rand(7)
    assert torch.equal(masked, augmentation(features, 5, epoch=3, speed=1.0))
    others = [augmentation(features, 6, 3, 1.0), augmentation(features, 5, 4, 1.0)]
    others.append(Augmentation(seed=1, from_epoch=3, **SETTINGS)(features, 5, 3, 1.0))
    assert not any(torch.equal(masked, other) for other in others)


def test_global_random_state_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Augmentation(seed=0, from_epoch=1, **SETTINGS)(torch.ones(100, 12), 5, 1, 1.0)
    assert torch.equal(torch.rand(3), expected)


def test_masks_cover_whole_bands_and_stay_narrow():
    features = torch.ones(100, 12)
    masked_frames, masked_bands = [], []
    for index in range(200):
        masked = Augmentation(seed=0, from_epoch=1, **SETTINGS)(features, index, 1, 1.0)
        time, bands = (masked == 0).all(1), (masked == 0).all(0)
        assert torch.equal(masked == 0, time[:, None] | bands[None, :])
        masked_frames.append(int(time.sum()))
        masked_bands.append(int(bands.sum()))
    assert 20 < max(masked_frames) <= 2 * 0.2 * 100
    assert 3 < max(masked_bands) <= 2 * 4
    assert min(masked_frames) < 5


def test_resample_time():
    ramp = torch.arange(200.0).unsqueeze(1).repeat(1, 3)
    for speed in (0.9, 1.1):
        resampled = resample_time(ramp, speed)
        assert resampled.shape == (round(200 / speed), 3)
        assert torch.allclose(resampled[50], ramp[0] + 50 * speed, atol=1)
    assert torch.equal(resample_time(ramp, 1.0), ramp)
    assert resample_time(ramp[:1], 1.1).shape == (1, 3)
