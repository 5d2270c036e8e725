import numpy as np
import pytest
import scipy.sparse
import torch

from ddgm.eigenbasis import decompose
from ddgm.errors import DdgmError
from ddgm.fused import FusedOperator
from ddgm.geometry import TiltGeometry
from ddgm.iterative import (
    PROXIMAL_ITERATIONS,
    PROXIMAL_TOLERANCE,
    MatrixOperator,
    largest_singular_value,
)
from ddgm.operator import check_step_size
from ddgm.projector import Projector, system_matrix

STEPS = [1, 15, 25, 100]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_matrix():
    return MatrixOperator(normal(60, 42), (6, 7))


def fused_matrix():
    operator = random_matrix()
    matrix = scipy.sparse.csr_matrix(operator.matrix.numpy())
    return FusedOperator(operator, decompose(matrix, (6, 7), symmetric=False))


def fused(geometry, *, symmetric=True):
    basis = decompose(system_matrix(geometry), geometry.image_shape, symmetric=symmetric)
    return FusedOperator(Projector(geometry), basis)


ASYMMETRIC = TiltGeometry(9, 13, (-71.0, -40.0, -8.5, 0.0, 20.0, 33.0, 90.0), 17)
ITERATIVE = {
    "matrix": random_matrix,
    "projector": lambda: Projector(TiltGeometry.limited_angle((12, 12), views=9)),
    "odd_asymmetric": lambda: Projector(ASYMMETRIC),
    "narrow_detector": lambda: Projector(TiltGeometry.limited_angle((12, 12), views=8, detector=5)),
}
FUSED = {
    "fused_matrix": fused_matrix,
    "fused_even": lambda: fused(TiltGeometry.limited_angle((12, 12), views=9)),
    "fused_odd": lambda: fused(TiltGeometry.limited_angle((9, 13), views=8, detector=10)),
    "fused_rectangular": lambda: fused(TiltGeometry.limited_angle((12, 17), views=9)),
    "fused_one_block": lambda: fused(ASYMMETRIC, symmetric=False),
}
# A new kind of operator is one more entry: a name and a function that builds it.
OPERATORS = ITERATIVE | FUSED


@pytest.fixture(scope="module")
def built():
    """Operators by name, each built once."""
    return {}


def get(built, name):
    if name not in built:
        built[name] = OPERATORS[name]()
    return built[name]


@pytest.fixture(params=OPERATORS)
def operator(request, built):
    return get(built, request.param)


@pytest.fixture(params=ITERATIVE)
def iterative(request, built):
    return get(built, request.param)


@pytest.fixture(params=FUSED)
def fused_operator(request, built):
    return get(built, request.param)


def dense(operator):
    """Return the operator as a float64 matrix, column by column."""
    rows, columns = operator.image_shape
    basis = torch.eye(rows * columns).reshape(-1, rows, columns)
    return operator.forward(basis).reshape(rows * columns, -1).T.double().numpy()


def difference(one, other):
    """Return the largest relative difference of two batches, image by image."""
    away = (one - other).flatten(1).norm(dim=1)
    return float((away / other.flatten(1).norm(dim=1).clamp_min(1e-30)).max())


def problem(operator, batch=3):
    """Return images to start from, and noisy data of other images."""
    image = normal(batch, *operator.image_shape, seed=1)
    data = operator.forward(normal(batch, *operator.image_shape, seed=2))
    return image, data + 0.3 * data.std() * normal(*data.shape, seed=3)


def gradient(operator, image, data, near, weight):
    """Return the gradient of ½‖Ax − y‖² + weight/2 ‖x − near‖², relative to that at `near`."""
    at_start = operator.adjoint(operator.forward(near) - data)
    at_end = operator.adjoint(operator.forward(image) - data) + weight * (image - near)
    return at_end.flatten(1).norm(dim=1) / at_start.flatten(1).norm(dim=1)


