import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.methods import DDGM, METHODS, Algebraic, Problem, make_method
from ddgm.noise import ImageNoise
from ddgm.projector import Projector, system_matrix
from ddgm.schedules import exponential_decay


class MatrixOperator:
    """A dense, well-conditioned operator: methods need nothing but the contract."""

    image_shape = (4, 5)
    data_shape = (9, 8)
    device = torch.device("cpu")

    def __init__(self):
        self.matrix = torch.randn(72, 20, generator=torch.Generator().manual_seed(1))

    @property
    def max_step_size(self):
        return 2 / float(torch.linalg.matrix_norm(self.matrix, 2)) ** 2

    def forward(self, image):
        return (image.flatten(-2) @ self.matrix.T).unflatten(-1, self.data_shape)

    def adjoint(self, data):
        return (data.flatten(-2) @ self.matrix).unflatten(-1, self.image_shape)


class RememberingNoise(ImageNoise):
    """Noise that can tell what it drew, so that a test can be the perfect denoiser."""

    def draw(self):
        self.last = super().draw()
        return self.last


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def closed_form(matrix, data, step_size, K):
    """K gradient steps from zero: V diag((1 − (1 − λs²)^K) / s) Uᵀ y, in float64."""
    U, s, Vt = np.linalg.svd(matrix, full_matrices=False)
    seen = s > 1e-7 * s[0]
    filtered = (1 - (1 - step_size * s[seen] ** 2) ** K) / s[seen]
    return Vt[seen].T @ (filtered[:, None] * (U[:, seen].T @ data))


