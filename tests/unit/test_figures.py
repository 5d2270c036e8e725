"""Figures say what the data are, also where there are few of them."""

import numpy as np
import pandas as pd
import pytest

from ddgm.blind import RULES, scores
from ddgm.conditioning import Conditioning
from ddgm.figures import (
    blind_scores,
    comparison,
    grey_limits,
    image_grid,
    prior_samples,
    save_figure,
    singular_values,
    slab,
    sweep,
    training_curve,
)
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


def images(count, rows=32, columns=32, seed=0):
    return np.random.default_rng(seed).standard_normal((count, rows, columns), dtype=np.float32)


def limits_of(figure):
    """Return the grey limits of all panels that show something."""
    return [panel.images[0].get_clim() for panel in figure.axes if panel.images]


def bars(figure):
    """Return the length of each scale bar in pixels, and its label."""
    return [
        (np.ptp(panel.lines[0].get_xdata()), panel.texts[0].get_text())
        for panel in figure.axes
        if panel.images and panel.texts
    ]


def test_reconstructions_are_on_the_grey_scale_of_the_truth_with_their_errors():
    truth = images(2)
    parts = [("flat", np.zeros_like(truth)), ("off", truth + 2)]
    figure = comparison(truth, images(2, 24), parts, voxel_size=16.0, max_tilt=60.0)
    shown = limits_of(figure)
    of_images = [limits for at, limits in enumerate(shown) if at % 4 != 1]
    assert of_images == [grey_limits(truth)] * 6
    assert bars(figure) == [(100 / 16, "100 nm")]  # of 32 pixels of 16 nm at most a third
    labels = [panel.get_xlabel() for panel in figure.axes]
    expected = [f"MSE {np.square(image).mean():.3f}" for image in truth]
    assert [labels[2], labels[6]] == expected
    assert [labels[3], labels[7]] == ["MSE 4.000"] * 2


def test_truth_and_reconstructions_in_grids_are_in_the_same_places_on_one_scale(tmp_path):
    truth = images(11)
    limits = grey_limits(truth)
    one, other = (
        image_grid(each, limits=limits, voxel_size=8.0, columns=4) for each in (truth, truth / 3)
    )
    for figure in (one, other):
        assert limits_of(figure) == [limits] * 11
        assert bars(figure) == [(50 / 8, "50 nm")]
    places = [[panel.get_position().bounds for panel in figure.axes] for figure in (one, other)]
    assert places[0] == places[1]
    np.testing.assert_array_equal(one.axes[5].images[0].get_array(), truth[5])
    save_figure(one, tmp_path / "a.pdf", tmp_path / "b.pdf", tmp_path / "a.png")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_section_of_a_slab_is_on_the_grey_scale_of_the_truth():
    truth = images(1, 16, 200)[0]
    parts = [("Algebraic", truth / 2), ("DDGM", truth)]
    figure = slab(images(1, 24, 200)[0], parts, truth=truth, voxel_size=16, tilts=(-60, 60))
    assert limits_of(figure)[1:] == [grey_limits(truth)] * 3
    assert bars(figure) == [(1000 / 16, "1000 nm")]


def test_of_singular_values_the_papers_statements_are_measured():
    # A geometric sequence from 100 down to 1e-5 with 7001 values: 1000 a decade.
    values = np.logspace(-5, 2, 7001)
    measured = Conditioning.of(values)
    assert (measured.largest, measured.smallest) == pytest.approx((100, 1e-5))
    assert measured.below_tenth == 6000
    assert measured.share_below_tenth == pytest.approx(6000 / 7001)
    assert measured.resolution == pytest.approx(100 * 2.0**-26)
    figure = singular_values(values, measured)
    curve, words = figure.axes
    assert curve.get_yscale() == "log"
    rank, drawn = curve.lines[0].get_data()
    assert (list(rank[:2]), rank[-1]) == ([1, 2], 7001)
    assert list(drawn[[0, -1]]) == pytest.approx([100, 1e-5])
    said = " ".join(text.get_text().replace("\n", " ") for text in words.texts)
    assert "over half of the singular values" in said
    assert "85.7%: 6,000 of 7,001" in said
    assert "10² down to 10⁻⁵" in said
    assert "from 100.0 down to 1.0 × $10^{-5}$" in said


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


def test_a_part_of_a_sweep_has_the_points_with_one_value():
    grid = {"K": [5, 25, 50], "sigma_1": [1, 3], "N": [50, 100]}
    rows = swept(**grid)
    part = sweep(rows, list(grid), noise_std=4.0, only={"N": 50})
    same = sweep(rows[rows["N"] == 50], ["K", "sigma_1"], noise_std=4.0)
    assert [curves(panel) for panel in part.axes] == [curves(panel) for panel in same.axes]
    assert part.axes[0].get_title("left") == "N = 50"
    assert stars(part.axes[0]) == stars(same.axes[0])  # the best of the part


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
