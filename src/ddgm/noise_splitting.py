"""The error of a reconstruction where the data decide, without the truth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddgm.denoiser import Denoiser
from ddgm.errors import DdgmError
from ddgm.methods import Method
from ddgm.noise import ImageNoise, Purpose
from ddgm.operator import LinearOperator
from ddgm.reconstruction import reconstruct

SHARE = 0.5  # τ: the first half has √(1 + τ²) = 1.12 times the noise, the second √5 times
NOISIEST = 4.0  # of a coefficient, in standard deviations of the image


def split_error(
    method: Method,
    operator: LinearOperator,
    data: Tensor,
    denoiser: Denoiser | None = None,
    *,
    noise_std: float,
    seed: int = 0,
    batch: int = 32,
) -> Tensor:
    """Compare a reconstruction with a measurement of independent noise, in the image.

    The data are split into y + τ σ_y ω and y − σ_y ω/τ with ω ~ N(0, 1), whose noise is independent
    if that of y is normal of standard deviation σ_y (the coupled bootstrap of Oliveira, Lei and
    Tibshirani 2021). The first is reconstructed; of the second, the coefficients Σ⁻¹Uᵀy along right
    singular vectors are those of the true image, but for their noise. The mean square of the
    difference, less the variance of that noise, is the squared error in expectation. Where views
    are held out each direction counts by its singular value; here all count alike, as they do in
    the mean squared error. Directions are left out in which σ_y/s is more than `NOISIEST`: of them
    the data say nothing.

    Parameters
    ----------
    method : Method
        The method with its settings.
    operator : LinearOperator
        The forward operator, with an eigenbasis.
    data : Tensor
        (count, views, detector) float32.
    denoiser : Denoiser, optional
        As `ddgm.reconstruction.reconstruct` takes it.
    noise_std : float
        σ_y, known or from `ddgm.noise_level.estimate_noise_std`.
    seed : int
        Of the reconstruction's noise and of ω.
    batch : int
        Images at a time.

    Returns
    -------
    Tensor
        (count,) float32: squared error a pixel in the directions that the data decide. It has an
        error of its own, which is the same for all methods and settings with one seed, but for what
        they do differently: good for comparing them, less so by itself.

    Raises
    ------
    DdgmError
        If the operator has no eigenbasis.
    """
    if operator.eigenbasis is None:
        rows, columns = operator.image_shape
        raise DdgmError(
            f"split error: images of {rows} × {columns} pixels are too large for an eigenbasis; "
            "choose settings on smaller ones"
        )
    noise = ImageNoise(
        seed, range(len(data)), operator.data_shape, purpose=Purpose.NOISE_SPLITTING
    ).draw()
    first, second = data + noise_std * SHARE * noise, data - noise_std / SHARE * noise
    result = reconstruct(
        method,
        operator,
        first,
        denoiser,
        noise_std=noise_std * math.sqrt(1 + SHARE**2),
        seed=seed,
        batch=batch,
    )
    s = operator.eigenbasis.singular_values
    seen = s > noise_std / NOISIEST
    variance = (noise_std**2 * (1 + 1 / SHARE**2) / s[seen].square()).sum()
    errors = []
    for images, measured in zip(
        torch.split(result.images, batch), torch.split(second, batch), strict=True
    ):
        found = operator.eigenbasis.analyse(images.to(operator.device))[:, seen].double()
        # Σ⁻¹Uᵀy = Σ⁻²VᵀAᵀy
        right_side = operator.right_side(measured.to(operator.device))[:, seen].double()
        difference = found - right_side / s[seen].square()
        errors.append((difference.square().sum(1) - variance).float().cpu())
    return torch.cat(errors) / math.prod(operator.image_shape)
