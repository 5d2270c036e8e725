import math

import numpy as np
import pytest
import torch

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.iterative import largest_singular_value
from ddgm.operator import check_step_size
from ddgm.projector import Projector, system_matrix

# Every operator here is tested for adjointness, shapes, batches and its norm. A new kind of
# operator is one more entry: a name and a function that builds it on a device.
OPERATORS = {
    "square": lambda device: Projector(TiltGeometry.limited_angle((16, 16), views=9), device),
    "wide": lambda device: Projector(TiltGeometry.limited_angle((8, 24), views=7), device),
    "tall": lambda device: Projector(TiltGeometry.limited_angle((20, 7), views=6), device),
    "wide_detector": lambda device: Projector(
        TiltGeometry.limited_angle((12, 12), views=8, detector=31), device
    ),
    "narrow_detector": lambda device: Projector(
        TiltGeometry.limited_angle((12, 12), views=8, detector=5), device
    ),
    "one_view": lambda device: Projector(TiltGeometry(9, 11, (17.0,), 11), device),
    "all_around": lambda device: Projector(
        TiltGeometry(10, 10, (-90.0, -41.0, 0.0, 33.3, 90.0), 15), device
    ),
}


@pytest.fixture(scope="module", params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]("cpu")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(operator):
    """Return the operator as a float64 matrix, column by column."""
    rows, columns = operator.image_shape
    basis = torch.eye(rows * columns).reshape(-1, rows, columns)
    return operator.forward(basis).reshape(rows * columns, -1).T.double().numpy()


def test_the_adjoint_is_the_transposed_matrix(operator):
    rows, columns = operator.data_shape
    basis = torch.eye(rows * columns).reshape(-1, rows, columns)
    transposed = operator.adjoint(basis).reshape(rows * columns, -1).double().numpy()
    np.testing.assert_allclose(transposed, dense(operator), rtol=0, atol=1e-6)


def test_the_operator_is_linear(operator):
    a, b = normal(2, *operator.image_shape)
    torch.testing.assert_close(
        operator.forward(2.5 * a - 3 * b),
        2.5 * operator.forward(a) - 3 * operator.forward(b),
        rtol=1e-4,
        atol=1e-4,
    )


