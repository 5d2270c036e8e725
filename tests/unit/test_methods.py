import dataclasses
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from ddgm.eigenbasis import Eigenbasis, decompose
from ddgm.engine import make_operator
from ddgm.errors import DdgmError, DivergenceError
from ddgm.fused import FusedOperator
from ddgm.geometry import TiltGeometry
from ddgm.iterative import MatrixOperator
from ddgm.methods import (
    DDGM,
    DDRM,
    DDS,
    DPS,
    METHODS,
    Algebraic,
    Evaluations,
    Generation,
    Problem,
    Proximal,
    make_method,
)
from ddgm.network import Architecture, UNet
from ddgm.noise import ImageNoise
from ddgm.projector import Projector, system_matrix
from ddgm.schedules import exponential_decay

OWN_SMALL = {"ddrm": {"N": 4, "eta": 0.85}, "dps": {"N": 14}, "proximal": {"N": 4, "eta": 0.5}}


def small_settings(name):
    """Return settings for a quick run of a method, its own or those that most of them know."""
    common = {"N": 4, "K": 3, "step_size": 1e-4}
    fields = {field.name for field in dataclasses.fields(METHODS[name])}
    return OWN_SMALL.get(name, {key: common[key] for key in common if key in fields})


SMALL = {name: small_settings(name) for name in sorted(METHODS)}
WITH_NETWORK = [name for name in SMALL if METHODS[name].needs_network]


@pytest.fixture(scope="module")
def dense():
    """A dense, well-conditioned operator on 4 × 5 pixels: methods need nothing but the contract."""
    return MatrixOperator(normal(72, 20, seed=1), (4, 5))


@pytest.fixture(scope="module")
def fused(projector):
    """The projector with its eigenbasis, as every method can use it."""
    matrix = system_matrix(projector.geometry)
    return FusedOperator(projector, decompose(matrix, (16, 16), symmetric=True))


def small_problem(operator, denoiser=torch.tanh, count=3, seed=4, first=0):
    """Return a measurement of images `first` to `first + count`, with their noise."""
    data = 5 * normal(5, *operator.data_shape, seed=9)[first : first + count]
    noise = ImageNoise(seed, range(first, first + count), operator.image_shape)
    return Problem(operator, data, denoiser, noise, 1.0)


class RememberingNoise(ImageNoise):
    """Noise that can tell what it drew, so that a test can be the perfect denoiser."""

    last = None

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
    def test_many_steps_approach_the_least_squares_solution(self, dense):
        operator, data = dense, normal(3, *dense.data_shape)
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

    def test_a_step_above_the_limit_is_refused_by_its_check(self, projector):
        limit = projector.max_step_size
        Algebraic(step_size=0.99 * limit).check(projector)
        with pytest.raises(DdgmError, match=f"{limit:.3g}"):
            Algebraic(step_size=1.01 * limit).check(projector)

    def test_a_descent_that_diverges_is_refused_with_its_steps(self, projector):
        problem = Problem(projector, normal(1, *projector.data_shape))
        method = Algebraic(60, 20 * projector.max_step_size)
        with pytest.raises(DivergenceError, match=r"algebraic, within 60 steps: .*diverges"):
            method.solve(problem)


class TestDDGM:
    def test_a_perfect_denoiser_makes_it_the_algebraic_method(self, projector):
        data = 10 * normal(3, *projector.data_shape)
        step_size = 0.9 * projector.max_step_size
        noise = RememberingNoise(4, range(3), projector.image_shape)
        problem = Problem(projector, data, lambda image: noise.last, noise)
        found = DDGM(N=6, K=4, step_size=step_size).solve(problem)
        expected = Algebraic(24, step_size).solve(Problem(projector, data))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)

    def test_it_is_algorithm_1_step_by_step(self, dense):
        # A second writing of Algorithm 1, on float64 matrices.
        operator, data = dense, 5 * normal(2, *dense.data_shape)
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

    def test_the_paper_spends_2250_gradients_and_150_networks(self):
        method = DDGM()
        assert (method.N * method.K, method.N) == (2250, 150)
        assert method.schedule() == exponential_decay(3.0, 0.03, 150)

    def test_a_step_above_the_limit_is_refused_by_its_check(self, projector):
        limit = projector.max_step_size
        DDGM(step_size=0.99 * limit).check(projector)
        with pytest.raises(DdgmError, match=f"{limit:.3g}"):
            DDGM(step_size=1.01 * limit).check(projector)


