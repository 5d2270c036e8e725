"""Measures of calibration, on runs and truths drawn from what is known."""

from itertools import combinations

import numpy as np
import pytest

from ddgm.calibration import (
    Scored,
    calibration_curve,
    coverage,
    dispersion,
    mean_of_samples,
    rank_correlation,
)
from ddgm.errors import DdgmError

SAMPLES = 8


def drawn(scale=1.0, count=40, size=24, samples=SAMPLES, seed=0):
    """Return runs of deviation `scale` times that of the truth, which varies over the image."""
    rng = np.random.default_rng(seed)
    deviation = np.exp(rng.normal(-1.0, 0.7, (count, size, size)))
    centre = rng.normal(size=(count, size, size))
    truth = centre + deviation * rng.normal(size=deviation.shape)
    runs = centre + scale * deviation * rng.normal(size=(samples, *deviation.shape))
    return truth, runs


def scored(scale=1.0, **options):
    truth, runs = drawn(scale, **options)
    return Scored.of(runs.mean(0), runs.std(0, ddof=1), truth, len(runs))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_dispersion_is_how_far_the_spread_is_from_the_error(scale):
    # The truth is 1 from the centre, and the mean of the runs scale/√S; expected is
    # scale √(1 + 1/S).
    expected = np.sqrt((1 + scale**2 / SAMPLES) / (scale**2 * (1 + 1 / SAMPLES)))
    ratio, error = dispersion(scored(scale))
    assert ratio == pytest.approx(expected, abs=4 * error)
    assert 0 < error < 0.02 * expected


def test_the_standard_error_of_the_dispersion_is_its_scatter():
    found = np.array([dispersion(scored(count=10, seed=seed)) for seed in range(60)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.35)


def test_the_shares_of_a_calibrated_set_are_students():
    found = coverage(scored(), multiples=(1.0, 2.0))
    assert found["gaussian"].tolist() == pytest.approx([0.6827, 0.9545], abs=1e-4)
    # Of 7 degrees of freedom, from any table of Student's t.
    assert found["expected"].tolist() == pytest.approx([0.6494, 0.9144], abs=1e-3)
    for row in found.itertuples():
        assert row.share == pytest.approx(row.expected, abs=4 * row.share_se)
        assert 0 < row.share_se < 0.01


def test_with_many_runs_the_shares_are_those_of_a_normal_distribution():
    found = coverage(scored(samples=400, count=4, size=16), multiples=(1.0, 2.0))
    assert found["expected"].tolist() == pytest.approx(found["gaussian"].tolist(), abs=2e-3)


def test_a_factor_mends_runs_that_scatter_too_little():
    fitted, judged = scored(0.4, seed=1), scored(0.4, seed=2)
    (raw,) = coverage(judged, multiples=(1.0,))["share"]
    factor, _ = dispersion(fitted)
    (mended,) = coverage(judged, factor, multiples=(1.0,))["share"]
    expected = coverage(judged, multiples=(1.0,))["expected"][0]
    assert raw < 0.4
    assert mended == pytest.approx(expected, abs=0.02)


def test_the_curve_follows_the_diagonal_where_the_spread_is_right():
    found = calibration_curve(scored(samples=64), bins=8)
    assert found["bin"].tolist() == list(range(8))
    assert found["pixels"].sum() == 40 * 24 * 24
    assert found["pixels"].max() == pytest.approx(found["pixels"].min(), abs=1)
    assert found["predicted"].is_monotonic_increasing
    assert found["predicted"].iloc[-1] > 5 * found["predicted"].iloc[0]
    # The spread itself scatters by 1/√128, which sorts the pixels a little: 2 % in outer bins.
    off = (found["rms_error"] - found["predicted"]).abs()
    assert (off < 4 * found["rms_error_se"] + 0.03 * found["predicted"]).all()
    # Of a normal distribution, mean |x| = √(2/π) of the root mean square; bins mix deviations.
    ratio = found["mean_abs_error"] / found["rms_error"]
    assert ratio.iloc[1:-1].to_numpy() == pytest.approx(np.sqrt(2 / np.pi), rel=0.03)


def test_a_factor_moves_the_curve_along_the_prediction_alone():
    given = scored()
    plain, twice = calibration_curve(given), calibration_curve(given, 2.0)
    assert twice["predicted"].to_numpy() == pytest.approx(2 * plain["predicted"].to_numpy())
    assert twice["rms_error"].to_numpy() == pytest.approx(plain["rms_error"].to_numpy())


def test_standard_errors_are_over_images_not_over_pixels():
    # All pixels of an image share one error: a hundred times as many pixels say nothing more.
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(20, 1, 1))
    for size in (4, 40):
        given = Scored(shared * np.ones((20, size, size)), np.ones((20, size, size)), 4)
        (row,) = calibration_curve(given, bins=1).itertuples()
        squares = np.square(shared.ravel())
        expected = squares.std(ddof=1) / np.sqrt(20) / (2 * np.sqrt(squares.mean()))
        assert row.rms_error_se == pytest.approx(expected)


def test_the_error_of_fewer_runs_is_the_mean_over_all_choices_of_them():
    truth, runs = drawn(scale=1.5, count=3, size=5, samples=8)
    rows = mean_of_samples(Scored.of(runs.mean(0), runs.std(0, ddof=1), truth, 8))
    assert rows["samples"].unique().tolist() == [1, 2, 4, 8, np.inf]
    for count in (1, 2, 4, 8):
        chosen = [
            np.square(runs[list(which)].mean(0) - truth).mean(axis=(1, 2))
            for which in combinations(range(8), count)
        ]
        found = rows.loc[rows["samples"] == count, "mse"].to_numpy()
        assert found == pytest.approx(np.mean(chosen, axis=0))


def test_the_error_of_ever_more_runs_is_their_squared_bias():
    rng = np.random.default_rng(4)
    truth = np.zeros((2, 64, 64))
    runs = 0.3 + rng.normal(size=(16, 2, 64, 64))
    rows = mean_of_samples(Scored.of(runs.mean(0), runs.std(0, ddof=1), truth, 16))
    means = rows.groupby("samples")["mse"].mean()
    assert means[1] == pytest.approx(1.09, abs=0.02)
    assert means[np.inf] == pytest.approx(0.09, abs=0.02)


def test_a_number_of_runs_that_is_no_power_of_two_comes_after_those_below():
    rows = mean_of_samples(scored(samples=6, count=2, size=4))
    assert rows["samples"].unique().tolist() == [1, 2, 4, 6, np.inf]


def test_rank_correlation_tells_spreads_that_know_from_those_that_do_not():
    knowing = scored(samples=64)
    found = rank_correlation(knowing)
    assert found.shape == (40,)
    assert 0.3 < found.mean() < 0.6
    shuffled = np.random.default_rng(0).permuted(knowing.std.reshape(40, -1), axis=1)
    blind = Scored(knowing.error, shuffled.reshape(knowing.std.shape), 64)
    assert abs(rank_correlation(blind).mean()) < 0.03


@pytest.mark.parametrize(
    ("error", "std", "named"),
    [
        (np.zeros((2, 3, 4)), np.ones((2, 3, 5)), r"\(2, 3, 4\).*\(2, 3, 5\)"),
        (np.zeros((1, 3, 4)), np.ones((1, 3, 4)), "at least 2 images"),
    ],
)
def test_what_cannot_be_scored_is_refused(error, std, named):
    with pytest.raises(DdgmError, match=named):
        Scored(error, std, 4)
