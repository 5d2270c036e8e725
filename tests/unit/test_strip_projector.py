import math
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
import torch

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.operator import check_step_size
from ddgm.projector import system_matrix
from ddgm.strip_projector import LANES, WORTH_LANES, StripProjector

ALL_AROUND = (-90.0, -61.7, -45.0, -8.5, 0.0, 33.3, 45.0, 89.9, 90.0)
GEOMETRIES = {
    "square": TiltGeometry.limited_angle((16, 16), views=9),
    "odd": TiltGeometry(9, 13, ALL_AROUND, 13),
    "even_and_odd": TiltGeometry(7, 10, ALL_AROUND, 11),
    "tall": TiltGeometry.limited_angle((20, 7), views=6),
    "wide_detector": TiltGeometry(5, 8, ALL_AROUND, 31),
    "narrow_detector": TiltGeometry(12, 12, ALL_AROUND, 5),
    "one_bin": TiltGeometry(6, 11, ALL_AROUND, 1),
    "one_pixel": TiltGeometry(1, 1, ALL_AROUND, 4),
    "one_row": TiltGeometry(1, 15, ALL_AROUND, 15),
}
# Below and above the number of images at which they are interleaved; one and several groups.
BATCHES = [1, 2, WORTH_LANES, LANES, LANES + 1]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=GEOMETRIES)
def geometry(request):
    return GEOMETRIES[request.param]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def dense(geometry, together):
    """Return the projector as a matrix, from its answers to so many unit images at a time."""
    pixels = geometry.height * geometry.width
    operator = StripProjector(geometry)
    units = torch.eye(pixels).reshape(-1, *geometry.image_shape)
    parts = [operator.forward(units[at : at + together]) for at in range(0, pixels, together)]
    return torch.cat(parts).reshape(pixels, -1).T.double().numpy()


def area_below(corners, level):
    """Return the area of a convex polygon (s, t) with s below a level: clipped, then measured."""
    kept = []
    for (s, t), (next_s, next_t) in zip(corners, corners[1:] + corners[:1], strict=True):
        if s <= level:
            kept.append((s, t))
        if (s <= level) != (next_s <= level):
            kept.append((level, t + (next_t - t) * (level - s) / (next_s - s)))
    edges = zip(kept, kept[1:] + kept[:1], strict=True)
    return abs(sum(s * next_t - next_s * t for (s, t), (next_s, next_t) in edges)) / 2


def exact(geometry):
    """Return the area of each pixel in each bin's strip, in double precision."""
    matrix = np.zeros((*geometry.sinogram_shape, geometry.height, geometry.width))
    square = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
    for view, angle in enumerate(np.deg2rad(geometry.angles)):
        cosine, sine = math.cos(angle), math.sin(angle)
        for row, column in np.ndindex(*geometry.image_shape):
            x, y = column - (geometry.width - 1) / 2, (geometry.height - 1) / 2 - row
            corners = [
                ((x + u) * cosine + (y + v) * sine, (y + v) * cosine - (x + u) * sine)
                for u, v in square
            ]
            edges = np.arange(geometry.detector + 1) - geometry.detector / 2
            below = np.array([area_below(corners, edge) for edge in edges])
            matrix[view, :, row, column] = np.diff(below)
    return matrix.reshape(geometry.views * geometry.detector, -1)


