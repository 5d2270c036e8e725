import os
import resource
from itertools import product

import numpy as np
import pytest
import safetensors.torch
import scipy.sparse
import torch

from ddgm.eigenbasis import FORMAT, Eigenbasis, _fold, _unfold, decompose
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.projector import system_matrix

ASYMMETRIC = TiltGeometry(9, 11, (-50.0, -20.0, 3.0, 40.0, 90.0), 15)
# Geometries with symmetric tilts, whose basis has four blocks, and some whose basis has one.
SYMMETRIC = {
    "even": TiltGeometry.limited_angle((12, 12), views=9),
    "odd": TiltGeometry.limited_angle((9, 13), views=8, detector=10),
    "mixed": TiltGeometry.limited_angle((12, 17), views=9),
    "flat": TiltGeometry.limited_angle((2, 15), views=9),
    # Fewer data than pixels: many eigenvalues are zero.
    "few_views": TiltGeometry.limited_angle((8, 8), views=2),
}
PLAIN = {
    "one_block": ASYMMETRIC,
    "one_block_few_views": TiltGeometry(7, 6, (25.0,), 8),
    "one_row": TiltGeometry.limited_angle((1, 9), views=5),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """A system matrix in float64, and the eigenbasis computed from it."""

    def __init__(self, matrix, image_shape, *, symmetric):
        self.dense = matrix.toarray().astype(np.float64)
        self.basis = decompose(matrix, image_shape, symmetric=symmetric)
        self.blocks = 4 if symmetric else 1

    def normal(self, image):
        """Return AᵀA x in float64."""
        flat = image.flatten(1).double().numpy()
        return torch.from_numpy(flat @ self.dense.T @ self.dense).reshape(image.shape)


def tall():
    # More data than the Gram matrix is summed up from at a time, and twice no multiple of it.
    matrix = scipy.sparse.random(9001, 12, density=0.5, random_state=0, dtype=np.float32)
    return Case(matrix.tocsr(), (3, 4), symmetric=False)


@pytest.fixture(scope="module", params=[*SYMMETRIC, *PLAIN, "tall"])
def case(request):
    name = request.param
    if name == "tall":
        return tall()
    geometry = (SYMMETRIC | PLAIN)[name]
    return Case(system_matrix(geometry), geometry.image_shape, symmetric=name in SYMMETRIC)


@pytest.fixture(scope="module")
def basis():
    geometry = SYMMETRIC["mixed"]
    return decompose(system_matrix(geometry), geometry.image_shape, symmetric=True)


def difference(one, other):
    return float((one - other).norm() / other.norm())


class TestDecomposition:
    def test_it_is_stored_as_contiguous_float32_vectors_and_float64_eigenvalues(self, case):
        pixels = case.dense.shape[1]
        assert len(case.basis.vectors) == case.blocks
        assert all(v.dtype == torch.float32 for v in case.basis.vectors)
        assert all(v.is_contiguous() for v in case.basis.vectors)
        assert sum(len(v) for v in case.basis.vectors) == pixels
        assert case.basis.eigenvalues.shape == (pixels,)
        assert case.basis.eigenvalues.dtype == torch.float64

    def test_the_eigenvalues_are_those_of_the_dense_matrix(self, case):
        expected = np.linalg.eigvalsh(case.dense.T @ case.dense)
        # In float32 they would be off by 1e-7; averaging away what breaks the symmetry costs less.
        tolerance = 1e-9 * expected[-1]
        found = np.sort(case.basis.eigenvalues.numpy())
        assert found.min() >= 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)

    def test_the_singular_values_are_those_of_the_dense_matrix(self, case):
        expected = np.zeros(case.dense.shape[1])
        values = np.linalg.svd(case.dense, compute_uv=False)
        expected[: len(values)] = values
        found = np.sort(case.basis.singular_values.numpy())[::-1]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected[0])
        assert torch.equal(case.basis.singular_values**2 > 0, case.basis.eigenvalues > 0)

    @pytest.mark.parametrize("power", [1, 2])
    def test_functions_of_the_eigenvalues_are_functions_of_the_operator(self, case, power):
        # The order of the eigenvalues has to be that of the coefficients.
        basis, image = case.basis, normal(3, *case.basis.image_shape)
        weights = (basis.eigenvalues**power).float()
        found = basis.synthesise(weights * basis.analyse(image)).double()
        expected = image
        for _ in range(power):
            expected = case.normal(expected)
        # The vectors are in float32, and ASTRA breaks the symmetry by 8e-5 of an entry.
        assert difference(found, expected) < 1e-5

    def test_symmetric_blocks_hold_the_eigenvalues_of_one_block(self, basis):
        geometry = SYMMETRIC["mixed"]
        whole = decompose(system_matrix(geometry), geometry.image_shape, symmetric=False)
        found = np.sort(basis.eigenvalues.numpy())
        expected = np.sort(whole.eigenvalues.numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * expected[-1])

    def test_the_blocks_are_even_and_odd_under_each_flip_in_the_order_told(self, basis):
        rows, columns = basis.image_shape
        # Of 12 rows 6 kinds are even and 6 odd; of 17 columns 9 and 8.
        assert [len(v) for v in basis.vectors] == [6 * 9, 6 * 8, 6 * 9, 6 * 8]
        vectors = basis.synthesise(torch.eye(rows * columns))
        blocks = vectors.split([len(v) for v in basis.vectors])
        for block, (up_down, left_right) in zip(blocks, product((1, -1), repeat=2), strict=True):
            assert (block.flip(1) - up_down * block).abs().max() < 1e-6
            assert (block.flip(2) - left_right * block).abs().max() < 1e-6

    def test_progress_is_shown_only_if_asked_for(self, capsys):
        matrix = scipy.sparse.csr_matrix(np.eye(4, dtype=np.float32))
        decompose(matrix, (2, 2), symmetric=True)
        assert capsys.readouterr().err == ""
        decompose(matrix, (2, 2), symmetric=True, progress=True)
        assert "eigenbasis" in capsys.readouterr().err


