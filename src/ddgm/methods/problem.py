"""What every reconstruction method is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from ddgm.errors import DdgmError
from ddgm.operator import LinearOperator

if TYPE_CHECKING:
    from torch import Tensor

    from ddgm.denoiser import NoisePredictor
    from ddgm.noise import ImageNoise


@dataclass
class Evaluations:
    """Work spent on one image, counted where it is done.

    Attributes
    ----------
    gradient : int
        Gradients of ½‖Ax − y‖², one A and one Aᵀ each.
    network : int
        Forward passes of the denoising network.
    """

    gradient: int = 0
    network: int = 0


class Problem:
    """A batch of measurements to explain: find x with A x ≈ y, given a denoiser as a prior.

    Methods see operator, data and network only through this object, which counts what they use.

    Parameters
    ----------
    operator : LinearOperator
        The forward operator A.
    data : Tensor
        (batch, views, detector) float32, measurements y.
    denoiser : NoisePredictor, optional
        The noise-prediction network ε_θ; methods without a prior need none.
    noise : ImageNoise, optional
        Source of each image's noise; methods without randomness need none.
    """

    def __init__(
        self,
        operator: LinearOperator,
        data: Tensor,
        denoiser: NoisePredictor | None = None,
        noise: ImageNoise | None = None,
    ) -> None:
        if tuple(data.shape[1:]) != operator.data_shape:
            raise DdgmError(
                f"data are {tuple(data.shape)}; the operator expects (batch, "
                f"{operator.data_shape[0]}, {operator.data_shape[1]})"
            )
        if not data.isfinite().all():
            raise DdgmError("data: they hold values that are not finite")
        self.operator = operator
        self.data = data
        self.evaluations = Evaluations()
        self._denoiser = denoiser
        self._noise = noise

    def zeros(self) -> Tensor:
        """Return x = 0 for every image of the batch, (batch, rows, columns)."""
        return self.data.new_zeros(len(self.data), *self.operator.image_shape)

    def gradient(self, image: Tensor) -> Tensor:
        """Return ∇ ½‖Ax − y‖² = Aᵀ(Ax − y)."""
        self.evaluations.gradient += 1
        return self.operator.adjoint(self.operator.forward(image) - self.data)

    def predict_noise(self, image: Tensor) -> Tensor:
        """Return ε_θ(x)."""
        if self._denoiser is None:
            raise DdgmError("this method needs a denoising network; none was given")
        self.evaluations.network += 1
        return self._denoiser(image)

    def draw_noise(self) -> Tensor:
        """Return the next ε ~ N(0, 1) of every image."""
        if self._noise is None:
            raise DdgmError("this method is random; it needs a source of noise")
        return self._noise.draw()


class Method(Protocol):
    """A reconstruction method with its settings.

    Implementations are frozen dataclasses, whose fields are what the configuration may set.
    """

    needs_svd: ClassVar[bool]
    needs_network: ClassVar[bool]
    needs_network_gradient: ClassVar[bool]

    def check(self, operator: LinearOperator) -> None:
        """Raise `DdgmError` if the settings do not suit the operator."""

    def solve(self, problem: Problem) -> Tensor:
        """Return reconstructions, (batch, rows, columns) in network units."""


def check_finite(image: Tensor, what: str) -> None:
    """Stop at the iteration at which a method diverges.

    Raises
    ------
    DdgmError
        If a value is not finite; the message begins with `what`.
    """
    if not image.isfinite().all():
        raise DdgmError(f"{what}: the image is no longer finite; the method diverges")