class TestDDRM:
    def test_it_is_its_equations_7_and_8(self):
        # One coefficient a case, in an operator that is diagonal: measured better than both levels
        # 4 and 1, than the first, than none (with noise 2/s = 0.4, 2, 6.7); below 1/4; not at all.
        s, y = np.array([5.0, 1.0, 0.3, 0.1, 0.0]), np.array([3.0, -2.0, 1.5, 0.7, 1.0])
        plain = MatrixOperator(torch.diag(torch.tensor(s)).float(), (1, 5))
        basis = Eigenbasis((1, 5), (torch.eye(5),), torch.tensor(s**2))
        noise = ImageNoise(2, [0], (1, 5))
        data = torch.tensor(y).float().reshape(1, 1, 5)
        method = DDRM(N=2, eta=0.6, eta_b=0.7, sigma_1=4.0, sigma_N=1.0)
        problem = Problem(FusedOperator(plain, basis), data, torch.tanh, noise, 2.0)
        found = method.solve(problem).flatten().numpy()

        noise = ImageNoise(2, [0], (1, 5))
        first, second = (noise.draw().flatten().double().numpy() for _ in range(2))
        x = 4 * first
        x[0] = 3 / 5 + math.sqrt(16 - 0.4**2) * first[0]
        x[1] = -2 / 1 + math.sqrt(16 - 2**2) * first[1]
        d = x - 4 * np.tanh(x)
        x = np.array(
            [
                0.3 * d[0] + 0.7 * 3 / 5 + math.sqrt(1 - 0.7**2 * 0.4**2) * second[0],
                d[1] + 0.8 * (-2 / 1 - d[1]) / 2 + 0.6 * second[1],
                d[2] + 0.8 * (1.5 / 0.3 - d[2]) / (2 / 0.3) + 0.6 * second[2],
                d[3] + 0.8 * (x[3] - d[3]) / 4 + 0.6 * second[3],
                d[4] + 0.8 * (x[4] - d[4]) / 4 + 0.6 * second[4],
            ]
        )
        np.testing.assert_allclose(found, x - np.tanh(x), rtol=0, atol=1e-5)

    def test_an_operator_without_eigenbasis_is_refused_with_what_to_use(self, projector, fused):
        DDRM().check(fused)
        with pytest.raises(DdgmError) as caught:
            DDRM().check(projector)
        message = str(caught.value)
        assert "\n" not in message
        for word in ("ddrm", "SVD", "16 × 16", "ddgm", "proximal"):
            assert word in message