class TestTransform:
    def test_analysis_and_synthesis_undo_each_other(self, case):
        basis, image = case.basis, normal(3, *case.basis.image_shape)
        coefficients = basis.analyse(image)
        assert coefficients.shape == (3, image[0].numel())
        assert coefficients.dtype == torch.float32
        again = basis.synthesise(coefficients)
        assert again.shape == image.shape
        assert again.dtype == torch.float32
        assert difference(again, image) < 1e-5
        coefficients = normal(*coefficients.shape, seed=1)
        assert difference(basis.analyse(basis.synthesise(coefficients)), coefficients) < 1e-5

    def test_the_basis_is_orthonormal(self, case):
        basis, (rows, columns) = case.basis, case.basis.image_shape
        identity = torch.eye(rows * columns)
        vectors = basis.synthesise(identity).flatten(1)
        assert (vectors @ vectors.T - identity).abs().max() < 1e-5
        # Analysis is the transpose of synthesis.
        analysed = basis.analyse(identity.reshape(-1, rows, columns))
        assert (analysed - vectors.T).abs().max() < 1e-6

    def test_an_image_has_the_same_coefficients_alone_and_in_a_batch(self, case):
        image = normal(4, *case.basis.image_shape)
        batch = case.basis.analyse(image)
        assert difference(case.basis.analyse(image[2:3]), batch[2:3]) < 1e-6
        assert difference(case.basis.synthesise(batch[2:3]), image[2:3]) < 1e-5

    def test_memory_layout_does_not_matter_and_inputs_stay_as_they_are(self, case):
        rows, columns = case.basis.image_shape
        strided = normal(3, columns, rows).transpose(1, 2)
        before = strided.clone(memory_format=torch.contiguous_format)
        assert difference(case.basis.analyse(strided), case.basis.analyse(before)) < 1e-6
        assert torch.equal(strided, before)

    def test_no_images_have_no_coefficients(self, case):
        pixels = case.dense.shape[1]
        assert case.basis.analyse(torch.zeros(0, *case.basis.image_shape)).shape == (0, pixels)
        assert case.basis.synthesise(torch.zeros(0, pixels)).shape == (0, *case.basis.image_shape)

    def test_images_of_another_shape_are_refused_even_with_as_many_pixels(self, case):
        rows, columns = case.basis.image_shape
        with pytest.raises(DdgmError) as caught:
            case.basis.analyse(torch.zeros(2, columns, rows + (rows == columns)))
        assert str((rows, columns)) in str(caught.value)
        assert "\n" not in str(caught.value)


class TestFolding:
    @pytest.mark.parametrize("axis", [1, 2])
    @pytest.mark.parametrize("length", [1, 2, 3, 8, 9])
    def test_unfolding_undoes_folding_and_keeps_the_length_of_vectors(self, length, axis):
        shape = (3, length, 5) if axis == 1 else (3, 4, length)
        image = normal(*shape)
        even, odd = _fold(image, axis)
        assert even.shape[axis] == (length + 1) // 2
        assert odd.shape[axis] == length // 2
        assert difference(_unfold(even, odd, axis), image) < 1e-6
        squares = even.square().sum() + odd.square().sum()
        assert float(squares) == pytest.approx(float(image.square().sum()), rel=1e-5)

    @pytest.mark.parametrize("axis", [1, 2])
    @pytest.mark.parametrize("length", [6, 7])
    def test_an_even_image_has_no_odd_part_and_an_odd_one_no_even_part(self, length, axis):
        image = normal(2, length, length)
        assert _fold(image + image.flip(axis), axis)[1].abs().max() < 1e-6
        assert _fold(image - image.flip(axis), axis)[0].abs().max() < 1e-6