class TestWeights:
    @pytest.mark.parametrize("together", [1, LANES])
    def test_they_are_the_areas_of_pixels_in_strips(self, geometry, together):
        assert np.abs(dense(geometry, together) - exact(geometry)).max() < 1e-5

    @pytest.mark.parametrize("name", ["square", "tall", "narrow_detector", "wide_detector"])
    def test_they_are_those_of_astra_within_its_precision(self, name):
        geometry = GEOMETRIES[name]
        expected = system_matrix(geometry).toarray()
        assert np.abs(dense(geometry, LANES) - expected).max() < 1e-3

    def test_far_out_in_a_long_slab_they_are_as_precise(self):
        width, angles = 20001, (-60.0, -20.0, 35.0, 60.0)
        image = torch.zeros(4, width)
        image[1, 19990] = 1
        view = StripProjector(TiltGeometry(4, width, angles, width)).forward(image)
        for angle, one in zip(np.deg2rad(angles), view.double().numpy(), strict=True):
            centre = (19990 - 10000) * math.cos(angle) + 0.5 * math.sin(angle) + 10000
            assert one.sum() == pytest.approx(1, abs=1e-6)
            assert one @ np.arange(width) == pytest.approx(centre, abs=0.2)
            bins = np.flatnonzero(one)
            assert len(bins) <= 3
            corners = [
                (
                    u * math.cos(angle) + v * math.sin(angle),
                    v * math.cos(angle) - u * math.sin(angle),
                )
                for u, v in [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
            ]
            for at in bins:
                share = area_below(corners, at + 0.5 - centre) - area_below(
                    corners, at - 0.5 - centre
                )
                assert one[at] == pytest.approx(share, abs=1e-5)


class TestOperator:
    @pytest.mark.parametrize("batch", [(), (1,), (2,), (3,), (2, 5), (0,)])
    def test_images_map_to_data_and_back_with_any_leading_axes(self, geometry, batch):
        operator = StripProjector(geometry)
        data = operator.forward(normal(*batch, *geometry.image_shape))
        back = operator.adjoint(data)
        assert data.shape == (*batch, *geometry.sinogram_shape)
        assert back.shape == (*batch, *geometry.image_shape)
        assert data.dtype == back.dtype == torch.float32

    @pytest.mark.parametrize("batch", BATCHES)
    def test_back_projection_is_the_adjoint_of_projection(self, geometry, batch):
        operator = StripProjector(geometry)
        image = normal(batch, *geometry.image_shape, seed=1)
        data = normal(batch, *geometry.sinogram_shape, seed=2)
        projected, back = operator.forward(image).double(), operator.adjoint(data).double()
        in_data = (projected * data.double()).sum(dim=(-2, -1))
        in_images = (image.double() * back).sum(dim=(-2, -1))
        scale = projected.norm(dim=(-2, -1)) * data.double().norm(dim=(-2, -1))
        assert ((in_data - in_images).abs() <= 1e-6 * scale).all()

    @pytest.mark.parametrize("batch", BATCHES)
    def test_its_normal_product_is_back_projection_after_projection(self, geometry, batch):
        operator = StripProjector(geometry)
        image, none = normal(batch, *geometry.image_shape), torch.zeros(geometry.image_shape)
        stepped = operator.descend(image, none.expand_as(image), 0.5, 1)
        assert torch.equal(stepped, image - 0.5 * operator.adjoint(operator.forward(image)))

    def test_an_image_has_the_same_data_alone_and_in_a_batch(self, geometry):
        operator = StripProjector(geometry)
        images = normal(LANES + 1, *geometry.image_shape)
        data = normal(LANES + 1, *geometry.sinogram_shape)
        for at in (0, LANES - 1, LANES):
            alone, back = operator.forward(images[at]), operator.adjoint(data[at])
            torch.testing.assert_close(operator.forward(images)[at], alone, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(operator.adjoint(data)[at], back, rtol=1e-5, atol=1e-5)

    def test_memory_layout_does_not_matter_and_inputs_stay_as_they_are(self, geometry):
        operator = StripProjector(geometry)
        for batch in (2, LANES):
            strided = normal(batch, geometry.width, geometry.height).transpose(1, 2)
            before = strided.clone()
            projected = operator.forward(strided)
            assert torch.equal(strided, before)
            assert torch.equal(projected, operator.forward(before.contiguous()))

    def test_a_step_above_the_limit_is_refused(self):
        operator = StripProjector(GEOMETRIES["square"])
        largest = np.linalg.svd(exact(operator.geometry), compute_uv=False)[0]
        check_step_size(operator, 0.99 * 2 / largest**2)
        with pytest.raises(DdgmError, match="step_size"):
            check_step_size(operator, 1.001 * 2 / largest**2)

    def test_images_and_data_of_a_wrong_shape_are_refused(self):
        operator = StripProjector(GEOMETRIES["odd"])
        with pytest.raises(DdgmError, match=r"\(13, 9\).*\(9, 13\)"):
            operator.forward(torch.zeros(2, 13, 9))
        with pytest.raises(DdgmError, match="sinogram"):
            operator.adjoint(torch.zeros(2, 9, 14))


class TestThreads:
    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread is all there is")
    @pytest.mark.parametrize("batch", [1, LANES])
    def test_results_do_not_depend_on_how_many_there_are(self, geometry, batch):
        operator = StripProjector(geometry)
        image = normal(batch, *geometry.image_shape)
        data = normal(batch, *geometry.sinogram_shape)
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append((operator.forward(image), operator.adjoint(data)))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_pytorch_uses_as_many_afterwards_as_before(self, count):
        operator = StripProjector(GEOMETRIES["odd"])
        torch.set_num_threads(count)
        for batch in (1, LANES):
            operator.adjoint(operator.forward(normal(batch, 9, 13)))
            assert torch.get_num_threads() == count


@pytest.mark.parametrize("shape", [(16, 16), (32, 200), (9, 77)])
def test_the_norm_is_a_close_upper_bound_of_the_largest_singular_value(shape):
    projector = StripProjector(TiltGeometry.limited_angle(shape, views=24))
    dense = projector.forward(torch.eye(math.prod(shape)).reshape(-1, *shape)).flatten(1).double()
    exact = float(torch.linalg.matrix_norm(dense, 2))
    assert exact * (1 - 1e-6) <= projector.norm <= exact * 1.0026


def test_kernels_need_no_place_to_keep_what_is_compiled():
    nowhere = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
    command = [sys.executable, "-c", "import ddgm.strip_projector"]
    subprocess.run(command, env=nowhere, check=True)
