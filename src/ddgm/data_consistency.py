"""Where an image and its measurement contradict each other, in units of the measurement's noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddgm.eigenbasis import Eigenbasis, parities
from ddgm.errors import SettingError
from ddgm.operator import LinearOperator, check_shape

PROBES = 512  # random data by which column norms are estimated: to 1/√1024, 3 %


def check_noise_std(noise_std: float) -> None:
    """Refuse a σ_y that is no unit.

    Raises
    ------
    SettingError
        If it is not positive.
    """
    if not 0 < noise_std < math.inf:
        raise SettingError("noise_std", noise_std, "must be positive: it is the unit of residuals")


def residual(operator: LinearOperator, images: Tensor, data: Tensor, noise_std: float) -> Tensor:
    """Return (y − Ax)/σ_y: white and of variance 1 if x is the true image.

    Parameters
    ----------
    operator : LinearOperator
        The forward operator A.
    images : Tensor
        (count, rows, columns) float32, x.
    data : Tensor
        (count, views, detector) float32, y.
    noise_std : float
        σ_y, > 0.

    Returns
    -------
    Tensor
        (count, views, detector) float32. For an image that has been fitted to these data its mean
        square is below 1: the image follows some of their noise. For the posterior mean of a
        Gaussian prior of covariance C it is the mean of σ_y²/(σ_y² + v) over the eigenvalues v of
        A C Aᵀ.

    Raises
    ------
    SettingError
        If σ_y is not positive.
    """
    check_noise_std(noise_std)
    return (data - operator.forward(images)) / noise_std


def score_map(operator: LinearOperator, residuals: Tensor, norms: Tensor) -> Tensor:
    """Return by how many standard deviations the data ask for another value, pixel by pixel.

    The gradient of the log-likelihood −‖Ax − y‖²/(2σ_y²) is Aᵀ(y − Ax)/σ_y². If x is the true
    image, it has mean 0 and covariance AᵀA/σ_y², hence in pixel j the standard deviation
    ‖a_j‖/σ_y, with a_j the column of A. Their quotient (Rao's score statistic of each pixel) is

        z_j = a_jᵀ (y − Ax) / (σ_y ‖a_j‖).

    Parameters
    ----------
    operator : LinearOperator
        The forward operator A.
    residuals : Tensor
        (count, views, detector) float32, (y − Ax)/σ_y as `residual` returns it.
    norms : Tensor
        (rows, columns) float32, ‖a_j‖ as `column_norms` returns it.

    Returns
    -------
    Tensor
        (count, rows, columns) float32: of variance 1 in every pixel if x is the true image, and
        smaller if x was fitted to these data. Above 0 the views ask for a brighter pixel. Pixels
        that no view sees have 0. Neighbours are not independent: the map is as smooth as a
        back-projection.
    """
    check_shape(norms, operator.image_shape, "norms of the columns")
    seen = norms > 0
    return torch.where(seen, operator.adjoint(residuals) / norms.where(seen, 1.0), 0.0)


def column_norms(operator: LinearOperator, *, seed: int = 0, batch: int = 32) -> Tensor:
    """Return the norms ‖a_j‖ of A's columns, the square roots of the diagonal of AᵀA.

    With an eigenbasis AᵀA = V diag(w) Vᵀ the diagonal is Σ_k w_k V_jk². Without, it is the variance
    of Aᵀε over random ε ~ N(0, 1), `PROBES` of them.

    Parameters
    ----------
    operator : LinearOperator
        The forward operator A.
    seed : int
        Of the random data.
    batch : int
        Random data at a time.

    Returns
    -------
    Tensor
        (rows, columns) float32, on the operator's device; without an eigenbasis to 3 % (standard
        error).
    """
    if operator.eigenbasis is not None:
        return _diagonal(operator.eigenbasis).clamp_min(0.0).sqrt().float()
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(operator.image_shape, dtype=torch.float64, device=operator.device)
    for first in range(0, PROBES, batch):
        noise = torch.randn(
            min(batch, PROBES - first), *operator.data_shape, generator=generator
        ).to(operator.device)
        total += operator.adjoint(noise).double().square().sum(0)
    return (total / PROBES).sqrt().float()


def _diagonal(basis: Eigenbasis) -> Tensor:
    """Return Σ_k w_k V_jk², (rows, columns) float64."""
    values = torch.split(basis.eigenvalues, [len(v) for v in basis.vectors])
    parts = [
        torch.cat([rows.double().square() @ w for rows in torch.split(v, 1024)])
        for v, w in zip(basis.vectors, values, strict=True)
    ]
    if len(parts) == 1:
        return parts[0].reshape(basis.image_shape)
    # A pixel is in one pixel of each folded quarter, so that squares unfold as the values do.
    unfolded = sum(
        torch.from_numpy(unfolding.power(2) @ part.cpu().numpy())
        for unfolding, part in zip(parities(basis.image_shape), parts, strict=True)
    )
    assert isinstance(unfolded, Tensor)
    return unfolded.reshape(basis.image_shape).to(basis.device)