class TestDDS:
    @pytest.mark.parametrize("eta", [0.0, 0.6])
    def test_it_is_the_best_of_a_krylov_subspace_and_ddim(self, dense, eta):
        # Two steps, written down as what they reach: the least error in the norm of
        # H = γ/σ_y² AᵀA + 1 among d + a r + b H r, where r = γ/σ_y² Aᵀ(y − A d).
        method = DDS(N=3, M=2, gamma=0.3, eta=eta, sigma_1=3.0, sigma_N=0.03)
        found = method.solve(small_problem(dense))
        noise, A = ImageNoise(4, range(3), (4, 5)), dense.matrix.double()
        y = small_problem(dense).data.flatten(1).double()
        H = 0.3 * A.T @ A + torch.eye(20).double()
        x = 3.0 * noise.draw().flatten(1).double()
        for sigma, lower in itertools.pairwise((*exponential_decay(3.0, 0.03, 3), 0.0)):
            predicted = torch.tanh(x)
            d = x - sigma * predicted
            r = 0.3 * (y - d @ A.T) @ A
            krylov = torch.stack([r, r @ H], dim=2)
            parts = torch.linalg.solve(krylov.mT @ H @ krylov, krylov.mT @ r.unsqueeze(2))
            x = d + (krylov @ parts).squeeze(2)
            if lower:
                x = x + lower * math.sqrt(1 - eta**2) * predicted
                x = x + lower * eta * noise.draw().flatten(1).double() if eta else x
        torch.testing.assert_close(found.flatten(1).double(), x, rtol=0, atol=1e-3)

    def test_where_nothing_is_measured_nothing_is_divided_by_nothing(self):
        operator = MatrixOperator(torch.zeros(1, 4), (2, 2))
        noise = ImageNoise(4, range(3), (2, 2))
        problem = Problem(operator, torch.zeros(3, 1, 1), torch.zeros_like, noise, 1.0)
        start = 6.0 * ImageNoise(4, range(3), (2, 2)).draw()
        torch.testing.assert_close(DDS(N=4, eta=0.0).solve(problem), start)

    @pytest.mark.parametrize(
        ("setting", "value"), [("M", 0), ("gamma", 0.0), ("gamma", math.inf), ("eta", 1.1)]
    )
    def test_settings_without_sense_are_refused(self, setting, value):
        with pytest.raises(DdgmError, match=f"{setting} = {value}"):
            DDS(**{setting: value})


class TestDPS:
    @pytest.mark.parametrize("rescaled", [False, True])
    def test_it_is_equation_5_or_6_with_the_gradient_of_autograd(self, fused, rescaled):
        torch.manual_seed(1)
        network = UNet(Architecture((8, 8), 1)).requires_grad_(False)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        method = DPS(N=14, zeta=0.3, rescaled=rescaled)
        problem = small_problem(fused, network)
        with torch.no_grad():
            found = method.solve(problem)

        noise = ImageNoise(4, range(3), (16, 16))
        x = 3.0 * noise.draw()
        for sigma in exponential_decay(3.0, 0.03, 14):
            x = x.requires_grad_()
            predicted = network(x)
            # Images of a batch do not mix, so that the sum has the gradients of all.
            squares = (fused.forward(x - sigma * predicted) - problem.data).square().sum((1, 2))
            slope = torch.autograd.grad(squares.sum(), x)[0]
            slope = slope / squares.detach().sqrt()[:, None, None]
            if rescaled:
                slope = slope / math.sqrt(1 + sigma**2)
            x, predicted = x.detach(), predicted.detach()
            anew = math.sqrt(method.alpha * 0.5) * sigma * noise.draw()
            x = x - method.alpha * sigma * predicted + anew - 0.3 * slope
        assert (found - x).norm() < 1e-3 * x.norm()

    def test_the_first_steps_of_equations_5_and_6_differ_by_the_scale_of_the_noise(self, fused):
        def second_image(**settings):
            seen = []

            def record(image):
                seen.append(image.detach())
                return torch.tanh(image)

            DPS(N=14, **settings).solve(small_problem(fused, record))
            return seen[1]

        free = second_image(zeta=0.0)
        plain, scaled = (second_image(zeta=0.5, rescaled=each) - free for each in (False, True))
        assert plain.norm() > 1
        torch.testing.assert_close(plain, math.sqrt(1 + 3.0**2) * scaled, rtol=1e-3, atol=1e-4)


class TestGeneration:
    def test_it_is_equation_2(self, fused):
        found = Generation(N=3).solve(small_problem(fused))
        noise = ImageNoise(4, range(3), (16, 16))
        x = 30.0 * noise.draw()
        for n in range(3):
            sigma = 30.0 * ((1 - 0.183) ** 2 + 0.183 * 0.5) ** (n / 2)
            x = x - 0.183 * sigma * torch.tanh(x)
            x = x + math.sqrt(0.183 * 0.5) * sigma * noise.draw()
        torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-4)


