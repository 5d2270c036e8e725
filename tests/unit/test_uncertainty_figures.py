"""Figures and tables of several runs say what the runs are."""

import re

import numpy as np
import pytest

from ddgm.calibration import Scored, calibrate, mean_of_samples
from ddgm.disagreement import by_ambiguity, local_deviation, marking_level
from ddgm.figures import calibration, several_runs, uncertainty_maps
from ddgm.tables import uncertainty, uncertainty_to_markdown


def spreads():
    """Return deviations of five images, of which the third is unsure of one place."""
    std = 0.1 * np.ones((5, 40, 40)) + 0.01 * np.arange(5)[:, None, None]
    std[2, 10:16, 20:26] = 2.0
    return std


def judged(scale, seed=0):
    rng = np.random.default_rng(seed)
    deviation = np.exp(rng.normal(-1, 0.5, (6, 16, 16)))
    truth = deviation * rng.normal(size=deviation.shape)
    runs = scale * deviation * rng.normal(size=(4, *deviation.shape))
    return Scored.of(runs.mean(0), runs.std(0, ddof=1), truth, 4)


@pytest.fixture(scope="module")
def found():
    return {
        "sure | of itself": calibrate(judged(0.3), judged(0.3, 1)),
        "right": calibrate(judged(1.0), judged(1.0, 1)),
    }


def test_an_even_deviation_stays_as_it_is_and_a_place_stands_out():
    local = local_deviation(spreads())
    assert local[0] == pytest.approx(0.1)
    assert np.unravel_index(local[2].argmax(), (40, 40)) == (
        pytest.approx(12.5, abs=1),
        pytest.approx(22.5, abs=1),
    )
    # The variance, not the deviation, is what a neighbourhood has in common.
    assert np.square(local).mean(axis=(1, 2)) == pytest.approx(
        np.square(spreads()).mean(axis=(1, 2)), rel=1e-6
    )


def test_images_are_sorted_by_where_their_runs_disagree_most():
    local = local_deviation(spreads())
    local[2, :, :20] = 0.05  # smooth for the most part, and still the most ambiguous
    assert by_ambiguity(local).tolist() == [0, 1, 3, 4, 2]
    level = marking_level(local)
    assert ((local > level).mean(axis=(1, 2)) > 0).tolist() == [False, False, True, False, False]


def test_a_twentieth_of_all_pixels_is_above_the_level_of_marking():
    local = np.random.default_rng(0).random((3, 50, 50))
    local[0] /= 2
    assert (local > marking_level(local)).mean(axis=(1, 2)) == pytest.approx(
        [0, 0.075, 0.075], abs=0.02
    )


def test_places_where_runs_disagree_are_outlined_in_every_run_and_nowhere_else():
    rng = np.random.default_rng(0)
    truth, algebraic = rng.normal(size=(2, 2, 40, 40))
    runs = rng.normal(size=(2, 3, 40, 40))
    local = local_deviation(spreads())[[0, 2]]
    figure = several_runs(truth, algebraic, runs, local, 0.5, voxel_size=16)
    panels = np.array(figure.axes).reshape(2, 5)
    titles = [panel.get_title() for panel in panels[0]]
    assert titles == ["truth", "algebraic", "run 1", "run 2", "run 3"]
    outlined = [[len(panel.collections) for panel in row] for row in panels]
    assert outlined == [[0, 0, 0, 0, 0], [1, 0, 1, 1, 1]]
    for panel in panels[1, 2:]:
        (path,) = panel.collections[0].get_paths()
        assert path.contains_point((22.5, 12.5))
        assert not path.contains_point((5, 5))
    assert len({panel.images[0].get_clim() for panel in panels.ravel()}) == 1
    np.testing.assert_array_equal(panels[1, 3].images[0].get_array(), runs[1, 1])


def test_error_and_predicted_deviation_share_a_scale_and_consistency_is_about_zero():
    rng = np.random.default_rng(0)
    truth, mean = rng.normal(size=(2, 2, 20, 20))
    figure = uncertainty_maps(
        truth, mean, np.ones((2, 20, 20)), 0.1 * truth, samples=8, voxel_size=16
    )
    panels = np.array(figure.axes[:10]).reshape(2, 5)
    assert panels[0, 1].get_title() == "mean of 8 runs"
    clims = [[panel.images[0].get_clim() for panel in row] for row in panels]
    assert clims[0] == clims[1]
    assert clims[0][0] == clims[0][1]
    assert clims[0][2] == clims[0][3]
    assert clims[0][2][0] == 0
    assert clims[0][4] == (-3, 3)  # what noise does fills no scale
    np.testing.assert_array_equal(panels[1, 2].images[0].get_array(), np.abs(mean[1] - truth[1]))


def test_the_calibration_figure_has_a_line_a_method_before_and_after(found):
    parts = [
        [(label, getattr(each, part)) for label, each in found.items()]
        for part in ("curve", "shares", "means")
    ]
    curve, share, mean = calibration(*parts).axes
    assert len(curve.containers) == len(share.containers) == 4
    raw, mended = (container[0].get_xdata() for container in curve.containers[:2])
    factor = found["sure | of itself"].summary["factor"]
    assert factor > 2
    assert list(mended) == pytest.approx(list(factor * np.asarray(raw)))
    assert [list(each[0].get_xdata()) for each in mean.containers] == [[1, 2, 4]] * 2
    for limit, each in zip(mean.lines[1::2], found.values(), strict=True):
        rows = each.means
        expected = rows.loc[np.isinf(rows["samples"]), "mse"].mean()
        assert limit.get_ydata()[0] == pytest.approx(expected)


def test_the_table_says_what_was_measured(found):
    table = uncertainty(found).set_index("method")
    sure = table.loc["sure | of itself"]
    assert sure["images"] == 6
    assert sure["samples"] == 4
    assert sure["dispersion"] > 2
    assert sure["share_1"] < 0.5 < sure["share_1_recalibrated"]
    assert table.loc["right", "dispersion"] == pytest.approx(1, abs=0.15)
    rows = mean_of_samples(judged(0.3)).groupby("samples")["mse"]
    assert sure["mse_1"] == pytest.approx(rows.mean()[1])
    assert sure["mse_limit_se"] == pytest.approx(rows.sem()[np.inf])


def test_the_markdown_has_a_row_before_and_after_and_the_errors_of_means(found):
    text = uncertainty_to_markdown(found)
    lines = text.splitlines()
    assert [line.count(" | ") for line in lines if line.startswith("| ")][:6] == [9] * 6
    factor = found["sure | of itself"].summary["factor"]
    assert rf"| sure \| of itself, deviation × {factor:.2f} |" in text
    (head,) = (line for line in lines if "MSE of the mean of" in line)
    assert re.findall(r"\d+|∞", head) == ["1", "2", "4", "∞"]
    shares = found["right"].shares
    within = shares[(shares["deviations"] == 1) & ~shares["recalibrated"]].iloc[0]
    assert f"{within['share']:.1%} ± {within['share_se']:.1%}" in text
    assert f"{within['expected']:.1%}" in text
