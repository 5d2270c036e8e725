"""The operator that takes all gradient steps at once, or a proximal one, in its eigenbasis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddgm.eigenbasis import Eigenbasis
from ddgm.errors import DdgmError
from ddgm.operator import LinearOperator, check_weight


class FusedOperator:
    """An operator with its eigenbasis: K gradient steps, or a proximal one, at the cost of one.

    Parameters
    ----------
    operator : LinearOperator
        The forward operator A.
    eigenbasis : Eigenbasis
        Of AᵀA, on the operator's device.
    """

    def __init__(self, operator: LinearOperator, eigenbasis: Eigenbasis) -> None:
        if eigenbasis.image_shape != operator.image_shape:
            raise DdgmError(
                f"eigenbasis: it is for images of {eigenbasis.image_shape} pixels; the operator's "
                f"have {operator.image_shape}"
            )
        self._operator = operator
        self._eigenbasis = eigenbasis

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of an image x."""
        return self._operator.image_shape

    @property
    def data_shape(self) -> tuple[int, int]:
        """Rows and columns of the data y."""
        return self._operator.data_shape

    @property
    def device(self) -> torch.device:
        """Where A lives."""
        return self._operator.device

    @property
    def eigenbasis(self) -> Eigenbasis:
        """Eigenvectors and eigenvalues of AᵀA."""
        return self._eigenbasis

    @property
    def norm(self) -> float:
        """Largest singular value σ_max of A."""
        largest = float(self._eigenbasis.eigenvalues.max())
        if largest == 0.0:
            raise DdgmError("operator: it maps every image to zero; check the geometry")
        return math.sqrt(largest)

    @property
    def max_step_size(self) -> float:
        """Largest stable step of gradient descent on ½‖Ax − y‖², 2/σ_max²."""
        return 2.0 / self.norm**2

    def forward(self, image: Tensor) -> Tensor:
        """Apply A to images (..., rows, columns)."""
        return self._operator.forward(image)

    def adjoint(self, data: Tensor) -> Tensor:
        """Apply Aᵀ to data (..., rows, columns)."""
        return self._operator.adjoint(data)

    def right_side(self, data: Tensor) -> Tensor:
        """Return VᵀAᵀy, (batch, pixels)."""
        return self._eigenbasis.analyse(self.adjoint(data))

    def descend(self, image: Tensor, right_side: Tensor, step_size: float, steps: int) -> Tensor:
        """Take K gradient steps at once.

        They are one affine map: V [ (1−λw)^K Vᵀx + (1 − (1−λw)^K)/w VᵀAᵀy ].
        """
        w = self._eigenbasis.eigenvalues
        kept = (1.0 - step_size * w) ** steps
        # Where λw is lost in rounding, the limit for w → 0.
        small = step_size * w < 1e-9
        gained = torch.where(small, steps * step_size, (1.0 - kept) / w.clamp_min(1e-300))
        coefficients = kept.float() * self._eigenbasis.analyse(image) + gained.float() * right_side
        return self._eigenbasis.synthesise(coefficients)

    def proximal(self, image: Tensor, right_side: Tensor, weight: float) -> tuple[Tensor, int]:
        """Solve (AᵀA + weight) x = Aᵀy + weight · image exactly; it takes no gradient.

        Parameters
        ----------
        image : Tensor
            (batch, rows, columns) float32, the image to stay close to.
        right_side : Tensor
            (batch, pixels), what `right_side` returned for the data.
        weight : float
            Weight of ½‖x − image‖² against ½‖Ax − y‖², > 0.
        """
        check_weight(weight)
        shrink = (1.0 / (self._eigenbasis.eigenvalues + weight)).float()
        coefficients = shrink * (right_side + weight * self._eigenbasis.analyse(image))
        return self._eigenbasis.synthesise(coefficients), 0
