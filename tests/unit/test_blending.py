"""Blended denoising: nothing is lost or counted twice, at any size."""

import itertools

import numpy as np
import pytest
import torch

from ddgm.blending import BlendedDenoiser, bump, divide_axis, patch_starts
from ddgm.denoiser import load_denoiser
from ddgm.errors import DdgmError, SettingError
from ddgm.iterative import MatrixOperator
from ddgm.methods import DPS, Generation, Problem
from ddgm.noise import ImageNoise

SIZES = [1, 2, 15, 16, 31, 32, 33, 47, 56, 57, 80, 100]


class Recorder:
    """A network that notes what it is given and returns it."""

    def __init__(self):
        self.shapes = []

    def __call__(self, image):
        self.shapes.append(tuple(image.shape))
        return image


def blended(network, **settings):
    return BlendedDenoiser(network, **{"patch": 32, "stride": 24, "batch": 4, **settings})


def test_the_bump_is_that_of_the_paper_turned_right_way_up():
    weights = bump(128)
    u = (np.arange(128) + 0.5) / 64 - 1
    np.testing.assert_allclose(weights, np.exp(-1 / np.maximum(1 - u**2, 0.2)))
    assert weights[63] == pytest.approx(np.exp(-1), rel=1e-3)
    assert weights[0] == weights[127] == pytest.approx(np.exp(-5))
    assert (np.diff(weights[:64]) >= 0).all()


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize(("patch", "stride"), [(32, 24), (32, 32), (32, 1), (16, 5)])
def test_patches_cover_an_axis_and_their_weights_sum_to_one(length, patch, stride):
    axis = divide_axis(length, patch, stride)
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        total[start : start + axis.size] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.starts[-1] + axis.size == length
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(axis.starts))


def test_the_papers_slab_takes_as_many_patches_as_it_must():
    assert patch_starts(1568, 128, 96) == tuple(range(0, 1441, 96))
    assert patch_starts(128, 128, 96) == (0,)
    assert patch_starts(129, 128, 96) == (0, 1)


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("columns", [1, 17, 32, 33, 80, 131])
def test_the_identity_reproduces_its_input_at_every_size(rows, columns):
    image = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(rows))
    result = blended(lambda patches: patches)(image)
    torch.testing.assert_close(result, image, rtol=1e-6, atol=1e-6)


def test_an_image_of_one_patch_is_the_networks_own():
    image = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blended(torch.sin)(image), torch.sin(image))


def test_the_network_sees_full_batches_of_its_own_size_and_no_larger_ones():
    network = Recorder()
    blended(network)(torch.zeros(3, 32, 210))
    assert set(network.shapes) == {(4, 32, 32), (3, 32, 32)}  # 27 patches, of all images in turn
    small = Recorder()
    blended(small)(torch.zeros(1, 20, 200))
    assert {shape[1:] for shape in small.shapes} == {(32, 32)}  # the next multiple of 16


def test_the_result_does_not_depend_on_the_batch():
    image = torch.randn(3, 40, 100, generator=torch.Generator().manual_seed(1))
    denoiser = load_denoiser("fib25-16nm")
    one, many = (
        BlendedDenoiser.of(denoiser, patch=32, stride=24, batch=batch)(image) for batch in (1, 16)
    )
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)
    alone = BlendedDenoiser.of(denoiser, patch=32, stride=24)(image[1:2])
    torch.testing.assert_close(alone, one[1:2], rtol=1e-4, atol=1e-5)


def test_a_seam_of_the_patches_is_blended_away():
    def of_patches(patches):  # each patch is constant, and unlike its neighbours
        return patches.mean(dim=(1, 2), keepdim=True).expand_as(patches)

    slope = torch.arange(200.0).repeat(32, 1).unsqueeze(0)
    result = blended(of_patches)(slope)[0, 0]
    assert result.diff().abs().max() < 24 / 4  # without blending it jumps by a stride


def test_gradients_pass_through():
    image = torch.randn(1, 33, 50, requires_grad=True)
    blended(lambda patches: 3 * patches)(image).sum().backward()
    torch.testing.assert_close(image.grad, torch.full_like(image, 3.0))


def test_methods_run_on_images_that_are_no_patch():
    denoiser = BlendedDenoiser.of(load_denoiser("fib25-16nm"), patch=32, stride=24)
    shape = (20, 50)
    operator = MatrixOperator(torch.eye(1000)[::2].contiguous(), shape)
    problem = Problem(operator, torch.zeros(1, 1, 500), denoiser, ImageNoise(0, [0], shape))
    with torch.no_grad():
        assert Generation(N=2).solve(problem).shape == (1, *shape)
        assert DPS(N=13).solve(problem).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"patch": 40}, "patch = 40 must be a positive multiple of the network's 16"),
        ({"stride": 33}, "stride = 33 must lie between 1 and the patch size 32"),
        ({"stride": 0}, "stride = 0"),
        ({"batch": 0}, "batch = 0 of patches must be at least 1"),
    ],
)
def test_settings_that_will_not_do_are_named(settings, complaint):
    with pytest.raises(SettingError, match=complaint):
        blended(torch.sin, **settings)


def test_input_without_pixels_is_refused():
    with pytest.raises(DdgmError, match=r"input is \(1, 0, 5\)"):
        blended(torch.sin)(torch.zeros(1, 0, 5))
