"""Runs of one measurement: how they are drawn, added up and kept."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from ddgm.calibration import Scored, coverage, dispersion
from ddgm.data_consistency import column_norms, residual, score_map
from ddgm.denoiser import Denoiser, DenoiserCard, Normalisation
from ddgm.errors import DdgmError
from ddgm.iterative import MatrixOperator
from ddgm.methods import DDGM, Algebraic, Evaluations
from ddgm.network import Architecture, UNet
from ddgm.posterior import Posterior, draw_posterior
from ddgm.reconstruction import reconstruct
from ddgm.sinograms import simulate

SIGMA_Y = 0.5


@pytest.fixture(scope="module")
def denoiser():
    """A small network with random weights: a fixed, nonlinear map."""
    architecture = Architecture(widths=(8, 8), convolutions=1)
    card = DenoiserCard(architecture, Normalisation(128.0, 30.0), 0.03, 30.0, 16.0)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        network = UNet(architecture)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return Denoiser(network.eval().requires_grad_(False), card)


@pytest.fixture
def ddgm(projector):
    return DDGM(N=4, K=2, step_size=0.5 * projector.max_step_size)


@pytest.fixture
def data(projector, images):
    return simulate(projector, images[:3], noise_std=SIGMA_Y, seed=2)


def test_mean_and_deviation_are_those_of_the_runs(projector, data, denoiser, ddgm):
    made = draw_posterior(
        ddgm, projector, data, denoiser, noise_std=SIGMA_Y, samples=6, kept=6, seed=3
    )
    assert made.runs.shape == (3, 6, 16, 16)
    assert made.samples == 6
    torch.testing.assert_close(made.mean, made.runs.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made.std, made.runs.std(1), rtol=1e-4, atol=1e-6)
    assert (made.std.mean(dim=(1, 2)) > 1e-3).all()
    left = residual(projector, made.mean, data, SIGMA_Y)
    torch.testing.assert_close(made.residual, left, rtol=1e-4, atol=1e-5)
    scores = score_map(projector, left, column_norms(projector))
    torch.testing.assert_close(made.consistency, scores, rtol=1e-4, atol=1e-5)
    errors = [
        (projector.forward(made.runs[at]) - data[at]).square().mean().item() for at in range(3)
    ]
    assert made.data_error.tolist() == pytest.approx(errors, rel=1e-4)
    assert made.evaluations == Evaluations(gradient=8, adjoint=1, network=4)
    assert (made.seconds > 0).all()


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_maps_do_not_depend_on_the_batch(projector, data, denoiser, ddgm, batch):
    def draw(size):
        return draw_posterior(
            ddgm,
            projector,
            data,
            denoiser,
            noise_std=SIGMA_Y,
            samples=5,
            kept=2,
            seed=3,
            batch=size,
        )

    whole, parts = draw(64), draw(batch)
    for name in ("mean", "std", "residual", "consistency", "runs", "data_error"):
        torch.testing.assert_close(
            getattr(parts, name), getattr(whole, name), rtol=1e-3, atol=1e-4, msg=name
        )


def test_the_first_run_is_the_reconstruction_and_more_samples_leave_it_as_it_is(
    projector, data, denoiser, ddgm
):
    alone = reconstruct(ddgm, projector, data, denoiser, seed=3, batch=3)
    few, many = (
        draw_posterior(
            ddgm, projector, data, denoiser, noise_std=SIGMA_Y, samples=count, kept=2, seed=3
        )
        for count in (2, 5)
    )
    torch.testing.assert_close(few.runs[:, 0], alone.images, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(many.runs, few.runs, rtol=1e-4, atol=1e-4)
    # No run is another's, of the same measurement or of another one.
    runs = many.runs.flatten(0, 1).flatten(1)
    assert torch.cdist(runs, runs).fill_diagonal_(math.inf).amin() > 0.1


@dataclass(frozen=True)
class ExactPosterior:
    """Draws from the posterior of x ~ N(0, C), with C⁻¹ + AᵀA/σ_y² = P: a perfect method."""

    covariance: torch.Tensor
    gain: torch.Tensor  # the posterior's mean is gain @ y

    needs_svd: ClassVar[bool] = False
    needs_network: ClassVar[bool] = True
    needs_network_gradient: ClassVar[bool] = False
    needs_noise_std: ClassVar[bool] = False

    def schedule(self):
        return ()

    def check(self, operator):
        pass

    def solve(self, problem):
        root = torch.linalg.cholesky(self.covariance)
        mean = problem.data.flatten(1).double() @ self.gain.T
        drawn = mean + problem.draw_noise().flatten(1).double() @ root.T
        return drawn.float().unflatten(1, problem.operator.image_shape)


@pytest.fixture(scope="module")
def gaussian():
    """A small problem with a Gaussian prior, of which everything is known."""
    generator = torch.Generator().manual_seed(5)
    shape, measured, count = (6, 6), 24, 300
    at = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in shape))
    prior = torch.exp(-torch.cdist(at, at).square() / 4) + 0.05 * torch.eye(36).double()
    matrix = torch.randn(measured, 36, generator=generator, dtype=torch.float64)
    marginal = matrix @ prior @ matrix.T + SIGMA_Y**2 * torch.eye(measured).double()
    gain = torch.linalg.solve(marginal, matrix @ prior).T
    covariance = prior - gain @ matrix @ prior
    truth = torch.randn(count, 36, generator=generator, dtype=torch.float64)
    truth = truth @ torch.linalg.cholesky(prior).T
    noise = torch.randn(count, measured, generator=generator, dtype=torch.float64)
    data = (truth @ matrix.T + SIGMA_Y * noise).float().unsqueeze(1)
    made = draw_posterior(
        ExactPosterior(covariance, gain),
        MatrixOperator(matrix.float(), shape),
        data,
        _Nothing(),
        noise_std=SIGMA_Y,
        samples=16,
        batch=500,
    )
    return made, truth.unflatten(1, shape), covariance, marginal, data.flatten(1).double() @ gain.T


class _Nothing:
    """In the place of a network that a method does not use."""

    card = None


def test_a_perfect_method_gives_the_known_mean_and_deviation(gaussian):
    made, _, covariance, _, mean = gaussian
    variance = covariance.diagonal()
    # Means of 16 runs are off by a quarter of a deviation; the mean of 300 variances is tight.
    off = (made.mean.flatten(1) - mean).square().mean(0)
    assert float((off / variance).mean()) == pytest.approx(1 / 16, rel=0.1)
    found = made.std.square().flatten(1).double().mean(0)
    assert float((found / variance - 1).abs().amax()) < 0.1


def test_a_perfect_method_is_found_calibrated(gaussian):
    made, truth, *_ = gaussian
    scored = Scored.of(made.mean.numpy(), made.std.numpy(), truth.numpy(), made.samples)
    ratio, error = dispersion(scored)
    assert ratio == pytest.approx(1.0, abs=4 * error)
    assert error < 0.02
    for row in coverage(scored).itertuples():
        assert row.share == pytest.approx(row.expected, abs=4 * row.share_se)
        assert row.share_se < 0.01


def test_residuals_of_a_posterior_mean_have_the_variance_that_is_known(gaussian):
    # y − A E[x|y] = σ_y² M⁻¹ y with y ~ N(0, M), hence its covariance is σ_y⁴ M⁻¹; the scatter of
    # the mean of 16 runs comes on top.
    made, _, _, marginal, _ = gaussian
    expected = SIGMA_Y**2 * torch.linalg.inv(marginal).trace() / len(marginal)
    assert 0.05 < expected < 0.6
    scatter = made.residual.square().mean() - expected
    assert 0 < scatter < 0.06
    assert float(made.residual.square().mean()) < 0.7


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": 1}, "samples = 1 must be at least 2"),
        ({"samples": 2, "kept": 3}, "kept = 3 must lie between 0 and samples = 2"),
        ({"noise_std": 0.0}, "noise_std = 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    projector, data, denoiser, ddgm, options, named, monkeypatch
):
    monkeypatch.setattr(DDGM, "solve", pytest.fail)
    with pytest.raises(DdgmError, match=named):
        draw_posterior(ddgm, projector, data, denoiser, **{"noise_std": SIGMA_Y, **options})


def test_a_method_without_randomness_or_without_its_network_is_refused(
    projector, data, denoiser, ddgm
):
    method = Algebraic(K=1, step_size=0.5 * projector.max_step_size)
    with pytest.raises(DdgmError, match="random method"):
        draw_posterior(method, projector, data, denoiser, noise_std=SIGMA_Y)
    with pytest.raises(DdgmError, match="network"):
        draw_posterior(ddgm, projector, data, noise_std=SIGMA_Y)
    with pytest.raises(DdgmError, match="no data"):
        draw_posterior(ddgm, projector, data[:0], denoiser, noise_std=SIGMA_Y)


def test_maps_are_read_as_they_were_written(tmp_path, projector, data, denoiser, ddgm):
    made = draw_posterior(ddgm, projector, data, denoiser, noise_std=SIGMA_Y, samples=2, kept=1)
    made.save(tmp_path / "made.npz")
    again = Posterior.load(tmp_path / "made.npz")
    for name, value in vars(made).items():
        other = getattr(again, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(other, value), name
            assert other.dtype == torch.float32
        else:
            assert other == value, name


def test_progress_counts_runs(projector, data, denoiser, ddgm, capsys):
    draw_posterior(
        ddgm, projector, data, denoiser, noise_std=SIGMA_Y, samples=4, batch=5, progress=True
    )
    assert "12/12" in capsys.readouterr().err
