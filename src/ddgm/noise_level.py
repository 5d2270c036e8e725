"""The noise level of tilt views, from the views themselves."""

from __future__ import annotations

import math

from torch import Tensor

from ddgm.errors import DdgmError
from ddgm.operator import LinearOperator

# Singular values between which A passes hardly any of an image of unit variance, and float32 still
# resolves what it passes.
_BLIND = (0.1, 0.5)


def estimate_noise_std(operator: LinearOperator, data: Tensor) -> float:
    """Estimate the standard deviation σ_y of the noise of tilt views.

    With the eigenbasis of AᵀA, from the components of y along left singular vectors whose singular
    values s are so small that s times an image of unit variance is far below the noise: what is
    seen there is noise. Without, from second differences along views and detector at once, to which
    a smooth sinogram adds little (Immerkær 1996); it comes out a few per cent high. Both take noise
    of less than about 0.5, the structure of the image, for more than it is.

    Parameters
    ----------
    operator : LinearOperator
        The forward operator A.
    data : Tensor
        (count, views, detector) float32, tilt views of normalised images.

    Returns
    -------
    float
        Estimate of σ_y.

    Raises
    ------
    DdgmError
        If there are fewer than 3 views or detector bins, and no eigenbasis.
    """
    basis, data = operator.eigenbasis, data.to(operator.device)
    if basis is not None:
        s = basis.singular_values
        unseen = (s > _BLIND[0]) & (s < _BLIND[1])
        if int(unseen.sum()) * len(data) >= 1000:
            # Uᵀy = Σ⁻¹ VᵀAᵀy.
            coefficients = operator.right_side(data).double()[:, unseen] / s[unseen]
            return float(coefficients.square().mean().sqrt())
    if min(data.shape[1:]) < 3:
        raise DdgmError(
            f"noise level: {data.shape[1]} views of {data.shape[2]} detector bins are too few; "
            "at least 3 of both are needed"
        )
    rows = data[:, 2:] - 2 * data[:, 1:-1] + data[:, :-2]
    differences = rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2]
    return float(differences.abs().mean()) * math.sqrt(math.pi / 2) / 6
