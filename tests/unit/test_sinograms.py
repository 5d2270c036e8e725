import pytest
import torch

from ddgm.denoiser import Normalisation
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.noise import Purpose
from ddgm.projector import Projector
from ddgm.sinograms import SinogramSet, normalise_measurement, simulate


def test_without_noise_a_sinogram_is_the_projection(projector, images):
    sinograms = simulate(projector, images, noise_std=0.0, seed=1)
    assert torch.equal(sinograms, projector.forward(images))


def test_noise_is_additive_and_has_the_standard_deviation_asked_for(images):
    projector = Projector(TiltGeometry.limited_angle((16, 16), views=128, detector=64))
    noise = simulate(projector, images, noise_std=4.1, seed=1) - projector.forward(images)
    count = noise.numel()
    assert noise.mean().abs() < 5 * 4.1 / count**0.5
    assert noise.std() == pytest.approx(4.1, rel=5 / (2 * count) ** 0.5)
    each = noise.flatten(1).std(dim=1)
    assert ((each - 4.1).abs() < 0.2).all()


def test_the_noise_scales_with_its_standard_deviation(projector, images):
    clean = projector.forward(images)
    one = simulate(projector, images, noise_std=1.0, seed=3) - clean
    ten = simulate(projector, images, noise_std=10.0, seed=3) - clean
    torch.testing.assert_close(ten, 10 * one, rtol=1e-3, atol=1e-3)


def test_an_image_gets_the_same_sinogram_however_many_follow_it(projector, images):
    whole = simulate(projector, images, noise_std=2.0, seed=4)
    part = simulate(projector, images[:2], noise_std=2.0, seed=4)
    torch.testing.assert_close(part, whole[:2], rtol=1e-5, atol=1e-5)


def test_seeds_and_images_have_noise_of_their_own(projector, images):
    same = images[:1].expand(2, -1, -1)
    first = simulate(projector, same, noise_std=2.0, seed=4)
    second = simulate(projector, same, noise_std=2.0, seed=5)
    assert (first[0] - first[1]).std() > 1
    assert (first - second).std() > 1


def test_simulation_is_repeatable(projector, images):
    one = simulate(projector, images, noise_std=2.0, seed=4)
    assert torch.equal(one, simulate(projector, images, noise_std=2.0, seed=4))


def test_a_set_is_read_as_it_was_written(tmp_path, projector, images):
    made = SinogramSet(
        simulate(projector, images, noise_std=4.1, seed=1), projector.geometry, noise_std=4.1
    )
    made.save(tmp_path / "set.npz")
    again = SinogramSet.load(tmp_path / "set.npz")
    assert torch.equal(again.sinograms, made.sinograms)
    assert again.sinograms.dtype == torch.float32
    assert again.geometry == made.geometry
    assert again.noise_std == 4.1


@pytest.mark.parametrize("shape", [(3, 12, 15), (3, 16, 12), (12, 16), (2, 3, 12, 16)])
def test_sinograms_that_do_not_fit_the_geometry_are_refused(projector, shape):
    with pytest.raises(DdgmError) as caught:
        SinogramSet(torch.zeros(shape), projector.geometry, 1.0)
    assert str(shape) in str(caught.value)
    assert "(12, 16)" in str(caught.value)


def test_validation_and_test_measurements_have_different_noise(projector, images):
    sets = [
        simulate(projector, images, noise_std=1.0, seed=3, purpose=purpose)
        for purpose in (Purpose.VALIDATION_MEASUREMENT, Purpose.TEST_MEASUREMENT)
    ]
    assert (sets[0] - sets[1]).std() > 1.2


def test_a_measurement_of_grey_values_comes_into_the_units_of_the_network(projector, images):
    normalisation = Normalisation(mean=129.6, std=33.2)
    grey = normalisation.mean + normalisation.std * images
    found = normalise_measurement(projector, projector.forward(grey), normalisation)
    torch.testing.assert_close(found, projector.forward(images), rtol=1e-4, atol=2e-4)