class TestAlgebraic:
    def test_many_steps_approach_the_least_squares_solution(self):
        operator, data = MatrixOperator(), normal(3, 9, 8)
        method = Algebraic(K=400, step_size=0.5 * operator.max_step_size)
        found = method.solve(Problem(operator, data)).flatten(1).numpy()
        matrix = operator.matrix.double().numpy()
        expected = np.linalg.lstsq(matrix, data.flatten(1).T.double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(found, expected.T, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("K", [1, 2, 7, 100])
    @pytest.mark.parametrize("detector", [12, 17])
    def test_K_steps_equal_the_closed_form_in_the_singular_basis(self, K, detector):
        geometry = TiltGeometry.limited_angle((12, 12), views=10, detector=detector)
        projector = Projector(geometry)
        step_size = 0.9 * projector.max_step_size
        data = projector.forward(normal(2, 12, 12)) + 2 * normal(2, *geometry.sinogram_shape)
        found = Algebraic(K, step_size).solve(Problem(projector, data)).flatten(1).numpy()
        matrix = system_matrix(geometry).toarray().astype(np.float64)
        expected = closed_form(matrix, data.flatten(1).T.double().numpy(), step_size, K).T
        error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
        assert error.max() < 1e-4

    def test_the_iterates_are_those_of_shorter_runs(self, projector):
        data = normal(2, *projector.data_shape)
        step_size = 0.5 * projector.max_step_size
        iterates = list(Algebraic(5, step_size).iterates(Problem(projector, data)))
        assert len(iterates) == 5
        for k, image in enumerate(iterates, start=1):
            torch.testing.assert_close(
                image, Algebraic(k, step_size).solve(Problem(projector, data))
            )

    def test_it_counts_K_gradients_and_no_network(self, projector):
        problem = Problem(projector, normal(3, *projector.data_shape))
        Algebraic(17, 1e-4).solve(problem)
        assert (problem.evaluations.gradient, problem.evaluations.network) == (17, 0)

    def test_a_step_above_the_limit_is_refused_by_its_check(self, projector):
        limit = projector.max_step_size
        Algebraic(step_size=0.99 * limit).check(projector)
        with pytest.raises(DdgmError, match=f"{limit:.3g}"):
            Algebraic(step_size=1.01 * limit).check(projector)

    def test_a_descent_that_diverges_stops_at_its_step(self, projector):
        problem = Problem(projector, normal(1, *projector.data_shape))
        with pytest.raises(DdgmError, match=r"algebraic, step \d+: .*diverges"):
            Algebraic(10_000, 20 * projector.max_step_size).solve(problem)
        assert problem.evaluations.gradient < 100


class TestDDGM:
    def test_a_perfect_denoiser_makes_it_the_algebraic_method(self, projector):
        data = 10 * normal(3, *projector.data_shape)
        step_size = 0.9 * projector.max_step_size
        noise = RememberingNoise(4, range(3), projector.image_shape)
        problem = Problem(projector, data, lambda image: noise.last, noise)
        found = DDGM(N=6, K=4, step_size=step_size).solve(problem)
        expected = Algebraic(24, step_size).solve(Problem(projector, data))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)

    def test_it_is_algorithm_1_step_by_step(self):
        # A second writing of Algorithm 1, on float64 matrices.
        operator, data = MatrixOperator(), 5 * normal(2, 9, 8)
        step_size = 0.7 * operator.max_step_size
        settings = {"N": 4, "K": 3, "sigma_1": 2.0, "sigma_N": 0.1}
        problem = Problem(operator, data, torch.tanh, ImageNoise(8, [0, 1], (4, 5)))
        found = DDGM(step_size=step_size, **settings).solve(problem)

        matrix, y = operator.matrix.double(), data.flatten(1).double()
        noise = ImageNoise(8, [0, 1], (4, 5))
        x = torch.zeros(2, 20, dtype=torch.float64)
        for sigma in exponential_decay(2.0, 0.1, 4):
            for _ in range(3):
                x = x - step_size * (x @ matrix.T - y) @ matrix
            x = x + sigma * noise.draw().flatten(1).double()
            x = x - sigma * torch.tanh(x)
        torch.testing.assert_close(found.flatten(1).double(), x, rtol=0, atol=1e-4)

    def test_it_counts_N_times_K_gradients_and_N_networks(self, projector):
        data = normal(2, *projector.data_shape)
        noise = ImageNoise(1, range(2), projector.image_shape)
        problem = Problem(projector, data, torch.zeros_like, noise)
        DDGM(N=5, K=3, step_size=1e-4).solve(problem)
        assert (problem.evaluations.gradient, problem.evaluations.network) == (15, 5)

    def test_the_paper_spends_2250_gradients_and_150_networks(self):
        method = DDGM()
        assert (method.N * method.K, method.N) == (2250, 150)
        assert method.schedule() == exponential_decay(3.0, 0.03, 150)

    def test_a_denoiser_that_returns_nan_stops_it_with_iteration_and_noise_level(self, projector):
        calls = []

        def breaks_at_the_second_call(image):
            calls.append(1)
            return image * (math.nan if len(calls) == 2 else 0.0)

        noise = ImageNoise(1, range(2), projector.image_shape)
        data = normal(2, *projector.data_shape)
        problem = Problem(projector, data, breaks_at_the_second_call, noise)
        with pytest.raises(DdgmError) as caught:
            DDGM(N=3, K=1, step_size=1e-4, sigma_1=3.0, sigma_N=0.03).solve(problem)
        assert "iteration 2 of 3" in str(caught.value)
        assert "noise level 0.3" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(calls) == 2

    def test_without_network_or_noise_it_says_what_it_needs(self, projector):
        data = normal(1, *projector.data_shape)
        noise = ImageNoise(1, [0], projector.image_shape)
        with pytest.raises(DdgmError, match="network"):
            DDGM(N=2, K=1).solve(Problem(projector, data, None, noise))
        with pytest.raises(DdgmError, match="noise"):
            DDGM(N=2, K=1).solve(Problem(projector, data, torch.zeros_like))

    def test_a_step_above_the_limit_is_refused_by_its_check(self, projector):
        limit = projector.max_step_size
        DDGM(step_size=0.99 * limit).check(projector)
        with pytest.raises(DdgmError, match=f"{limit:.3g}"):
            DDGM(step_size=1.01 * limit).check(projector)


class TestProblem:
    def test_the_gradient_is_that_of_half_the_squared_residual(self):
        operator, data = MatrixOperator(), normal(1, 9, 8).double()
        operator.matrix = operator.matrix.double()
        x = normal(1, 4, 5, seed=5).double().requires_grad_()
        (0.5 * (operator.forward(x) - data).square().sum()).backward()
        torch.testing.assert_close(Problem(operator, data).gradient(x.detach()), x.grad)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_data_that_are_not_finite_are_refused(self, projector, value):
        data = normal(2, *projector.data_shape)
        data[1, 3, 4] = value
        with pytest.raises(DdgmError, match="not finite"):
            Problem(projector, data)

    @pytest.mark.parametrize("shape", [(1, 12, 15), (1, 16, 12), (12, 16), (1, 1, 12, 16)])
    def test_data_of_another_shape_are_refused_with_both_shapes(self, projector, shape):
        with pytest.raises(DdgmError) as caught:
            Problem(projector, torch.zeros(shape))
        assert str(shape) in str(caught.value)
        assert "12, 16)" in str(caught.value)

    def test_it_starts_at_zero(self, projector):
        start = Problem(projector, normal(3, *projector.data_shape)).zeros()
        assert torch.equal(start, torch.zeros(3, 16, 16))


class TestMakeMethod:
    def test_settings_that_are_not_given_keep_their_defaults(self):
        assert make_method("algebraic", {"K": 7}) == Algebraic(K=7, step_size=9e-5)
        assert make_method("ddgm", {"N": 50, "K": 25}) == DDGM(N=50, K=25)
        assert make_method("ddgm", {}) == DDGM(150, 15, 9e-5, 3.0, 0.03)

    def test_a_whole_number_will_do_for_a_real_one(self):
        assert make_method("ddgm", {"sigma_1": 3}) == DDGM(sigma_1=3.0)

    def test_an_unknown_method_is_refused_with_those_that_exist(self):
        with pytest.raises(DdgmError) as caught:
            make_method("ddgn", {})
        message = str(caught.value)
        assert "\n" not in message
        assert "'ddgn'" in message
        for name in METHODS:
            assert name in message

    @pytest.mark.parametrize(("name", "setting"), [("algebraic", "N"), ("ddgm", "lambda")])
    def test_an_unknown_setting_is_refused_with_those_that_exist(self, name, setting):
        with pytest.raises(DdgmError) as caught:
            make_method(name, {setting: 3})
        message = str(caught.value)
        assert "\n" not in message
        for word in (f"{setting} = 3 is unknown", name, "K", "step_size"):
            assert word in message

    @pytest.mark.parametrize("name", sorted(METHODS))
    @pytest.mark.parametrize("value", ["3", 2.5, 3.0, True, None, [3]])
    def test_a_setting_of_the_wrong_type_is_refused_by_name_and_value(self, name, value):
        if "K" not in METHODS[name].__dataclass_fields__:
            pytest.skip(f"{name} has no setting K")
        with pytest.raises(DdgmError) as caught:
            make_method(name, {"K": value})
        message = str(caught.value)
        assert "\n" not in message
        assert f"K = {value!r}" in message
        assert "int" in message

    @pytest.mark.parametrize("value", ["9e-5", False, None])
    def test_a_real_setting_of_the_wrong_type_is_refused_by_name_and_value(self, value):
        with pytest.raises(DdgmError) as caught:
            make_method("algebraic", {"step_size": value})
        assert f"step_size = {value!r}" in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "settings", "named"),
        [
            ("algebraic", {"K": 0}, "K = 0"),
            ("ddgm", {"K": -1}, "K = -1"),
            ("ddgm", {"N": 0}, "N = 0"),
            ("ddgm", {"sigma_N": 3.0}, "sigma_N = 3"),
            ("ddgm", {"sigma_1": 0.01}, "sigma_1 = 0.01"),
            ("ddgm", {"sigma_1": math.inf}, "sigma_1 = inf"),
            ("ddgm", {"sigma_N": math.nan}, "sigma_N = nan"),
        ],
    )
    def test_a_value_that_makes_no_sense_is_refused(self, name, settings, named):
        with pytest.raises(DdgmError) as caught:
            make_method(name, settings)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", sorted(METHODS))
    def test_every_method_says_what_it_needs(self, name):
        kind = METHODS[name]
        for need in ("needs_svd", "needs_network", "needs_network_gradient"):
            assert isinstance(getattr(kind, need), bool)
        assert kind.needs_network or not kind.needs_network_gradient

    def test_the_papers_methods_need_what_table_1_says(self):
        assert not METHODS["ddgm"].needs_svd
        assert METHODS["ddgm"].needs_network
        assert not METHODS["ddgm"].needs_network_gradient
        assert not METHODS["algebraic"].needs_network


def test_the_workflow_can_ask_about_methods_without_loading_torch():
    code = (
        "import sys, ddgm.methods; "
        "assert ddgm.methods.METHODS['ddgm'].needs_network; "
        "print(*{'torch', 'astra', 'lightning', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.strip() == ""
    assert done.stdout.strip() == ""
