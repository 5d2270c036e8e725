import numpy as np
import pytest
import torch

from ddgm.geometry import TiltGeometry
from ddgm.iterative import PRECONDITIONED_TOLERANCE, PROXIMAL_TOLERANCE
from ddgm.preconditioner import DEEPEST, LONGEST_BLOCK, SlabPreconditioner, _partition
from ddgm.strip_projector import StripProjector

SMALL = TiltGeometry.limited_angle((8, 40), views=16)
ASYMMETRIC = TiltGeometry(7, 33, (-62.0, -31.5, -4.0, 9.0, 18.0, 40.0, 71.0), 45)
GEOMETRIES = {"symmetric": SMALL, "asymmetric": ASYMMETRIC}
# Longer than one block, and with few rows and views fast.
LONG = TiltGeometry.limited_angle((12, 1500), views=24)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(apply, shape):
    """Return a map of images as a matrix, column by column."""
    basis = torch.eye(shape[0] * shape[1]).reshape(-1, *shape)
    return apply(basis).flatten(1).T.double().numpy()


def relative(one, other):
    return float((one - other).norm() / other.norm())


class Plain(StripProjector):
    """Without a preconditioner."""

    preconditioner = None


@pytest.fixture(params=GEOMETRIES)
def geometry(request):
    return GEOMETRIES[request.param]


class TestMatrices:
    def test_in_the_middle_of_a_slab_it_inverts_what_the_projector_does_on_average(self):
        # A detector wide enough for every ray, and pixels that lie everywhere in their bins: not
        # those of views from above, where one pixel lies like the next.
        angles = tuple(sign * angle for sign in (-1.0, 1.0) for angle in (15.5, 27.0, 41.0, 63.0))
        geometry = TiltGeometry(8, 161, angles, 401)
        operator, middle = StripProjector(geometry), 80
        columns = range(middle - 55, middle + 55)
        impulses = torch.zeros(len(columns), 8, 161)
        for at, column in enumerate(columns):
            impulses[at, 3, column] = 1
        responses = operator.adjoint(operator.forward(impulses))
        spread = range(-20, 21)
        measured = torch.stack(
            [responses[at, :, column - 20 : column + 21] for at, column in enumerate(columns)]
        ).mean(0)
        # (AᵀA + w) with the computed eigenvectors, applied to an impulse.
        exact = SlabPreconditioner.from_geometry(geometry)
        line = torch.zeros(1, 8, exact.block)
        line[0, 3, middle] = 1
        waves = torch.fft.rfft(line).permute(2, 1, 0)
        vectors = exact.eigenvectors.to(torch.complex64)
        product = vectors @ (exact.eigenvalues.unsqueeze(-1) * (vectors.mH @ waves))
        computed = torch.fft.irfft(product.permute(2, 1, 0), n=exact.block)[0]
        computed = computed[:, [middle + one for one in spread]]
        assert relative(computed, measured) < 0.01

    def test_symmetric_tilts_have_real_eigenvectors_and_others_complex_ones(self):
        assert not SlabPreconditioner.from_geometry(SMALL).eigenvectors.is_complex()
        assert SlabPreconditioner.from_geometry(ASYMMETRIC).eigenvectors.is_complex()

    def test_the_tables_do_not_grow_with_the_slab(self):
        one, ten = (
            SlabPreconditioner.from_geometry(TiltGeometry.limited_angle((12, width), views=24))
            for width in (1500, 15000)
        )
        assert one.block == ten.block == LONGEST_BLOCK
        assert one.eigenvectors.shape == ten.eigenvectors.shape == (LONGEST_BLOCK // 2 + 1, 12, 12)
        assert torch.equal(one.eigenvalues, ten.eigenvalues)

    @pytest.mark.parametrize(
        "geometry",
        [
            TiltGeometry.limited_angle((8, 40), views=5, max_tilt=90),
            TiltGeometry.limited_angle((DEEPEST + 1, 40), views=3, max_tilt=10),
        ],
    )
    def test_there_is_none_for_views_along_the_slab_or_for_deep_slabs(self, geometry):
        assert SlabPreconditioner.from_geometry(geometry) is None
        operator = StripProjector(geometry)
        assert operator.preconditioner is None

    def test_one_pixel_has_one(self):
        operator = StripProjector(TiltGeometry(1, 1, (0.0,), 1))
        solution, _ = operator.proximal(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), 3.0)
        assert solution.item() == pytest.approx(0.25, rel=1e-5)


