"""Data consistency against white noise, and against what is known in closed form."""

import math

import pytest
import scipy.sparse
import torch

from ddgm.data_consistency import column_norms, residual, score_map
from ddgm.eigenbasis import decompose
from ddgm.errors import DdgmError
from ddgm.fused import FusedOperator
from ddgm.geometry import TiltGeometry
from ddgm.iterative import MatrixOperator
from ddgm.projector import Projector, system_matrix


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 12), (7, 9), (5, 8)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_norms_of_columns_are_those_of_the_matrix(shape, symmetric):
    geometry = TiltGeometry.limited_angle(shape, views=10)
    matrix = system_matrix(geometry)
    basis = decompose(matrix, shape, symmetric=symmetric)
    found = column_norms(FusedOperator(Projector(geometry), basis))
    expected = torch.from_numpy(scipy.sparse.linalg.norm(matrix, axis=0)).reshape(shape)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)


def test_without_an_eigenbasis_the_norms_are_estimated(projector):
    matrix = system_matrix(projector.geometry)
    expected = torch.from_numpy(scipy.sparse.linalg.norm(matrix, axis=0)).reshape(16, 16)
    ratio = column_norms(projector) / expected
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.01)
    assert float((ratio - 1).square().mean().sqrt()) == pytest.approx(1 / math.sqrt(1024), rel=0.3)
    assert torch.equal(column_norms(projector), column_norms(projector))


def test_of_the_true_image_residuals_and_scores_have_variance_one(projector, images):
    truth = images[:1].expand(3000, -1, -1)
    data = projector.forward(truth) + 0.7 * normal(3000, *projector.data_shape, seed=1)
    left = residual(projector, truth, data, 0.7)
    assert float(left.square().mean()) == pytest.approx(1.0, abs=0.01)
    matrix = system_matrix(projector.geometry)
    norms = torch.from_numpy(scipy.sparse.linalg.norm(matrix, axis=0)).reshape(16, 16).float()
    scores = score_map(projector, left, norms)
    # In each pixel a variance of 3000 draws, to 2.6 %; the map's mean is tighter.
    assert float(scores.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert float((scores.square().mean(0) - 1).abs().amax()) < 0.13
    assert float(scores.mean(0).abs().amax()) < 0.08


def test_a_wrong_pixel_stands_out_by_as_many_deviations_as_theory_says(projector, images):
    norms = column_norms(projector)
    data = projector.forward(images)
    wrong = images.clone()
    wrong[:, 6, 9] -= 0.5  # too dark: the views ask for more
    scores = score_map(projector, residual(projector, wrong, data, 0.1), norms)
    matrix = system_matrix(projector.geometry)
    length = scipy.sparse.linalg.norm(matrix[:, [6 * 16 + 9]])
    assert scores[:, 6, 9].tolist() == pytest.approx([0.5 * length / 0.1] * 5, rel=0.1)
    assert (scores.flatten(1).argmax(1) == 6 * 16 + 9).all()


def test_a_pixel_that_no_view_sees_has_no_score():
    matrix = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    basis = decompose(scipy.sparse.csr_matrix(matrix.numpy()), (1, 2), symmetric=False)
    operator = FusedOperator(MatrixOperator(matrix, (1, 2)), basis)
    left = residual(operator, torch.zeros(1, 1, 2), torch.ones(1, 1, 2), 1.0)
    found = score_map(operator, left, column_norms(operator))
    assert found[0, 0].tolist() == pytest.approx([3 / math.sqrt(5), 0.0])


@pytest.mark.parametrize("noise_std", [0.0, -1.0, math.nan, math.inf])
def test_without_noise_there_is_no_unit(projector, images, noise_std):
    with pytest.raises(DdgmError, match="noise_std"):
        residual(projector, images, projector.forward(images), noise_std)
