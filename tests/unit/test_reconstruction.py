import math
import time

import pytest
import torch

from ddgm.denoiser import Denoiser, DenoiserCard, Normalisation
from ddgm.devices import pick_device
from ddgm.errors import DdgmError
from ddgm.methods import DDGM, Algebraic, Evaluations, Proximal, check_noise_levels
from ddgm.network import Architecture, UNet
from ddgm.reconstruction import Reconstruction, reconstruct
from ddgm.sinograms import simulate


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
def data(projector, images):
    return simulate(projector, images, noise_std=1.0, seed=2)


@pytest.fixture
def ddgm(projector):
    return DDGM(N=4, K=2, step_size=0.9 * projector.max_step_size)


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_the_result_does_not_depend_on_the_batch_size(projector, data, denoiser, ddgm, batch):
    whole = reconstruct(ddgm, projector, data, denoiser, seed=3, batch=5)
    parts = reconstruct(ddgm, projector, data, denoiser, seed=3, batch=batch)
    assert parts.images.shape == (5, 16, 16)
    torch.testing.assert_close(parts.images, whole.images, rtol=1e-4, atol=1e-4)
    assert parts.evaluations == whole.evaluations == Evaluations(gradient=8, adjoint=1, network=4)


def test_a_run_is_repeatable_and_its_seed_matters(projector, data, denoiser, ddgm):
    one = reconstruct(ddgm, projector, data, denoiser, seed=3)
    same = reconstruct(ddgm, projector, data, denoiser, seed=3)
    other = reconstruct(ddgm, projector, data, denoiser, seed=4)
    assert torch.equal(one.images, same.images)
    assert ((one.images - other.images).flatten(1).std(dim=1) > 1e-3).all()


def test_images_with_the_same_data_get_noise_of_their_own(projector, data, denoiser, ddgm):
    twice = data[:1].expand(2, -1, -1)
    first, second = reconstruct(ddgm, projector, twice, denoiser, seed=3).images
    assert (first - second).std() > 1e-3


def test_the_algebraic_method_ignores_seed_and_network(projector, data, denoiser):
    method = Algebraic(K=5, step_size=0.9 * projector.max_step_size)
    plain = reconstruct(method, projector, data, seed=1)
    assert torch.equal(plain.images, reconstruct(method, projector, data, denoiser, seed=2).images)
    assert plain.evaluations == Evaluations(gradient=5, adjoint=1)


def test_the_algebraic_method_explains_its_data_better_than_nothing(projector, images):
    data = simulate(projector, images, noise_std=0.1, seed=2)
    method = Algebraic(K=100, step_size=0.9 * projector.max_step_size)
    result = reconstruct(method, projector, data)
    residual = projector.forward(result.images) - data
    assert residual.square().mean() < 0.02 * data.square().mean()
    assert (result.images - images).square().mean() < 0.6 * images.square().mean()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sigma_1": 31.0}, ("sigma_1", "31", "0.03", "30")),
        ({"sigma_N": 0.02}, ("sigma_N", "0.02", "0.03", "30")),
    ],
)
def test_noise_levels_the_network_was_not_trained_on_are_refused(
    projector, data, denoiser, settings, named
):
    method = DDGM(N=2, K=1, step_size=1e-4, **settings)
    with pytest.raises(DdgmError) as caught:
        reconstruct(method, projector, data, denoiser)
    for word in named:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_ends_of_the_trained_range_are_allowed(denoiser):
    card = denoiser.card
    check_noise_levels(DDGM(sigma_1=30.0, sigma_N=0.03), card.sigma_min, card.sigma_max)


def test_a_method_with_a_prior_is_refused_without_a_network(projector, data, ddgm):
    with pytest.raises(DdgmError, match="network"):
        reconstruct(ddgm, projector, data)


def test_a_step_size_above_the_limit_is_refused_before_any_work(projector, data):
    limit = projector.max_step_size
    with pytest.raises(DdgmError, match=f"{limit:.3g}"):
        reconstruct(Algebraic(step_size=1.01 * limit), projector, data)


def test_data_that_are_not_finite_are_refused(projector, data):
    data[4, 0, 0] = math.nan
    with pytest.raises(DdgmError, match="not finite"):
        reconstruct(Algebraic(K=1, step_size=1e-4), projector, data, batch=2)


def test_a_reconstruction_is_read_as_it_was_written(tmp_path):
    work = Evaluations(gradient=12, adjoint=1, network=3, network_gradient=2)
    made = Reconstruction(torch.randn(3, 4, 5), torch.rand(3), torch.rand(3), work)
    made.save(tmp_path / "made.npz")
    again = Reconstruction.load(tmp_path / "made.npz")
    assert torch.equal(again.images, made.images)
    assert again.images.dtype == torch.float32
    assert torch.equal(again.data_error, made.data_error)
    assert torch.equal(again.seconds, made.seconds)
    assert again.evaluations == made.evaluations


@pytest.mark.parametrize("batch", [2, 5])
def test_each_image_comes_with_its_data_error_and_time(projector, data, denoiser, ddgm, batch):
    made = reconstruct(ddgm, projector, data, denoiser, batch=batch)
    residual = projector.forward(made.images).double() - data.double()
    assert made.data_error.tolist() == pytest.approx(
        residual.square().mean(dim=(1, 2)).tolist(), rel=1e-4
    )
    assert made.data_error.dtype == made.seconds.dtype == torch.float32
    assert made.seconds.shape == (5,)
    assert (made.seconds > 0).all()
    # Images of a batch share its time.
    assert (made.seconds[:batch] == made.seconds[0]).all()


def test_seconds_are_those_of_one_image(projector, data, denoiser, ddgm):
    started = time.perf_counter()
    made = reconstruct(ddgm, projector, data, denoiser, batch=5)
    assert made.seconds.sum() <= time.perf_counter() - started


@pytest.mark.parametrize("noise_std", [None, 0.0, -1.0, math.nan])
def test_a_method_that_weighs_by_the_noise_is_refused_without_it(
    projector, data, denoiser, noise_std
):
    with pytest.raises(DdgmError, match="noise_std") as caught:
        reconstruct(Proximal(), projector, data, denoiser, noise_std=noise_std)
    assert "\n" not in str(caught.value)


def test_what_reconstruct_made_can_be_written(tmp_path, projector, data, denoiser, ddgm):
    made = reconstruct(ddgm, projector, data, denoiser)
    made.save(tmp_path / "made.npz")
    assert torch.equal(Reconstruction.load(tmp_path / "made.npz").images, made.images)


def test_a_gpu_is_picked_only_where_there_is_one():
    assert pick_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert pick_device("auto").type == pick_device("cuda").type == "cuda"
    else:
        assert pick_device("auto").type == "cpu"
        with pytest.raises(DdgmError, match="GPU"):
            pick_device("cuda")


def test_progress_shows_images_and_evaluations(projector, data, denoiser, ddgm, capsys):
    reconstruct(ddgm, projector, data, denoiser, batch=2, progress=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "4 network evaluations" in shown
    reconstruct(ddgm, projector, data, denoiser)
    assert capsys.readouterr().err == ""
