"""Figures say what the data are, also where there are few of them."""

import numpy as np
import pandas as pd
import pytest

from ddgm.figures import prior_samples, training_curve
from ddgm.training_settings import BANDS, band_names

BAND_NAMES = band_names(0.03, 30.0)


def losses(validated):
    """Return the losses of 40 logged steps, of which the last ones have been validated."""
    table = pd.DataFrame({"step": np.arange(40) * 10 + 9, "train_loss": 1 / np.arange(1, 41)})
    values = np.where(np.arange(40) >= 40 - validated, 0.2, np.nan)
    columns = {name: values / 3**band for band, name in enumerate(BAND_NAMES)}
    return table.assign(val_loss=values, **columns)


@pytest.mark.parametrize(
    ("validated", "expected"), [(0, []), (1, ["step 400"]), (3, ["step 380", "step 400"])]
)
def test_a_training_may_have_been_validated_any_number_of_times(validated, expected):
    course, bands = training_curve(losses(validated)).axes
    assert [line.get_label() for line in bands.lines] == expected
    for line in bands.lines:
        level, loss = line.get_data()
        assert level == pytest.approx(0.03 * 1000 ** ((np.arange(BANDS) + 0.5) / BANDS), rel=1e-3)
        assert loss == pytest.approx(0.2 / 3.0 ** np.arange(BANDS))
    assert len(course.lines[1].get_xdata()) == validated


def test_samples_and_real_images_share_one_grey_scale_and_are_all_shown():
    rng = np.random.default_rng(0)
    real, generated = (rng.standard_normal((7, 32, 32), dtype=np.float32) for _ in range(2))
    figure = prior_samples([("real", real), ("generated", 2 * generated)], voxel_size=16, count=6)
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(shown) == 12
    assert len({image.get_clim() for image in shown}) == 1
    spectrum = figure.axes[-1]
    power = [line.get_ydata().mean() for line in spectrum.lines]
    assert power[1] == pytest.approx(4 * power[0], rel=0.2)
