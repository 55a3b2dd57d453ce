import torch

from utils.augment import Augmentation, resample_time, warp_frequencies

SETTINGS = {
    "cepstral": False,
    "vocal_tract": 0.0,
    "frequency_masks": 2,
    "frequency_width": 4,
    "time_masks": 2,
    "time_width": 30,
    "time_fraction": 0.2,
}


def test_nothing_before_its_epoch_and_a_function_of_seed_epoch_utterance():
    augmentation = Augmentation(seed=0, from_epoch=3, **SETTINGS)
    features = torch.ones(100, 12)
    assert torch.equal(augmentation.mask(features, 5, epoch=2), features)
    masked = augmentation.mask(features, 5, epoch=3)
    torch.rand(7)
    assert torch.equal(masked, augmentation.mask(features, 5, epoch=3))
    others = [augmentation.mask(features, 6, 3), augmentation.mask(features, 5, 4)]
    others.append(Augmentation(seed=1, from_epoch=3, **SETTINGS).mask(features, 5, 3))
    assert not any(torch.equal(masked, other) for other in others)


def test_global_random_state_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Augmentation(seed=0, from_epoch=1, **SETTINGS).mask(torch.ones(100, 12), 5, 1)
    assert torch.equal(torch.rand(3), expected)


def test_masks_cover_whole_bands_and_stay_narrow():
    features = torch.ones(100, 12)
    masked_frames, masked_bands = [], []
    for index in range(200):
        masked = Augmentation(seed=0, from_epoch=1, **SETTINGS).mask(features, index, 1)
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


def spectrum_with_peak(band: float, bands: int) -> torch.Tensor:
    """`(1, bands)` with a smooth peak at `band`."""
    return torch.exp(-(((torch.arange(bands) - band) / 2) ** 2)).unsqueeze(0)


def test_warping_moves_a_resonance_by_the_factor_in_hertz():
    def hertz(band):  # of the centre of one of 28 bands
        return 700 * (10 ** ((band + 0.5) / 28 * 2840 / 2595) - 1)

    features = spectrum_with_peak(12, 28)
    assert torch.allclose(warp_frequencies(features, 1.0, cepstral=False), features, atol=1e-4)
    for factor in (0.85, 1.15):
        peak = int(warp_frequencies(features, factor, cepstral=False).argmax())
        expected = min(range(28), key=lambda band: abs(factor * hertz(band) - hertz(12)))
        assert peak == expected
        assert peak != 12


def test_warping_cepstra_is_warping_the_spectrum_behind_them():
    bands = 64
    position = (torch.arange(bands) + 0.5) / bands
    order = torch.arange(40)
    basis = torch.cos(torch.pi * order * position.unsqueeze(1)) * torch.where(order == 0, 1.0, 2**0.5)
    spectrum = spectrum_with_peak(27, bands)
    cepstra = spectrum @ basis / bands  # (1, 40)
    assert torch.allclose(warp_frequencies(cepstra, 1.0, cepstral=True), cepstra, atol=1e-4)
    for factor in (0.9, 1.1):
        warped = warp_frequencies(cepstra, factor, cepstral=True) @ basis.T
        assert torch.allclose(warped, warp_frequencies(spectrum, factor, cepstral=False), atol=0.05)


def test_the_vocal_tract_is_a_function_of_seed_epoch_utterance():
    features = torch.randn(30, 28)
    augmentation = Augmentation(seed=0, from_epoch=9, **{**SETTINGS, "vocal_tract": 0.2})
    warped = augmentation.perturb(features, 5, 1, 1.0)
    assert torch.equal(warped, augmentation.perturb(features, 5, 1, 1.0))
    assert not torch.equal(warped, augmentation.perturb(features, 6, 1, 1.0))
    assert not torch.equal(warped, features)
    assert augmentation.perturb(features, 5, 1, 0.9).shape == (33, 28)


def test_warping_and_masks_are_drawn_apart(monkeypatch):
    factors, widths = [], []
    monkeypatch.setattr(
        "utils.augment.warp_frequencies", lambda features, factor, _: factors.append(factor) or features
    )
    settings = {**SETTINGS, "vocal_tract": 0.2, "frequency_masks": 1, "time_masks": 0}
    augmentation = Augmentation(seed=0, from_epoch=1, **settings)
    for index in range(300):
        features = augmentation.perturb(torch.ones(20, 12), index, 1, speed=1.0)
        widths.append(float((augmentation.mask(features, index, 1) == 0).all(0).sum()))
    assert abs(torch.corrcoef(torch.tensor([factors, widths]))[0, 1]) < 0.3
