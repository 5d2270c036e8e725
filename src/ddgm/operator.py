"""The contract of a forward operator A, and checks of what it is given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from ddgm.errors import DdgmError, SettingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ddgm.eigenbasis import Eigenbasis


class LinearOperator(Protocol):
    """What a reconstruction method needs of a measurement: A, its adjoint, and steps towards data.

    Every implementation keeps ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ to 1e-5 relative in float32. Those with an
    eigenbasis of AᵀA take all gradient steps at once, the others one by one: the results differ by
    1e-4 relative at most. A proximal step is exact with an eigenbasis, and as exact as conjugate
    gradients get in a limited number of steps without.
    """

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of an image x."""

    @property
    def data_shape(self) -> tuple[int, int]:
        """Rows and columns of the data y."""

    @property
    def max_step_size(self) -> float:
        """Largest stable step of gradient descent on ½‖Ax − y‖², 2/σ_max²."""

    @property
    def device(self) -> torch.device:
        """Where A lives; images and data have to live there too."""

    @property
    def eigenbasis(self) -> Eigenbasis | None:
        """Eigenvectors and eigenvalues of AᵀA, where they are known."""

    def forward(self, image: Tensor) -> Tensor:
        """Apply A to images (..., rows, columns)."""

    def adjoint(self, data: Tensor) -> Tensor:
        """Apply Aᵀ to data (..., rows, columns)."""

    def right_side(self, data: Tensor) -> Tensor:
        """Return Aᵀy, in the form that `descend` and `proximal` take it.

        With an eigenbasis these are its coefficients VᵀAᵀy, (batch, pixels), else images. To be
        computed once a measurement: all steps need it.
        """

    def descend(self, image: Tensor, right_side: Tensor, step_size: float, steps: int) -> Tensor:
        """Take gradient steps x ← x − λ Aᵀ(Ax − y) on images (batch, rows, columns)."""

    def proximal(self, image: Tensor, right_side: Tensor, weight: float) -> tuple[Tensor, int]:
        """Return argmin_x ½‖Ax − y‖² + weight/2 ‖x − image‖², and the gradients it took.

        The number of gradients Aᵀ(Ax − y) is 0 where the eigenbasis gives the answer at once; else
        it is that of the image of the batch that took most.
        """


def check_step_size(operator: LinearOperator, step_size: float) -> None:
    """Refuse a step size at which gradient descent diverges.

    Parameters
    ----------
    operator : LinearOperator
        The operator A.
    step_size : float
        Step λ of x ← x − λ Aᵀ(Ax − y).

    Raises
    ------
    SettingError
        If λ is not in (0, 2/σ_max²); the message names the limit.
    """
    limit = operator.max_step_size
    if not 0 < step_size < limit:
        raise SettingError(
            "step_size",
            step_size,
            f"is outside (0, {limit:.3g}): with a step size above 2/σ_max² = {limit:.3g} gradient "
            "descent on ½‖Ax − y‖² diverges",
        )


def check_weight(weight: float) -> None:
    """Refuse a weight without which the proximal step has no unique answer."""
    if not 0 < weight < math.inf:
        raise SettingError("weight", weight, "of a proximal step must be positive and finite")


def check_shape(values: Tensor, expected: tuple[int, int], what: str) -> None:
    """Refuse images or data of another size than the operator's."""
    if tuple(values.shape[-2:]) != expected:
        raise DdgmError(
            f"{what} is {tuple(values.shape[-2:])} pixels; the operator expects {expected}"
        )
