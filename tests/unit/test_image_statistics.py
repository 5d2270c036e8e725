"""Statistics of images against closed forms, and as a judge of priors."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ddgm.errors import DdgmError
from ddgm.image_statistics import compare_statistics, radial_power_spectrum, spectrum_distance


def noise(count, size=64, seed=0):
    return np.random.default_rng(seed).standard_normal((count, size, size), dtype=np.float32)


def test_white_noise_has_the_power_of_its_variance_at_every_frequency():
    frequency, power = radial_power_spectrum(3 * noise(200))
    assert frequency[0] == 1 / 64
    assert len(frequency) == len(power) == 31
    assert power[1:] == pytest.approx(9, rel=0.1)
    # The lowest ring has eight places, and lost some of its power with the mean.
    assert power[0] == pytest.approx(9, rel=0.35)


def test_a_wave_has_its_power_at_its_frequency():
    x = np.arange(64)
    waves = np.cos(2 * np.pi * 10 / 64 * x + np.arange(8)[:, None])[:, None, :].repeat(64, axis=1)
    frequency, power = radial_power_spectrum(waves)
    assert frequency[power.argmax()] == pytest.approx(10 / 64)
    assert power[abs(frequency - 10 / 64) > 3 / 64].max() < 1e-3 * power.max()


def test_a_spectrum_of_twice_the_power_is_three_decibel_away():
    images = noise(10)
    assert spectrum_distance(np.sqrt(2) * images, images) == pytest.approx(3.0103, rel=1e-4)
    assert spectrum_distance(images, images) == 0


def test_images_that_are_not_square_are_refused():
    with pytest.raises(DdgmError, match="must be square"):
        radial_power_spectrum(np.zeros((2, 8, 9)))


def test_a_bad_prior_is_told_from_a_good_one():
    def tissue(seed):
        smooth = gaussian_filter(noise(40, seed=seed), (0, 2, 2))
        return smooth / smooth.std()

    real, others, blurred = tissue(0), tissue(1), gaussian_filter(tissue(2), (0, 1, 1))
    table = compare_statistics(
        {"other": others, "blurred": blurred, "brighter": others + 0.2, "same": real}, real
    ).set_index("images_of")
    assert list(table["count"]) == [40] * 4
    assert table.loc["same", ["intensity_distance", "spectrum_distance"]].tolist() == [0, 0]
    assert table.loc["brighter", "mean"] == pytest.approx(0.2, abs=0.05)
    assert table.loc["brighter", "intensity_distance"] == pytest.approx(0.2, abs=0.05)
    assert table.loc["other", "intensity_distance"] < 0.05
    assert table.loc["other", "spectrum_distance"] < 1
    assert table.loc["blurred", "spectrum_distance"] > 3
    assert table.loc["blurred", "std"] < 0.95