class TestProximal:
    @pytest.mark.parametrize("eta", [0.0, 0.6])
    def test_it_is_its_definition(self, dense, eta):
        # In closed form: (AᵀA + w) x = Aᵀy + w (d − ησε), w = c σ_y²/σ², and + ησε afterwards.
        method = Proximal(N=3, c=0.5, eta=eta, sigma_1=3.0, sigma_N=0.03)
        found = method.solve(small_problem(dense))
        noise, A = ImageNoise(4, range(3), (4, 5)), dense.matrix.double()
        y = small_problem(dense).data.flatten(1).double()
        levels = (*exponential_decay(3.0, 0.03, 3), 0.0)
        x = 3.0 * noise.draw().flatten(1).double()
        for sigma, lower in itertools.pairwise(levels):
            fresh = eta * lower * noise.draw().flatten(1).double() if eta * lower else 0.0
            weight = 0.5 * 1.0**2 / sigma**2
            right = y @ A + weight * (x - sigma * torch.tanh(x) - fresh)
            x = torch.linalg.solve(A.T @ A + weight * torch.eye(20).double(), right.T).T + fresh
        torch.testing.assert_close(found.flatten(1).double(), x, rtol=0, atol=2e-3)

    def test_fresh_noise_stays_out_of_what_is_not_measured(self):
        # Two measured pixels of four: in the others x is the denoised image, whatever η.
        operator = MatrixOperator(torch.eye(4)[:2], (2, 2))
        noise = ImageNoise(4, range(3), (2, 2))
        problem = Problem(operator, torch.ones(3, 1, 2), torch.zeros_like, noise, 1.0)
        found = Proximal(N=4, eta=1.0).solve(problem).flatten(1)
        start = 6.0 * ImageNoise(4, range(3), (2, 2)).draw().flatten(1)
        torch.testing.assert_close(found[:, 2:], start[:, 2:])
        assert (found[:, :2] - start[:, :2]).abs().min() > 0.01

    @pytest.mark.parametrize("noise_std", [None, 0.0, -1.0])
    def test_it_is_refused_without_the_noise_of_the_data(self, fused, noise_std):
        known = small_problem(fused)
        noise = ImageNoise(0, range(3), (16, 16))
        problem = Problem(fused, known.data, torch.tanh, noise, noise_std)
        with pytest.raises(DdgmError, match="noise_std") as caught:
            Proximal().solve(problem)
        assert "\n" not in str(caught.value)

    def test_in_loops_it_counts_its_gradients(self, projector):
        problem = small_problem(projector)
        Proximal(N=4).solve(problem)
        assert 8 <= problem.evaluations.gradient <= 4 * 51


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("algebraic", Evaluations(gradient=3, adjoint=1)),
        ("ddgm", Evaluations(gradient=12, adjoint=1, network=4)),
        ("ddrm", Evaluations(adjoint=1, network=4)),
        ("dds", Evaluations(gradient=4 * 6, network=4)),
        ("dps", Evaluations(gradient=14, network=14, network_gradient=14)),
        ("generation", Evaluations(network=4)),
        ("proximal", Evaluations(adjoint=1, network=4)),
    ],
)
def test_work_is_counted_exactly(fused, name, expected):
    problem = small_problem(fused)
    make_method(name, SMALL[name]).solve(problem)
    assert problem.evaluations == expected


@pytest.mark.parametrize("name", SMALL)
def test_a_method_spends_what_it_says_it_needs(projector, fused, name):
    method = make_method(name, SMALL[name])
    problem = small_problem(fused if method.needs_svd else projector)
    method.solve(problem)
    spent = problem.evaluations
    assert spent.network == len(method.schedule())  # what limits on evaluations go by
    assert (spent.network > 0) == method.needs_network
    assert (spent.network_gradient > 0) == method.needs_network_gradient
    if not method.needs_noise_std:
        noise = ImageNoise(4, range(3), problem.operator.image_shape)
        method.solve(Problem(problem.operator, problem.data, torch.tanh, noise))


