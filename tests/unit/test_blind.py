"""Choosing without the truth: the noise level, and rules that only see the measured views."""

import itertools
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from ddgm.blind import RULES, choose, judge, scores
from ddgm.engine import make_operator
from ddgm.errors import DdgmError, SettingError
from ddgm.geometry import TiltGeometry, divide_views
from ddgm.held_out import HeldOutViews, held_out_error
from ddgm.methods import Algebraic
from ddgm.noise_level import estimate_noise_std
from ddgm.noise_splitting import split_error
from ddgm.projector import Projector
from ddgm.reconstruction import reconstruct
from ddgm.sinograms import simulate
from ddgm.synthetic import make_volume


@pytest.fixture(scope="module")
def images():
    """EM-like images of 48 × 48 pixels, zero mean and unit variance."""
    volume = torch.from_numpy(make_volume((48, 48, 48), seed=3)[::6].astype("float32"))
    return (volume - volume.mean()) / volume.std()


@pytest.fixture(scope="module")
def geometry():
    return TiltGeometry.limited_angle((48, 48), views=64)


@pytest.fixture(scope="module")
def operator(geometry, tmp_path_factory):
    return make_operator(geometry, cache=tmp_path_factory.mktemp("cache"))


class TestNoiseLevel:
    @pytest.mark.parametrize("noise_std", [0.5, 4.1, 20.0])
    def test_it_is_found_where_the_operator_sees_nothing(self, operator, images, noise_std):
        data = simulate(operator, images, noise_std=noise_std, seed=1)
        assert estimate_noise_std(operator, data) == pytest.approx(noise_std, rel=0.03)

    @pytest.mark.parametrize("noise_std", [4.1, 20.0])
    def test_without_an_eigenbasis_it_comes_from_differences(self, geometry, images, noise_std):
        projector = Projector(geometry)
        data = simulate(projector, images, noise_std=noise_std, seed=1)
        assert estimate_noise_std(projector, data) == pytest.approx(noise_std, rel=0.1)

    def test_too_few_views_are_refused(self):
        projector = Projector(TiltGeometry.limited_angle((16, 16), views=2))
        with pytest.raises(DdgmError, match="2 views of 16"):
            estimate_noise_std(projector, torch.zeros(1, 2, 16))


class TestDividedViews:
    @pytest.mark.parametrize(("views", "held"), [(128, 16), (24, 4), (13, 4), (60, 2), (128, 62)])
    def test_the_views_held_out_are_spread_and_symmetric_and_not_at_the_ends(self, views, held):
        kept, out = divide_views(views, held)
        assert sorted(kept + out) == list(range(views))
        assert len(out) == held
        assert [views - 1 - view for view in reversed(out)] == list(out)
        assert 0 in kept
        assert views - 1 in kept
        gaps = [b - a for a, b in itertools.pairwise(out)]
        assert max(gaps) <= 1.6 * views / held

    def test_what_is_kept_has_an_eigenbasis_in_blocks(self):
        geometry = TiltGeometry.limited_angle((32, 32), views=128)
        kept = geometry.of_views(divide_views(128, 16)[0])
        assert kept.views == 112
        assert kept.flip_symmetric

    @pytest.mark.parametrize("held", [0, 1, 6, 12])
    def test_none_or_too_many_are_refused(self, held):
        with pytest.raises(SettingError, match="between 2 and 5 of 12"):
            divide_views(12, held)

    def test_a_short_series_has_none_to_spare(self):
        with pytest.raises(SettingError, match="views = 5 are too few"):
            divide_views(5, 2)


class TestHeldOutViews:
    def test_the_error_is_that_of_views_the_reconstruction_has_not_seen(
        self, operator, geometry, images, tmp_path
    ):
        data = simulate(operator, images, noise_std=4.1, seed=1)
        views = HeldOutViews.divide(operator, geometry, 8, cache=tmp_path)
        method = Algebraic(K=20, step_size=0.5 * operator.max_step_size)
        found = held_out_error(method, views, data, batch=3)

        kept, held = list(views.kept), list(views.held)
        longer = replace(method, step_size=method.step_size * 64 / 56)
        images = reconstruct(longer, Projector(geometry.of_views(kept)), data[:, kept]).images
        expected = (operator.forward(images) - data)[:, held].square().mean(dim=(1, 2))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)

        # What the views held out measured makes no difference to the reconstruction.
        other = data.clone()
        other[:, held] += 1000
        worse = held_out_error(method, views, other, batch=3)
        shifted = (operator.forward(images) - other)[:, held].square().mean(dim=(1, 2))
        torch.testing.assert_close(worse, shifted, rtol=1e-3, atol=0)

    def test_it_finds_about_where_to_stop_the_descent(self, operator, geometry, images, tmp_path):
        data = simulate(operator, images, noise_std=8.0, seed=1)
        views = HeldOutViews.divide(operator, geometry, 8, cache=tmp_path)
        step_size = 0.7 * operator.max_step_size
        mse, held = {}, {}
        steps = (3, 10, 30, 100, 300, 1000)
        for K in steps:
            method = Algebraic(K, step_size)
            result = reconstruct(method, operator, data).images
            mse[K] = float((result - images).square().mean())
            held[K] = float(held_out_error(method, views, data).mean())
        best, picked = (steps.index(min(each, key=each.get)) for each in (mse, held))
        assert 0 < best < len(steps) - 1
        assert abs(picked - best) <= 1


