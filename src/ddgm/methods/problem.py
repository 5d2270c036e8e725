"""What every reconstruction method is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import Field, astuple, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ddgm.errors import DdgmError, DivergenceError, SettingError
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
        Gradients of ½‖Ax − y‖², one A and one Aᵀ each. Steps that an eigenbasis takes all at once
        count as the algorithm's K; an exact proximal step, which takes none, as 0.
    adjoint : int
        Further products with Aᵀ alone.
    network : int
        Forward passes of the denoising network.
    network_gradient : int
        Backward passes through the network, to its input.
    """

    gradient: int = 0
    adjoint: int = 0
    network: int = 0
    network_gradient: int = 0

    def most(self, other: Evaluations) -> Evaluations:
        """Return the larger of each of two counts."""
        counts = zip(astuple(self), astuple(other), strict=True)
        return Evaluations(*(max(pair) for pair in counts))


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
    noise_std : float, optional
        Standard deviation σ_y of the measurement's noise; some methods need it.
    watch : callable, optional
        Called with the work so far after each evaluation of the network, to show progress.
    """

    def __init__(
        self,
        operator: LinearOperator,
        data: Tensor,
        denoiser: NoisePredictor | None = None,
        noise: ImageNoise | None = None,
        noise_std: float | None = None,
        watch: Callable[[Evaluations], None] | None = None,
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
        self._noise_std = noise_std
        self._watch = watch
        self._right_side: Tensor | None = None

    @property
    def noise_std(self) -> float:
        """Standard deviation σ_y of the measurement's noise, > 0."""
        if self._noise_std is None:
            raise DdgmError("this method needs noise_std, that of the noise of the data")
        if not 0 < self._noise_std < math.inf:
            raise SettingError(
                "noise_std", self._noise_std, "must be positive and finite for this method"
            )
        return self._noise_std

    @property
    def right_side(self) -> Tensor:
        """Aᵀy in the operator's own form, computed once."""
        if self._right_side is None:
            self.evaluations.adjoint += 1
            self._right_side = self.operator.right_side(self.data)
        return self._right_side

    def zeros(self) -> Tensor:
        """Return x = 0 for every image of the batch, (batch, rows, columns)."""
        return self.data.new_zeros(len(self.data), *self.operator.image_shape)

    def descend(self, image: Tensor, step_size: float, steps: int) -> Tensor:
        """Take `steps` times x ← x − λ Aᵀ(Ax − y)."""
        right_side = self.right_side
        self.evaluations.gradient += steps
        return self.operator.descend(image, right_side, step_size, steps)

    def proximal(self, image: Tensor, weight: float) -> Tensor:
        """Return argmin_x ½‖Ax − y‖² + weight/2 ‖x − image‖²."""
        solution, gradients = self.operator.proximal(image, self.right_side, weight)
        self.evaluations.gradient += gradients
        return solution

    def residual_gradient(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return Aᵀ(Ax − y), the gradient of ½‖Ax − y‖², and the norms ‖Ax − y‖, (batch, 1, 1)."""
        self.evaluations.gradient += 1
        residual = self.operator.forward(image) - self.data
        return self.operator.adjoint(residual), residual.square().sum((1, 2), keepdim=True).sqrt()

    def predict_noise(self, image: Tensor) -> Tensor:
        """Return ε_θ(x)."""
        if self._denoiser is None:
            raise DdgmError("this method needs a denoising network; none was given")
        noise = self._denoiser(image)
        self.evaluations.network += 1
        if self._watch is not None:
            self._watch(self.evaluations)
        return noise

    def predict_noise_with_pullback(
        self, image: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return ε_θ(x), and the function v ↦ (∂ε_θ/∂x)ᵀ v, which may be called once."""
        import torch

        with torch.enable_grad():
            variable = image.detach().requires_grad_()
            noise = self.predict_noise(variable)

        def pullback(vector: Tensor) -> Tensor:
            self.evaluations.network_gradient += 1
            return torch.autograd.grad(noise, variable, vector)[0]

        return noise.detach(), pullback

    def draw_noise(self) -> Tensor:
        """Return the next ε ~ N(0, 1) of every image."""
        if self._noise is None:
            raise DdgmError("this method is random; it needs a source of noise")
        return self._noise.draw()


class Method(Protocol):
    """A reconstruction method with its settings.

    Implementations are frozen dataclasses, whose fields are what the configuration may set.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    needs_svd: ClassVar[bool]
    needs_network: ClassVar[bool]
    needs_network_gradient: ClassVar[bool]
    needs_noise_std: ClassVar[bool]

    def schedule(self) -> tuple[float, ...]:
        """Return the noise levels, the first one first; none for a method without a network."""

    def check(self, operator: LinearOperator) -> None:
        """Raise `DdgmError` if the settings do not suit the operator."""

    def solve(self, problem: Problem) -> Tensor:
        """Return reconstructions, (batch, rows, columns) in network units."""


LARGEST_VALUE = 1e4  # standard deviations of the images; the highest noise level is 30


def check_image(image: Tensor, what: str, limit: float = LARGEST_VALUE) -> None:
    """Stop at the iteration at which a method diverges.

    Parameters
    ----------
    image : Tensor
        Images in network units.
    what : str
        Method, iteration and noise level; the message begins with it.
    limit : float
        Largest absolute value allowed.

    Raises
    ------
    DivergenceError
        If a value is not finite or out of all proportion.
    """
    peak = float(image.abs().amax())
    if not peak <= limit:
        raise DivergenceError(
            f"{what}: values reach {peak:.3g}; the method diverges (check the step size, the units "
            "of the data and the network)"
        )
