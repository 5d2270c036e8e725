"""Figures say what the data are, also where there are few of them."""

import numpy as np
import pandas as pd
import pytest

from ddgm.blind import RULES, scores
from ddgm.figures import blind_scores, prior_samples, sweep, training_curve
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


def swept(**grid):
    """Return rows of a sweep on three images whose MSE is lowest at K = 25 with σ₁ = 3, N = 100."""
    values = pd.MultiIndex.from_product(grid.values(), names=grid).to_frame(index=False)
    rows = values.merge(pd.DataFrame({"image": range(3)}), how="cross")
    distance = abs(np.log(rows["K"] / 25))
    if "sigma_1" in rows:
        distance += abs(np.log(rows["sigma_1"] / 3))
    if "N" in rows:
        distance += abs(np.log(rows["N"] / 100))
    spread = 0.01 * (rows["image"] - 1)
    return rows.assign(
        mse=0.1 + distance + spread, ssim=0.6 - 0.1 * distance, data_error=20 - rows["K"] / 10
    )


def curves(panel):
    """Return abscissa, ordinate and length of the upper bar of each line of a panel."""
    found = []
    for container in panel.containers:
        line, _, (bars,) = container
        upper = [
            segment[1, 1] - middle
            for segment, middle in zip(bars.get_segments(), line.get_ydata(), strict=True)
        ]
        found.append((list(line.get_xdata()), list(line.get_ydata()), upper))
    return found


def stars(panel):
    return [
        tuple(map(float, (*line.get_xdata(), *line.get_ydata())))
        for line in panel.lines
        if line.get_marker() == "*"
    ]


def test_a_sweep_is_drawn_with_a_line_for_each_value_and_the_winner_marked():
    figure = sweep(swept(K=[5, 25, 100], sigma_1=[1, 3]), ["K", "sigma_1"], noise_std=4.0)
    mse, ssim, error = figure.axes
    first, second = curves(mse)
    assert first[0] == second[0] == [5, 25, 100]
    assert second[1] == pytest.approx([0.1 + np.log(5), 0.1, 0.1 + np.log(4)])
    assert second[2] == pytest.approx([0.01 / np.sqrt(3)] * 3)
    assert [text.get_text() for text in mse.get_legend().get_texts()] == ["σ₁ = 1", "σ₁ = 3"]
    assert stars(mse) == [(25, pytest.approx(0.1))]
    assert stars(ssim) == [(25, pytest.approx(0.6))]
    assert stars(error) == []  # no one wants the lowest data error
    assert mse.get_xscale() == "log"  # from 5 to 100
    assert [16.0, 16.0] in [list(line.get_ydata()) for line in error.lines]  # σ_y²


def test_a_third_parameter_has_a_row_of_panels_for_each_value():
    grid = {"K": [5, 25, 50], "sigma_1": [1, 3], "N": [50, 100]}
    figure = sweep(swept(**grid), list(grid), noise_std=4.0)
    assert len(figure.axes) == 6
    assert [figure.axes[at].get_title("left") for at in (0, 3)] == ["N = 50", "N = 100"]
    assert [stars(axes) for axes in figure.axes[::3]] == [[], [(25, pytest.approx(0.1))]]
    assert figure.axes[0].get_xscale() == "linear"


def test_one_parameter_is_one_line():
    figure = sweep(swept(K=[5, 25, 50]), ["K"], noise_std=4.0)
    assert [len(curves(axes)) for axes in figure.axes] == [1, 1, 1]
    assert figure.axes[0].get_legend() is None


def test_what_a_rule_picks_is_marked_beside_the_best():
    rows = swept(K=[5, 25, 100]).assign(sweep="steps", method="ddgm", failure="")
    rows["settings"] = [f"K{K}" for K in rows["K"]]
    rows["held_out_error"] = rows["mse"] + 10
    rows["network_evals"] = 50
    rows["split_error"] = -rows["mse"]
    picks = {"held-out views": "K25", "discrepancy": "K25", "split noise": "K100"}
    figure = blind_scores({"steps": scores(rows, 4.0)}, RULES, {"steps": picks})
    held_out, discrepancy, split = figure.axes
    marked = {line.get_label(): line.get_xydata()[0] for line in held_out.lines[1:]}
    assert marked["picked"] == pytest.approx(marked["best"])
    marked = {line.get_label(): line.get_xydata()[0] for line in discrepancy.lines[1:]}
    assert marked["picked"] == pytest.approx([(17.5 / 16 - 1), 0.1])
    marked = {line.get_label(): line.get_xydata()[0] for line in split.lines[1:]}
    assert marked["picked"] == pytest.approx([-0.1 - np.log(4), 0.1 + np.log(4)])
    assert figure.axes[0].get_ylabel() == "steps: MSE"


def test_a_setting_far_off_does_not_flatten_the_rest():
    rows = swept(K=[5, 25, 50])
    rows["mse"] = 0.1 + rows["K"] / 1000
    assert sweep(rows, ["K"], noise_std=4.0).axes[0].get_yscale() == "linear"
    rows.loc[rows["K"] == 50, "mse"] = 1000.0
    mse, ssim, _ = sweep(rows, ["K"], noise_std=4.0).axes
    assert (mse.get_yscale(), ssim.get_yscale()) == ("log", "linear")