class TestApply:
    @pytest.mark.parametrize("weight", [0.5, 100.0])
    @pytest.mark.parametrize("block", [1024, 45])  # one block, and overlapping ones
    def test_it_is_symmetric_and_positive_definite(self, weight, block, monkeypatch):
        geometry = TiltGeometry.limited_angle((5, 70), views=8)
        monkeypatch.setattr("ddgm.preconditioner.LONGEST_BLOCK", block)
        preconditioner = SlabPreconditioner.from_geometry(geometry)
        assert (preconditioner.block < 70) == (block < 70)
        matrix = dense(lambda image: preconditioner.apply(image, weight), (5, 70))
        assert np.abs(matrix - matrix.T).max() < 1e-5 * np.abs(matrix).max()
        values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
        assert values[0] > 0.5 / (weight + 2 * float(preconditioner.eigenvalues.max()))
        assert values[-1] < 1.001 / weight

    def test_asymmetric_tilts_have_a_symmetric_positive_definite_one(self):
        preconditioner = SlabPreconditioner.from_geometry(ASYMMETRIC)
        matrix = dense(lambda image: preconditioner.apply(image, 2.0), ASYMMETRIC.image_shape)
        assert np.abs(matrix - matrix.T).max() < 1e-5 * np.abs(matrix).max()
        assert np.linalg.eigvalsh((matrix + matrix.T) / 2)[0] > 0

    def test_a_heavy_weight_makes_it_a_division(self, geometry):
        preconditioner = SlabPreconditioner.from_geometry(geometry)
        image = normal(2, *geometry.image_shape)
        assert relative(preconditioner.apply(image, 1e8) * 1e8, image) < 1e-4

    def test_an_image_gets_the_same_alone_and_in_a_batch(self, geometry):
        preconditioner = SlabPreconditioner.from_geometry(geometry)
        images = normal(5, *geometry.image_shape)
        batch = preconditioner.apply(images, 1.0)
        assert relative(preconditioner.apply(images[3:4], 1.0), batch[3:4]) < 1e-5

    @pytest.mark.parametrize("columns", [1025, 1300, 1792, 1793, 9001])
    def test_the_weights_of_blocks_add_up_to_one(self, columns):
        total = np.zeros(columns)
        for first, root in _partition(columns, 1024):
            assert 0 <= first <= columns - 1024
            total[first : first + 1024] += root.double().numpy() ** 2
        assert total == pytest.approx(1, abs=1e-6)


class TestProximal:
    @pytest.mark.parametrize("weight", [0.5, 10.0, 300.0])
    def test_it_solves_to_what_a_dense_solution_gives(self, geometry, weight, monkeypatch):
        monkeypatch.setattr("ddgm.iterative.PRECONDITIONED_TOLERANCE", 1e-4)
        operator = StripProjector(geometry)
        assert operator.preconditioner is not None
        image = normal(2, *geometry.image_shape)
        right_side = operator.right_side(10 * normal(2, *geometry.sinogram_shape, seed=1))
        solution, _ = operator.proximal(image, right_side, weight)
        normal_matrix = dense(
            lambda one: operator.adjoint(operator.forward(one)), geometry.image_shape
        )
        expected = np.linalg.solve(
            normal_matrix + weight * np.eye(len(normal_matrix)),
            (right_side + weight * image).flatten(1).double().numpy().T,
        ).T
        assert relative(solution.flatten(1).double(), torch.from_numpy(expected)) < 2e-3

    @pytest.mark.parametrize("sigma", [2.0, 0.5])
    def test_a_slab_of_several_blocks_takes_fewer_products_than_without(self, sigma, monkeypatch):
        monkeypatch.setattr("ddgm.iterative.PRECONDITIONED_TOLERANCE", PROXIMAL_TOLERANCE)
        image, weight = normal(1, *LONG.image_shape), (1.0 / sigma) ** 2
        with_, without = StripProjector(LONG), Plain(LONG)
        assert with_.preconditioner.block < LONG.width
        data = with_.forward(normal(1, *LONG.image_shape, seed=1))
        right_side = with_.right_side(data + normal(*data.shape, seed=2))
        solution, products = with_.proximal(image, right_side, weight)
        expected, many = without.proximal(image, right_side, weight)
        assert products < many / 2
        if sigma < 1:
            assert relative(solution, expected) < 2e-2

    def test_an_image_is_solved_the_same_alone_and_in_a_batch(self, geometry):
        operator = StripProjector(geometry)
        image = normal(4, *geometry.image_shape)
        data = normal(4, *geometry.sinogram_shape, seed=1)
        data[2] *= 100  # a mate of another scale, which takes more iterations
        right_side = operator.right_side(data)
        batch, _ = operator.proximal(image, right_side, 1.0)
        for at in range(4):
            one = slice(at, at + 1)
            alone, _ = operator.proximal(image[one], right_side[one], 1.0)
            assert relative(batch[one], alone) < 1e-3

    def test_it_stops_where_the_residual_is_small(self, geometry):
        operator = StripProjector(geometry)
        image = normal(2, *geometry.image_shape)
        right_side = operator.right_side(normal(2, *geometry.sinogram_shape, seed=1))
        solution, _ = operator.proximal(image, right_side, 1.0)

        def residual(one):
            gradient = operator.adjoint(operator.forward(one)) - right_side
            return (gradient + (one - image)).flatten(1).norm(dim=1)

        assert (residual(solution) < 1.01 * PRECONDITIONED_TOLERANCE * residual(image)).all()

    def test_zero_data_and_images_stay_zero(self, geometry):
        operator = StripProjector(geometry)
        image = normal(2, *geometry.image_shape)
        right_side = operator.right_side(normal(2, *geometry.sinogram_shape, seed=1))
        image[1], right_side[1] = 0, 0
        solution, _ = operator.proximal(image, right_side, 1.0)
        assert not solution[1].any()
        assert solution.isfinite().all()

    def test_no_images_take_no_steps(self):
        operator = StripProjector(SMALL)
        none = torch.zeros(0, *SMALL.image_shape)
        solution, products = operator.proximal(none, none, 1.0)
        assert solution.shape == none.shape
        assert products == 1
