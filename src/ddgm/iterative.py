"""Steps towards the data that need nothing but A and Aᵀ, for operators of any size."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ddgm.errors import DdgmError
from ddgm.operator import LinearOperator, check_shape, check_weight

if TYPE_CHECKING:
    from ddgm.eigenbasis import Eigenbasis

PROXIMAL_TOLERANCE = 1e-3
# With this the proximal method's error is no larger, for a quarter of the products with AᵀA:
# without a preconditioner the residual hides what is missing in directions hardly measured.
PRECONDITIONED_TOLERANCE = 1e-2
PROXIMAL_ITERATIONS = 50


class Preconditioner(Protocol):
    """An approximate inverse of AᵀA + weight: linear, symmetric and positive definite."""

    def apply(self, residual: Tensor, weight: float) -> Tensor:
        """Apply it to images (batch, rows, columns)."""


class IterativeOperator(ABC):
    """An operator whose steps are loops over A and Aᵀ; subclasses supply these two."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of an image x."""

    @property
    @abstractmethod
    def data_shape(self) -> tuple[int, int]:
        """Rows and columns of the data y."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where A lives."""

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Apply A to images (..., rows, columns)."""

    @abstractmethod
    def adjoint(self, data: Tensor) -> Tensor:
        """Apply Aᵀ to data (..., rows, columns)."""

    @property
    def eigenbasis(self) -> Eigenbasis | None:
        """None: the eigenvectors of AᵀA are not known."""
        return None

    @functools.cached_property
    def preconditioner(self) -> Preconditioner | None:
        """None: nothing is known of AᵀA that would make conjugate gradients faster."""
        return None

    @functools.cached_property
    def norm(self) -> float:
        """Largest singular value σ_max of A, by power iteration."""
        return largest_singular_value(self)

    @property
    def max_step_size(self) -> float:
        """Largest stable step of gradient descent on ½‖Ax − y‖², 2/σ_max²."""
        return 2.0 / self.norm**2

    def right_side(self, data: Tensor) -> Tensor:
        """Return Aᵀy, (batch, rows, columns)."""
        return self.adjoint(data)

    def descend(self, image: Tensor, right_side: Tensor, step_size: float, steps: int) -> Tensor:
        """Take gradient steps x ← x − λ (AᵀA x − Aᵀy), one by one.

        Parameters
        ----------
        image : Tensor
            (batch, rows, columns) float32, where to start.
        right_side : Tensor
            What `right_side` returned for the data.
        step_size : float
            λ.
        steps : int
            Number of steps K.
        """
        image = image.clone()
        for _ in range(steps):
            # In place: images of a long slab are large.
            gradient = self._normal(image)
            gradient -= right_side
            image.sub_(gradient, alpha=step_size)
        return image

    def proximal(self, image: Tensor, right_side: Tensor, weight: float) -> tuple[Tensor, int]:
        """Solve (AᵀA + weight) x = Aᵀy + weight · image by conjugate gradients, from `image`.

        Each image has its own step lengths, so that its result does not depend on the batch but for
        rounding. The loop ends when no residual exceeds `PROXIMAL_TOLERANCE` of its start, or after
        `PROXIMAL_ITERATIONS`: the regularised solution needs no more digits than the measurement.
        With a preconditioner, which lets all directions converge together, the loop ends at
        `PRECONDITIONED_TOLERANCE`.

        Parameters
        ----------
        image : Tensor
            (batch, rows, columns) float32, the image to stay close to.
        right_side : Tensor
            What `right_side` returned for the data.
        weight : float
            Weight of ½‖x − image‖² against ½‖Ax − y‖², > 0.

        Returns
        -------
        solution : Tensor
            (batch, rows, columns) float32.
        gradients : int
            Products with AᵀA it took, for the image of the batch that took most.

        Raises
        ------
        SettingError
            If the weight is not positive.
        """
        check_weight(weight)
        preconditioner = self.preconditioner
        tolerance = PROXIMAL_TOLERANCE if preconditioner is None else PRECONDITIONED_TOLERANCE
        solution = image
        residual = right_side - self._normal(image)
        size = _squares(residual)
        goal = tolerance**2 * size
        direction, previous = torch.zeros_like(residual), torch.full_like(size, math.inf)
        gradients = 1
        while gradients <= PROXIMAL_ITERATIONS and bool((size > goal).any()):
            # An image that has converged stays as it is while others go on.
            running = size > goal
            step = residual
            if preconditioner is not None:
                step = preconditioner.apply(residual, weight)
            gain = _dots(residual, step)
            direction = step + torch.where(running, gain / previous, 0.0) * direction
            image_of = self._normal(direction) + weight * direction
            gradients += 1
            length = torch.where(running, gain / _dots(direction, image_of), 0.0)
            solution = solution + length * direction
            residual = residual - length * image_of
            previous, size = gain, torch.where(running, _squares(residual), size)
        return solution, gradients

    def _normal(self, image: Tensor) -> Tensor:
        return self.adjoint(self.forward(image))


class MatrixOperator(IterativeOperator):
    """An operator given as a dense matrix: any small linear inverse problem.

    Parameters
    ----------
    matrix : Tensor
        (data, pixels) float32; images are flattened row by row. Without rows nothing is measured.
    image_shape : (int, int)
        Rows and columns of an image.
    """

    def __init__(self, matrix: Tensor, image_shape: tuple[int, int]) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != image_shape[0] * image_shape[1]:
            raise DdgmError(
                f"matrix is {tuple(matrix.shape)}; images of {image_shape} pixels need "
                f"(data, {image_shape[0] * image_shape[1]})"
            )
        self.matrix = matrix
        self._image_shape = image_shape

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        return self._image_shape

    @property
    def data_shape(self) -> tuple[int, int]:
        """One row, with all data."""
        return 1, len(self.matrix)

    @property
    def device(self) -> torch.device:
        """Where the matrix lives."""
        return self.matrix.device

    def forward(self, image: Tensor) -> Tensor:
        """Apply A to images (..., rows, columns)."""
        check_shape(image, self.image_shape, "image")
        return (image.flatten(-2) @ self.matrix.T).unsqueeze(-2)

    def adjoint(self, data: Tensor) -> Tensor:
        """Apply Aᵀ to data (..., 1, data)."""
        check_shape(data, self.data_shape, "data")
        return (data.flatten(-2) @ self.matrix).reshape(*data.shape[:-2], *self.image_shape)


def largest_singular_value(
    operator: LinearOperator,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
) -> float:
    """Return σ_max of an operator by power iteration on AᵀA.

    The start is a constant image with a little seeded noise: entries of a projection matrix are not
    negative, so its leading singular vector is close to constant, and noise reaches it for others.

    Parameters
    ----------
    operator : LinearOperator
        The operator.
    tolerance : float
        Relative change of σ_max² at which to stop.
    max_iterations : int
        Most iterations to spend.

    Returns
    -------
    float
        σ_max; approached from below.

    Raises
    ------
    DdgmError
        If the operator maps every image to zero.
    """
    noise = torch.randn(operator.image_shape, generator=torch.Generator().manual_seed(0))
    vector = (1.0 + 0.1 * noise).to(operator.device)
    vector /= vector.norm()
    previous = 0.0
    for _ in range(max_iterations):
        vector = operator.adjoint(operator.forward(vector))
        eigenvalue = float(vector.norm())
        if eigenvalue == 0.0:
            raise DdgmError("operator: it maps every image to zero; check the geometry")
        vector /= eigenvalue
        if abs(eigenvalue - previous) <= tolerance * eigenvalue:
            break
        previous = eigenvalue
    return math.sqrt(eigenvalue)


def _squares(image: Tensor) -> Tensor:
    return _dots(image, image)


def _dots(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(dim=(-2, -1), keepdim=True)