def test_memory_layout_does_not_matter_and_inputs_stay_as_they_are(operator):
    rows, columns = operator.image_shape
    strided = normal(3, columns, rows).transpose(1, 2)
    before = strided.clone()
    torch.testing.assert_close(operator.forward(strided), operator.forward(before))
    assert torch.equal(strided, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@pytest.mark.parametrize("name", OPERATORS)
def test_a_gpu_gives_the_results_of_the_cpu(name):
    here, there = OPERATORS[name]("cpu"), OPERATORS[name]("cuda")
    image, data = normal(3, *here.image_shape), normal(3, *here.data_shape)
    assert there.device.type == "cuda"
    projected, back = there.forward(image.cuda()), there.adjoint(data.cuda())
    assert projected.device.type == back.device.type == "cuda"
    torch.testing.assert_close(projected.cpu(), here.forward(image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back.cpu(), here.adjoint(data), rtol=1e-4, atol=1e-4)
    assert there.max_step_size == pytest.approx(here.max_step_size, rel=1e-4)


def test_at_zero_tilt_the_view_is_the_column_sums_of_the_image():
    image = normal(3, 11, 14)
    view = Projector(TiltGeometry(11, 14, (0.0,), 14)).forward(image)
    torch.testing.assert_close(view[:, 0], image.sum(dim=1), rtol=1e-5, atol=1e-5)


def test_at_a_right_angle_the_view_is_the_row_sums_of_the_image():
    image = normal(11, 11)
    view = Projector(TiltGeometry(11, 11, (-90.0, 90.0), 11)).forward(image)
    torch.testing.assert_close(view[0], image.sum(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(view[1], image.sum(dim=1).flip(0), rtol=1e-4, atol=1e-4)


def test_a_wide_detector_catches_the_mass_of_the_image_in_every_view():
    geometry = TiltGeometry.limited_angle((13, 17), views=11, max_tilt=90, detector=26)
    image = normal(2, 13, 17).abs()
    mass = Projector(geometry).forward(image).sum(dim=-1)
    torch.testing.assert_close(
        mass, image.sum(dim=(1, 2))[:, None].expand_as(mass), rtol=1e-4, atol=1e-3
    )


def test_a_narrow_detector_sees_the_middle_of_a_wide_one():
    narrow = Projector(TiltGeometry.limited_angle((10, 12), views=5, detector=6))
    wide = Projector(TiltGeometry.limited_angle((10, 12), views=5, detector=16))
    image = normal(10, 12)
    torch.testing.assert_close(
        narrow.forward(image), wide.forward(image)[:, 5:11], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("row", "column"), [(2, 15), (17, 4), (10, 10), (0, 0)])
def test_a_pixel_lies_at_x_cos_minus_depth_sin_of_the_tilt(row, column):
    # x grows with the column and depth with the row, both from the centre of the image.
    angles = np.array([-90.0, -60.0, -30.0, -7.0, 0.0, 20.0, 45.0, 60.0, 90.0])
    projector = Projector(TiltGeometry(21, 21, tuple(angles), 33))
    image = torch.zeros(21, 21)
    image[row, column] = 1.0
    views = projector.forward(image).numpy()
    centre = (views * (np.arange(33) - 16)).sum(axis=1) / views.sum(axis=1)
    tilt = np.deg2rad(angles)
    expected = (column - 10) * np.cos(tilt) - (row - 10) * np.sin(tilt)
    np.testing.assert_allclose(centre, expected, atol=0.05)
    # A pixel of 1 × 1 casts a shadow of at most √2, so it falls into at most three bins.
    assert ((views > 1e-6).sum(axis=1) <= 3).all()


def test_opposite_tilts_see_mirrored_images():
    projector = Projector(TiltGeometry.limited_angle((12, 12), views=7))
    image = normal(12, 12)
    views, mirrored = projector.forward(image), projector.forward(image.flip(1))
    torch.testing.assert_close(mirrored, views.flip(0, 1), rtol=1e-3, atol=1e-3)


def test_the_matrix_holds_areas_of_pixels_in_strips():
    matrix = system_matrix(TiltGeometry.limited_angle((9, 9), views=5, detector=15))
    assert matrix.dtype == np.float32
    assert matrix.shape == (5 * 15, 81)
    assert matrix.data.min() >= 0
    assert matrix.data.max() <= 1 + 1e-5


@pytest.fixture(scope="module")
def paper():
    return Projector(TiltGeometry.limited_angle((128, 128)))


def test_the_norm_of_the_papers_operator_is_as_measured(paper):
    assert paper.norm == pytest.approx(125.52, abs=0.01)
    assert paper.max_step_size == pytest.approx(1.27e-4, abs=0.005e-4)


def test_the_papers_step_is_stable_but_twice_it_is_not(paper):
    check_step_size(paper, 9e-5)
    with pytest.raises(DdgmError):
        check_step_size(paper, 18e-5)


def test_a_projector_that_sees_nothing_is_refused():
    class Blind:
        image_shape = data_shape = (3, 3)
        device = torch.device("cpu")

        def forward(self, image):
            return torch.zeros_like(image)

        adjoint = forward

    with pytest.raises(DdgmError, match="zero"):
        largest_singular_value(Blind())


class TestStepSize:
    @staticmethod
    def residuals(projector, step_size, steps):
        """Follow ‖Ax − y‖² of gradient descent from zero, in float64."""
        matrix = dense(projector)
        data = matrix @ normal(matrix.shape[1], seed=3).double().numpy()
        data += normal(matrix.shape[0], seed=4).double().numpy()
        x = np.zeros(matrix.shape[1])
        path = []
        for _ in range(steps):
            residual = matrix @ x - data
            path.append(residual @ residual)
            x -= step_size * (matrix.T @ residual)
        return np.array(path)

    def test_just_below_the_limit_the_residual_falls_at_every_step(self, projector):
        step_size = 0.999 * projector.max_step_size
        check_step_size(projector, step_size)
        path = self.residuals(projector, step_size, 200)
        assert (np.diff(path) < 0).all()

    def test_just_above_the_limit_the_descent_diverges_and_is_refused(self, projector):
        step_size = 1.01 * projector.max_step_size
        with pytest.raises(DdgmError) as caught:
            check_step_size(projector, step_size)
        assert f"{projector.max_step_size:.3g}" in str(caught.value)
        assert f"{step_size:g}" in str(caught.value)
        assert "\n" not in str(caught.value)
        path = self.residuals(projector, step_size, 1000)
        assert path[-1] > 1e3 * path[0]
        assert path[-1] > path[-2] > path[-3]

    @pytest.mark.parametrize("step_size", [0.0, -1e-5, math.nan, math.inf])
    def test_a_step_that_is_not_positive_and_finite_is_refused(self, projector, step_size):
        with pytest.raises(DdgmError, match="step size"):
            check_step_size(projector, step_size)