class TestOperator:
    @pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
    def test_images_map_to_data_and_back_with_any_leading_axes(self, operator, batch):
        image = normal(*batch, *operator.image_shape)
        data = operator.forward(image)
        back = operator.adjoint(data)
        assert data.shape == (*batch, *operator.data_shape)
        assert back.shape == image.shape
        assert data.dtype == back.dtype == torch.float32

    @pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
    def test_back_projection_is_the_adjoint_of_projection(self, operator, batch):
        image = normal(*batch, *operator.image_shape, seed=1)
        data = normal(*batch, *operator.data_shape, seed=2)
        projected, back = operator.forward(image).double(), operator.adjoint(data).double()
        in_data = (projected * data.double()).sum(dim=(-2, -1))
        in_images = (image.double() * back).sum(dim=(-2, -1))
        scale = projected.norm(dim=(-2, -1)) * data.double().norm(dim=(-2, -1))
        assert ((in_data - in_images).abs() <= 1e-5 * scale).all()

    def test_an_image_has_the_same_data_alone_and_in_a_batch(self, operator):
        images, data = normal(2, 3, *operator.image_shape), normal(2, 3, *operator.data_shape)
        assert difference(operator.forward(images)[1], operator.forward(images[1])) < 1e-5
        assert difference(operator.adjoint(data)[1, 2][None], operator.adjoint(data[1, 2])) < 1e-5

    def test_the_largest_step_is_two_over_the_square_of_the_largest_singular_value(self, operator):
        expected = np.linalg.svd(dense(operator), compute_uv=False)[0]
        assert operator.norm == pytest.approx(expected, rel=1e-4)
        assert operator.max_step_size == pytest.approx(2 / expected**2, rel=2e-4)

    def test_a_step_just_below_the_limit_is_allowed_and_one_just_above_refused(self, operator):
        limit = operator.max_step_size
        check_step_size(operator, 0.999 * limit)
        with pytest.raises(DdgmError, match="step_size") as caught:
            check_step_size(operator, 1.001 * limit)
        assert f"{limit:.3g}" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_an_eigenbasis_is_there_only_where_it_is_known(self, built):
        assert all(get(built, name).eigenbasis is None for name in ITERATIVE)
        for name in FUSED:
            basis = get(built, name).eigenbasis
            assert basis.image_shape == get(built, name).image_shape
            assert len(basis.vectors) == (1 if name in {"fused_matrix", "fused_one_block"} else 4)

    # The last but one has as many pixels as the operator's images, in another shape.
    @pytest.mark.parametrize("change", [(1, 0), (0, 1), "transposed", (-1, -1)])
    def test_images_and_data_of_a_wrong_shape_are_refused_in_one_line(self, operator, change):
        def wrong(shape):
            if change == "transposed":
                # Square images look the same transposed.
                return shape[::-1] if shape[0] != shape[1] else (shape[0] // 2, shape[1] * 2)
            return shape[0] + change[0], shape[1] + change[1]

        image = torch.zeros(2, *wrong(operator.image_shape))
        data = torch.zeros(2, *wrong(operator.data_shape))
        right_side = operator.right_side(torch.zeros(2, *operator.data_shape))
        for apply, given, expected in (
            (lambda: operator.forward(image), image, operator.image_shape),
            (lambda: operator.adjoint(data), data, operator.data_shape),
            (lambda: operator.right_side(data), data, operator.data_shape),
            (lambda: operator.descend(image, right_side, 1e-3, 1), image, operator.image_shape),
            (lambda: operator.proximal(image, right_side, 1.0), image, operator.image_shape),
        ):
            with pytest.raises(DdgmError) as caught:
                apply()
            assert str(tuple(given.shape[-2:])) in str(caught.value)
            assert str(expected) in str(caught.value)
            assert "\n" not in str(caught.value)


class TestDescend:
    @staticmethod
    def loop(operator, image, data, step_size, steps):
        for _ in range(steps):
            image = image - step_size * operator.adjoint(operator.forward(image) - data)
        return image

    @pytest.mark.parametrize("start", ["zero", "random"])
    @pytest.mark.parametrize("steps", STEPS)
    def test_it_equals_a_loop_of_gradient_steps(self, operator, start, steps):
        image, data = problem(operator)
        image = torch.zeros_like(image) if start == "zero" else image
        before = image.clone()
        # The paper's step, relative to the largest one.
        step_size = 0.7 * operator.max_step_size
        result = operator.descend(image, operator.right_side(data), step_size, steps)
        expected = self.loop(operator, image, data, step_size, steps)
        assert result.shape == image.shape
        assert result.dtype == torch.float32
        assert difference(result, expected) <= 1e-4
        assert torch.equal(image, before)

    def test_steps_compose(self, operator):
        image, data = problem(operator)
        right_side, step_size = operator.right_side(data), 0.9 * operator.max_step_size
        halfway = operator.descend(image, right_side, step_size, 3)
        both = operator.descend(halfway, right_side, step_size, 4)
        assert difference(both, operator.descend(image, right_side, step_size, 7)) < 1e-5

    def test_no_steps_change_nothing(self, operator):
        image, data = problem(operator)
        result = operator.descend(image, operator.right_side(data), 1e-3, 0)
        assert difference(result, image) < 1e-5

    def test_an_image_takes_the_same_steps_alone_and_in_a_batch(self, operator):
        image, data = problem(operator)
        step_size = 0.7 * operator.max_step_size
        batch = operator.descend(image, operator.right_side(data), step_size, 25)
        alone = operator.descend(image[1:2], operator.right_side(data[1:2]), step_size, 25)
        assert difference(batch[1:2], alone) < 1e-5

    def test_images_that_explain_the_data_stay(self, operator):
        image = normal(2, *operator.image_shape)
        right_side = operator.right_side(operator.forward(image))
        result = operator.descend(image, right_side, 0.7 * operator.max_step_size, 100)
        assert difference(result, image) < 1e-4

    def test_of_a_direction_that_is_not_measured_nothing_changes(self):
        # Only the left half of the image is measured, so that w = 0 for the right one.
        matrix = torch.cat([torch.eye(8), torch.zeros(8, 8)], dim=1)
        basis = decompose(scipy.sparse.csr_matrix(matrix.numpy()), (4, 4), symmetric=False)
        image, data = normal(1, 4, 4), normal(1, 1, 8, seed=1)
        for operator in (
            MatrixOperator(matrix, (4, 4)),
            FusedOperator(MatrixOperator(matrix, (4, 4)), basis),
        ):
            result = operator.descend(image, operator.right_side(data), 1.0, 1000)
            assert difference(result[:, :2].flatten(1), data[:, 0]) < 1e-5
            assert difference(result[:, 2:], image[:, 2:]) < 1e-5


class TestProximal:
    def test_the_gradient_of_the_objective_vanishes(self, operator):
        image, data = problem(operator)
        # Heavy enough for conjugate gradients to converge to their tolerance.
        weight = 0.05 * operator.norm**2
        solution, gradients = operator.proximal(image, operator.right_side(data), weight)
        left = gradient(operator, solution, data, image, weight)
        assert solution.shape == image.shape
        assert solution.dtype == torch.float32
        if operator.eigenbasis is None:
            assert 0 < gradients < PROXIMAL_ITERATIONS
            assert (left < 1.1e-3).all()
        else:
            assert gradients == 0
            assert (left < 1e-4).all()

    def test_a_light_weight_makes_no_difference_to_the_eigenbasis(self, fused_operator):
        image, data = problem(fused_operator)
        weight = 1e-4 * fused_operator.norm**2
        solution, _ = fused_operator.proximal(image, fused_operator.right_side(data), weight)
        assert (gradient(fused_operator, solution, data, image, weight) < 1e-4).all()

    @pytest.mark.parametrize("times", [10, 1e6])
    def test_a_huge_weight_keeps_the_image(self, operator, times):
        image, data = problem(operator)
        weight = times * operator.norm**2
        solution, _ = operator.proximal(image, operator.right_side(data), weight)
        gap = operator.adjoint(operator.forward(image) - data).flatten(1).norm(dim=1)
        moved = (solution - image).flatten(1).norm(dim=1)
        # The step is the gradient over the weight, but for the curvature: at most a tenth here.
        assert (moved <= gap / weight + 1e-5 * image.flatten(1).norm(dim=1)).all()
        assert (moved >= 0.9 * gap / weight - 1e-5 * image.flatten(1).norm(dim=1)).all()

    def test_with_a_tiny_weight_the_gradient_of_the_data_term_vanishes(self, fused_operator):
        image, data = problem(fused_operator)
        weight = 1e-6 * fused_operator.norm**2
        solution, _ = fused_operator.proximal(image, fused_operator.right_side(data), weight)
        assert (gradient(fused_operator, solution, data, image, 0.0) < 2e-3).all()

    def test_a_tiny_weight_gives_least_squares(self, built):
        # More data than pixels, and no small singular values: the limit is within reach.
        operator = get(built, "fused_matrix")
        image, data = problem(operator)
        weight = 1e-6 * operator.norm**2
        solution, _ = operator.proximal(image, operator.right_side(data), weight)
        values = data.flatten(1).double().numpy().T
        expected = np.linalg.lstsq(dense(operator), values, rcond=None)[0].T
        assert difference(solution, torch.from_numpy(expected).reshape(solution.shape)) < 1e-3

    def test_an_image_is_solved_the_same_alone_and_in_a_batch(self, operator):
        image, data = problem(operator, batch=4)
        data[2] *= 100  # a mate of another scale
        weight = 0.02 * operator.norm**2
        batch, _ = operator.proximal(image, operator.right_side(data), weight)
        for at in range(4):
            one = slice(at, at + 1)
            alone, _ = operator.proximal(image[one], operator.right_side(data[one]), weight)
            # Rounding differs, so that conjugate gradients stop elsewhere within their tolerance,
            # which is one of residuals; the error of a solution is a few times that.
            allowed = 5 * PROXIMAL_TOLERANCE if operator.eigenbasis is None else 1e-5
            assert difference(batch[one], alone) < allowed

    def test_zero_data_and_images_give_zeros(self, operator):
        image, data = problem(operator)
        image[1], data[1] = 0, 0
        weight = 0.05 * operator.norm**2
        right_side = operator.right_side(data)
        mixed, _ = operator.proximal(image, right_side, weight)
        alone, _ = operator.proximal(image[1:2], right_side[1:2], weight)
        assert not mixed[1].any()
        assert not alone.any()
        assert mixed.isfinite().all()

    def test_without_images_there_is_nothing_to_do(self, operator):
        image, data = torch.zeros(0, *operator.image_shape), torch.zeros(0, *operator.data_shape)
        right_side = operator.right_side(data)
        assert operator.proximal(image, right_side, 1.0)[0].shape == image.shape
        assert operator.descend(image, right_side, 1e-3, 5).shape == image.shape


class TestConjugateGradients:
    @pytest.fixture
    def exact(self, iterative):
        """An operator in float64, where rounding does not grow into what is looked for."""
        return MatrixOperator(torch.from_numpy(dense(iterative)), iterative.image_shape)

    def test_an_image_that_has_converged_stays_while_others_go_on(self, exact):
        # Data of smooth images are explained in few iterations, those of noise in many.
        smooth = normal(1, *exact.image_shape).double()
        for _ in range(4):
            smooth = exact.adjoint(exact.forward(smooth))
        noise = normal(1, *exact.data_shape, seed=1).double()
        right_side = exact.right_side(torch.cat([exact.forward(smooth), noise, 0 * noise]))
        image = torch.zeros_like(right_side)
        weight = 0.01 * float(torch.linalg.matrix_norm(exact.matrix, 2)) ** 2
        easy, few = exact.proximal(image[:1], right_side[:1], weight)
        hard, many = exact.proximal(image[1:2], right_side[1:2], weight)
        assert few + 4 < many  # else there is nothing to see here
        batch, gradients = exact.proximal(image, right_side, weight)
        assert gradients == many
        assert difference(batch[:1], easy) < 1e-9
        assert difference(batch[1:2], hard) < 1e-4  # rounding grows with every iteration
        assert not batch[2].any()

    @pytest.mark.parametrize("factor", [1e-3, 1e3])
    def test_the_scale_of_a_mate_does_not_matter(self, exact, factor):
        right_side = exact.right_side(normal(2, *exact.data_shape).double())
        image = normal(2, *exact.image_shape, seed=1).double()
        weight = 0.05 * float(torch.linalg.matrix_norm(exact.matrix, 2)) ** 2
        right_side[1] *= factor
        batch, _ = exact.proximal(image, right_side, weight)
        alone, _ = exact.proximal(image[:1], right_side[:1], weight)
        assert difference(batch[:1], alone) < 1e-9

    def test_the_gradients_are_the_products_that_it_took(self, built, monkeypatch):
        operator = get(built, "projector")
        calls = []
        forward = operator.forward
        monkeypatch.setattr(operator, "forward", lambda x: calls.append(1) or forward(x))
        image, data = problem(operator)
        right_side, weight = operator.right_side(data), 0.05 * operator.norm**2
        calls.clear()
        _, gradients = operator.proximal(image, right_side, weight)
        assert gradients == len(calls)

    def test_it_gives_up_after_so_many_iterations(self, built):
        operator = get(built, "projector")
        image, data = problem(operator)
        solution, gradients = operator.proximal(image, operator.right_side(data), 1e-9)
        # One product more, for the residual to start from.
        assert gradients == PROXIMAL_ITERATIONS + 1
        assert solution.isfinite().all()

    def test_it_agrees_with_the_eigenbasis(self, built):
        loops, at_once = get(built, "projector"), get(built, "fused_even")
        image, data = problem(loops)
        weight = 0.05 * loops.norm**2
        solution, _ = loops.proximal(image, loops.right_side(data), weight)
        expected, _ = at_once.proximal(image, at_once.right_side(data), weight)
        assert difference(solution, expected) < 3e-3


def test_a_matrix_acts_on_the_image_row_by_row():
    matrix = normal(5, 6)
    operator = MatrixOperator(matrix, (2, 3))
    image, data = normal(2, 3), normal(1, 5, seed=1)
    assert operator.data_shape == (1, 5)
    np.testing.assert_allclose(operator.forward(image)[0], matrix @ image.reshape(6), atol=1e-5)
    np.testing.assert_allclose(
        operator.adjoint(data), (matrix.T @ data[0]).reshape(2, 3), atol=1e-5
    )


def test_without_rows_nothing_is_measured_and_the_image_stays():
    operator = MatrixOperator(torch.zeros(0, 6), (2, 3))
    image = normal(2, 2, 3)
    right_side = operator.right_side(torch.zeros(2, 1, 0))
    assert torch.equal(operator.descend(image, right_side, 1.0, 3), image)
    assert torch.equal(operator.proximal(image, right_side, 1.0)[0], image)


def test_an_operator_that_measures_nothing_has_no_step_size():
    matrix = torch.zeros(4, 6)
    basis = decompose(scipy.sparse.csr_matrix(matrix.numpy()), (2, 3), symmetric=False)
    for operator in (
        MatrixOperator(matrix, (2, 3)),
        FusedOperator(MatrixOperator(matrix, (2, 3)), basis),
    ):
        with pytest.raises(DdgmError, match="every image to zero"):
            check_step_size(operator, 0.1)


@pytest.mark.parametrize("shape", [(5, 7), (6,), (1, 5, 6)])
def test_a_matrix_that_does_not_fit_the_image_is_refused(shape):
    with pytest.raises(DdgmError) as caught:
        MatrixOperator(torch.zeros(shape), (2, 3))
    assert str(shape) in str(caught.value)
    assert "(data, 6)" in str(caught.value)


def test_the_norm_is_found_where_the_leading_image_has_zero_mean():
    # Power iteration from a constant image alone would never reach it.
    leading = torch.tensor([1.0, -1.0, 1.0, -1.0]) / 2
    matrix = 5 * torch.outer(leading, leading) + torch.full((4, 4), 0.25)
    assert largest_singular_value(MatrixOperator(matrix, (2, 2))) == pytest.approx(5, rel=1e-4)


def test_an_eigenbasis_of_other_images_is_refused(built):
    basis = get(built, "fused_rectangular").eigenbasis
    with pytest.raises(DdgmError) as caught:
        FusedOperator(get(built, "projector"), basis)
    assert "(12, 17)" in str(caught.value)
    assert "(12, 12)" in str(caught.value)