class TestSplitNoise:
    def test_it_tells_settings_apart_as_the_truth_does(self, operator, images):
        noise_std, step_size = 4.1, 0.7 * operator.max_step_size
        data = simulate(operator, images, noise_std=noise_std, seed=1)
        # What is reconstructed after the split has √(1 + τ²) times the noise.
        noisier = simulate(operator, images, noise_std=1.25**0.5 * noise_std, seed=2)
        basis = operator.eigenbasis
        seen = basis.singular_values > noise_std / 4
        split, true = [], []
        for K in (3, 10, 30, 100, 300):
            method = Algebraic(K, step_size)
            split.append(float(split_error(method, operator, data, noise_std=noise_std).mean()))
            found = reconstruct(method, operator, noisier).images
            difference = basis.analyse(found - images)[:, seen].double()
            true.append(float(difference.square().sum(1).mean()) / 48**2)
        split, true = torch.tensor(split), torch.tensor(true)
        assert split.argmin() == true.argmin()
        torch.testing.assert_close(split - split[1], true - true[1], rtol=0.3, atol=0.02)

    def test_in_expectation_it_is_the_squared_error(self, operator, images):
        """Of the zero image, whose error is the image itself."""
        noise_std = 2.0
        data = simulate(operator, images, noise_std=noise_std, seed=1)
        zero = Algebraic(1, 1e-12)
        basis = operator.eigenbasis
        seen = basis.singular_values > noise_std / 4
        expected = float(basis.analyse(images)[:, seen].square().sum(1).mean()) / 48**2
        found = [
            float(split_error(zero, operator, data, noise_std=noise_std, seed=seed).mean())
            for seed in range(20)
        ]
        # Only the noise of the data, not that of the split, stays the same over the seeds.
        assert sum(found) / 20 == pytest.approx(expected, abs=0.1)

    def test_it_does_not_depend_on_the_batch(self, operator, images):
        data = simulate(operator, images, noise_std=4.1, seed=1)
        method = Algebraic(10, 0.7 * operator.max_step_size)
        one, other = (
            split_error(method, operator, data, noise_std=4.1, batch=batch) for batch in (2, 6)
        )
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

    def test_without_an_eigenbasis_it_says_what_to_do(self, geometry):
        method = Algebraic(1, 1e-5)
        with pytest.raises(DdgmError, match="48 × 48 pixels are too large"):
            split_error(method, Projector(geometry), torch.zeros(1, 64, 48), noise_std=1.0)


def rows(K, mse, data_error, held_out):
    settings = json.dumps({"K": K})
    return pd.DataFrame(
        {
            "sweep": "algebraic",
            "method": "algebraic",
            "settings": settings,
            "image": [0, 1],
            "mse": mse,
            "data_error": data_error,
            "held_out_error": [held_out, float("nan")],  # of the first image alone
            "network_evals": 0,
            "failure": "",
        }
    )


def test_each_rule_picks_by_what_it_may_see():
    table = pd.concat(
        [rows(10, 0.30, 20.0, 24.0), rows(50, 0.21, 16.5, 20.0), rows(100, 0.20, 12.0, 19.0)]
    )
    choices = choose(table, 4.0)
    assert choices == {"held-out views": '{"K": 100}', "discrepancy": '{"K": 50}'}
    assert set(choices) == set(RULES) - {"split noise"}  # of which there is no measure
    assert choose(table.drop(columns="mse"), 4.0) == choices  # the truth is not looked at

    held_out, discrepancy = judge(table, choices)
    assert held_out.mse == held_out.best_mse == pytest.approx(0.20)
    assert discrepancy.mse == pytest.approx(0.21)
    assert json.loads(discrepancy.best_settings) == {"K": 100}


def test_of_settings_that_are_equally_good_the_finest_discretisation_is_taken():
    def point(N, errors, mse=0.1):
        table = rows(N, mse, 16.0, 20.0)
        return pd.concat([table] * 2, ignore_index=True).assign(
            image=range(4), network_evals=N, split_error=errors
        )

    best = [0.10, 0.20, 0.30, 0.40]
    equal = [0.12, 0.19, 0.31, 0.39]
    worse = [0.13, 0.22, 0.34, 0.42]  # by little, but on every image
    table = pd.concat([point(20, best), point(50, equal), point(150, worse)])
    assert choose(table, 4.0)["split noise"] == '{"K": 50}'
    table = pd.concat([point(20, best), point(150, worse)])
    assert choose(table, 4.0)["split noise"] == '{"K": 20}'
    table = pd.concat([point(20, equal), point(10, best)])
    assert choose(table, 4.0)["split noise"] == '{"K": 20}'


@pytest.mark.parametrize("images", [1, 3])
def test_settings_without_the_measure_are_not_taken_for_equal(images):
    def point(N, error):
        table = pd.concat([rows(N, 0.1, 16.0, 20.0)] * 2, ignore_index=True)[:images]
        return table.assign(image=range(images), network_evals=N, split_error=error)

    table = pd.concat([point(20, 0.1), point(50, float("nan")), point(10, 0.2)])
    assert choose(table, 4.0)["split noise"] == '{"K": 20}'


def test_the_scores_are_means_over_the_images():
    (score,) = scores(rows(10, [0.1, 0.3], [18.0, 22.0], 24.0), 4.0).to_dict("records")
    assert score["mse"] == pytest.approx(0.2)
    assert score["held-out views"] == 24.0
    assert score["discrepancy"] == pytest.approx(20 / 16 - 1)


def test_without_any_result_there_is_nothing_to_choose():
    with pytest.raises(DdgmError, match="no point"):
        choose(rows(10, 0.3, 20.0, 24.0).assign(failure="it diverges"), 4.0)


def test_a_point_that_diverged_is_not_scored():
    failed = pd.DataFrame(
        [{"sweep": "a", "method": "algebraic", "settings": "{}", "failure": "it diverges"}]
    )
    table = pd.concat([failed, rows(10, 0.3, 20.0, 24.0)])
    assert len(scores(table, 4.0)) == 1