@pytest.mark.parametrize("name", SMALL)
def test_a_result_depends_on_the_seed_alone_and_not_on_the_batch(fused, name):
    method = make_method(name, SMALL[name])
    whole = method.solve(small_problem(fused, count=3))
    assert whole.shape == (3, 16, 16)
    assert torch.equal(method.solve(small_problem(fused, count=3)), whole)
    alone = [method.solve(small_problem(fused, count=1, first=each)) for each in range(3)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_another_seed_gives_another_result_where_noise_is_drawn(fused, name):
    data, found, drawn = small_problem(fused).data, [], []
    for seed in (4, 5):
        noise = RememberingNoise(seed, range(3), fused.image_shape)
        problem = Problem(fused, data, torch.tanh, noise, 1.0)
        found.append(make_method(name, SMALL[name]).solve(problem))
        drawn.append(noise.last is not None)
    assert drawn[0] == drawn[1]
    spread = (found[0] - found[1]).flatten(1).std(dim=1)
    assert (spread > 1e-2).all() if drawn[0] else (spread == 0).all()


@pytest.mark.parametrize("name", WITH_NETWORK)
@pytest.mark.parametrize("factor", [math.nan, 1e6])
def test_a_broken_network_stops_a_method_with_iteration_and_noise_level(fused, name, factor):
    calls = []

    def breaks_at_the_second_call(image):
        calls.append(1)
        return factor * image if len(calls) == 2 else torch.tanh(image)

    method = make_method(name, SMALL[name])
    with pytest.raises(DdgmError) as caught:
        method.solve(small_problem(fused, breaks_at_the_second_call))
    message = str(caught.value)
    assert message.startswith(f"{name}, iteration 2 of {len(method.schedule())}")
    assert f"noise level {method.schedule()[1]:.3g}:" in message
    assert "\n" not in message
    assert len(calls) == 2


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_without_network_or_noise_a_method_says_what_it_needs(fused, name):
    method, data = make_method(name, SMALL[name]), small_problem(fused).data
    noise = RememberingNoise(1, range(3), fused.image_shape)
    with pytest.raises(DdgmError, match="network"):
        method.solve(Problem(fused, data, None, noise, 1.0))
    method.solve(Problem(fused, data, torch.tanh, noise, 1.0))
    if noise.last is not None:
        with pytest.raises(DdgmError, match="noise"):
            method.solve(Problem(fused, data, torch.tanh, None, 1.0))


class TestProblem:
    def test_the_gradient_is_that_of_half_the_squared_residual(self, dense):
        data = normal(2, *dense.data_shape)
        x = normal(2, 4, 5, seed=5).requires_grad_()
        (0.5 * (dense.forward(x) - data).square().sum()).backward()
        problem = Problem(dense, data)
        gradient, error = problem.residual_gradient(x.detach())
        torch.testing.assert_close(gradient, x.grad, rtol=1e-5, atol=1e-4)
        expected = torch.linalg.vector_norm(dense.forward(x.detach()) - data, dim=(1, 2))
        torch.testing.assert_close(error.flatten(), expected)
        assert problem.evaluations == Evaluations(gradient=1)

    def test_a_descent_takes_the_steps_of_that_gradient(self, dense):
        problem = Problem(dense, normal(2, *dense.data_shape))
        start, step_size = normal(2, 4, 5, seed=5), 0.3 * dense.max_step_size
        expected = start
        for _ in range(3):
            expected = expected - step_size * problem.residual_gradient(expected)[0]
        found = problem.descend(start, step_size, 3)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert problem.evaluations == Evaluations(gradient=6, adjoint=1)

    def test_the_proximal_step_has_no_gradient_left(self, dense):
        problem, start = Problem(dense, normal(2, *dense.data_shape)), normal(2, 4, 5, seed=5)
        found = problem.proximal(start, 30.0)
        before = problem.residual_gradient(start)[0].norm()
        left = problem.residual_gradient(found)[0] + 30.0 * (found - start)
        assert left.norm() < 2e-3 * before

    def test_the_adjoint_of_the_data_is_computed_once(self, dense):
        problem = Problem(dense, normal(2, *dense.data_shape))
        torch.testing.assert_close(problem.right_side, dense.adjoint(problem.data))
        assert problem.right_side is problem.right_side
        assert problem.evaluations == Evaluations(adjoint=1)

    def test_the_pullback_is_the_transposed_derivative_of_the_network(self, dense):
        problem, image = small_problem(dense), normal(3, 4, 5, seed=5)
        vector = normal(3, 4, 5, seed=6)
        with torch.no_grad():
            noise, pullback = problem.predict_noise_with_pullback(image)
            found = pullback(vector)
        assert not noise.requires_grad
        torch.testing.assert_close(noise, torch.tanh(image))
        torch.testing.assert_close(found, vector * (1 - torch.tanh(image) ** 2))
        assert problem.evaluations == Evaluations(network=1, network_gradient=1)

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

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            (name, field.name)
            for name, kind in METHODS.items()
            for field in dataclasses.fields(kind)
            if field.type == "int"
        ],
    )
    @pytest.mark.parametrize("value", ["3", 2.5, 3.0, True, None, [3]])
    def test_a_setting_of_the_wrong_type_is_refused_by_name_and_value(self, name, key, value):
        with pytest.raises(DdgmError) as caught:
            make_method(name, {key: value})
        message = str(caught.value)
        assert "\n" not in message
        assert f"{key} = {value!r}" in message
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
            ("ddrm", {"eta": 1.5}, "eta = 1.5"),
            ("ddrm", {"eta": -0.1}, "eta = -0.1"),
            ("ddrm", {"eta": math.nan}, "eta = nan"),
            ("ddrm", {"eta_b": 1.1}, "eta_b = 1.1"),
            ("ddrm", {"N": 0}, "N = 0"),
            ("dps", {"zeta": -0.1}, "zeta = -0.1"),
            ("dps", {"zeta": math.nan}, "zeta = nan"),
            ("dps", {"beta": 1.5}, "beta = 1.5"),
            ("dps", {"rescaled": 1}, "rescaled = 1"),
            # Eq. 2 at its fastest, α = 3/4, leaves 7/16 of the variance: 3 (7/16)^(12/2) = 0.021.
            ("dps", {"N": 12}, "at least 13"),
            ("generation", {"alpha": 1.6}, "alpha = 1.6"),
            ("generation", {"N": 0}, "N = 0"),
            ("proximal", {"c": 0.0}, "c = 0"),
            ("proximal", {"c": -1.0}, "c = -1"),
            ("proximal", {"c": math.nan}, "c = nan"),
            ("proximal", {"eta": 1.1}, "eta = 1.1"),
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
        for need in ("needs_svd", "needs_network", "needs_network_gradient", "needs_noise_std"):
            assert isinstance(getattr(kind, need), bool)
        assert kind.needs_network or not kind.needs_network_gradient

    @pytest.mark.parametrize("name", sorted(METHODS))
    def test_every_method_has_defaults_and_plain_settings(self, name):
        method = make_method(name, {})
        settings = dataclasses.asdict(method)
        assert {type(value) for value in settings.values()} <= {int, float, bool}
        assert make_method(name, json.loads(json.dumps(settings))) == method

    def test_the_papers_methods_need_what_table_1_says(self):
        needs = {
            name: (kind.needs_svd, kind.needs_network_gradient) for name, kind in METHODS.items()
        }
        assert needs["ddrm"] == (True, False)
        assert needs["dps"] == (False, True)
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


def test_an_image_is_said_to_take_what_that_with_most_work_took():
    first, second = Evaluations(gradient=5, network=2), Evaluations(gradient=3, network=4)
    assert first.most(second) == Evaluations(gradient=5, network=4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@pytest.mark.parametrize("name", SMALL)
def test_a_gpu_gives_the_images_of_the_cpu(tmp_path, name):
    geometry = TiltGeometry.limited_angle((16, 16), views=12)
    found = []
    for device in ("cpu", "cuda"):
        operator = make_operator(geometry, device, cache=tmp_path / device)
        data = 5 * normal(3, *operator.data_shape, seed=9).to(device)
        noise = ImageNoise(4, range(3), (16, 16), device)
        with torch.no_grad():
            problem = Problem(operator, data, torch.tanh, noise, 1.0)
            found.append(make_method(name, SMALL[name]).solve(problem))
    assert found[1].device.type == "cuda"
    torch.testing.assert_close(found[1].cpu(), found[0], rtol=1e-3, atol=1e-3)