class TestFile:
    def test_what_was_saved_comes_back(self, case, tmp_path):
        path = tmp_path / "new" / "folder" / "basis.safetensors"
        case.basis.save(path)
        again = Eigenbasis.load(path)
        assert again.image_shape == case.basis.image_shape
        assert isinstance(again.image_shape, tuple)
        assert torch.equal(again.eigenvalues, case.basis.eigenvalues)
        assert again.eigenvalues.dtype == torch.float64
        for one, other in zip(again.vectors, case.basis.vectors, strict=True):
            assert torch.equal(one, other)
            assert one.is_contiguous()
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_a_path_may_be_a_string(self, basis, tmp_path):
        basis.save(f"{tmp_path}/basis")
        assert Eigenbasis.load(f"{tmp_path}/basis", "cpu").image_shape == basis.image_shape

    def test_an_absent_file_is_refused_with_its_name(self, tmp_path):
        for path in (tmp_path / "absent", tmp_path):
            with pytest.raises(DdgmError, match="no such file") as caught:
                Eigenbasis.load(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda whole: b"",
            lambda whole: whole[:4],
            lambda whole: whole[:100],
            lambda whole: whole[: len(whole) // 2],
            lambda whole: whole[:-1],
            lambda whole: whole + b"\0",
            lambda whole: b"\0" * len(whole),
            lambda whole: whole.replace(b"eigenvalues", b"eigenvalued"),
            lambda whole: b"One line\nand another, but no tensors.\n" * 10,
        ],
    )
    def test_a_damaged_file_is_refused_in_one_line_with_its_name(self, basis, tmp_path, damage):
        path = tmp_path / "basis.safetensors"
        basis.save(path)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DdgmError, match="damaged") as caught:
            Eigenbasis.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "metadata",
        [
            None,
            {"format": "ddgm-eigenbasis/0", "image_shape": "[2, 2]"},
            {"format": FORMAT},
            {"format": FORMAT, "image_shape": "[2"},
            {"format": FORMAT, "image_shape": "[2, 2, 2]"},
            {"format": FORMAT, "image_shape": "[2, 2]"},
        ],
    )
    def test_a_foreign_file_is_refused_in_one_line_with_its_name(self, tmp_path, metadata):
        path = tmp_path / "foreign.safetensors"
        safetensors.torch.save_file({"weights": torch.zeros(4)}, path, metadata=metadata)
        with pytest.raises(DdgmError) as caught:
            Eigenbasis.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_the_message_about_another_format_names_both(self, tmp_path):
        path = tmp_path / "old.safetensors"
        metadata = {"format": "ddgm-eigenbasis/0"}
        safetensors.torch.save_file({"eigenvalues": torch.zeros(4)}, path, metadata=metadata)
        with pytest.raises(DdgmError) as caught:
            Eigenbasis.load(path)
        assert "ddgm-eigenbasis/0" in str(caught.value)
        assert FORMAT in str(caught.value)

    def test_a_failed_save_leaves_the_old_file_and_no_other(self, basis, tmp_path):
        path = tmp_path / "basis.safetensors"
        basis.save(path)
        before = path.read_bytes()

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(DdgmError, match=r"basis.*cannot be written") as caught:
                basis.save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "\n" not in str(caught.value)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        assert path.read_bytes() == before

    def test_a_file_that_cannot_take_its_place_is_removed(self, basis, tmp_path):
        (tmp_path / "basis").mkdir()
        with pytest.raises(DdgmError, match="cannot be written"):
            basis.save(tmp_path / "basis")
        assert os.listdir(tmp_path) == ["basis"]

    def test_saving_again_replaces_the_file(self, basis, tmp_path):
        other = Eigenbasis((1, 2), (torch.eye(2),), torch.tensor([1.0, 2.0]).double())
        basis.save(tmp_path / "basis")
        other.save(tmp_path / "basis")
        assert Eigenbasis.load(tmp_path / "basis").image_shape == (1, 2)


def test_the_basis_moves_to_another_device_with_its_types(basis):
    moved = basis.to("meta")
    assert basis.device.type == "cpu"
    assert moved.device.type == moved.eigenvalues.device.type == "meta"
    assert moved.image_shape == basis.image_shape
    assert moved.eigenvalues.dtype == torch.float64
    assert [v.shape for v in moved.vectors] == [v.shape for v in basis.vectors]
