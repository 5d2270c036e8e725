"""Diffusion posterior sampling on this project's schedule, the paper's DPS* (Eqs. 5 and 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.errors import SettingError
from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator
from ddgm.schedules import generation_alpha, generation_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DPS:
    """Generation (Eq. 2), each step corrected by the gradient of the data error.

    x ← x − α σ_n ε_θ(x) + √(αβ) σ_n ε − ζ ∇_x ‖A(x − σ_n ε_θ(x)) − y‖² / ‖A(x − σ_n ε_θ(x)) − y‖,
    where α takes the noise from σ₁ to σ_N in N levels. The gradient goes through the network.

    The step is ζ times a gradient that does not get shorter as the data are met: below
    ‖Ax − y‖ = ζ σ_max² it overshoots in the leading singular direction, so that this is as near as
    the method comes to the data. The default is the paper's ζ = 0.1 for the gradient of ½‖·‖², the
    one its λ is for (docs/reproduction.md).

    Attributes
    ----------
    N : int
        Noise levels, each with one evaluation of the network and one of its gradient.
    sigma_1, sigma_N : float
        First and last noise level, in network units.
    beta : float
        How much of the noise taken away is drawn anew.
    zeta : float
        ζ, strength of the data.
    rescaled : bool
        Divide the gradient by √(1 + σ_n²) (Eq. 6) or not (Eq. 5).
    """

    N: int = 1000
    sigma_1: float = 3.0
    sigma_N: float = 0.03  # noqa: N815 (the paper's name)
    beta: float = 0.5
    zeta: float = 0.05
    rescaled: bool = True

    needs_svd: ClassVar[bool] = False
    needs_network: ClassVar[bool] = True
    needs_network_gradient: ClassVar[bool] = True
    needs_noise_std: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.zeta >= 0:
            raise SettingError("zeta", self.zeta, "must not be negative")
        self.schedule()

    @property
    def alpha(self) -> float:
        """Part of the predicted noise that a step takes away."""
        return generation_alpha(self.sigma_1, self.sigma_N, self.beta, self.N)

    def schedule(self) -> tuple[float, ...]:
        """Return the noise levels σ_1 … σ_N."""
        return generation_decay(self.sigma_1, self.alpha, self.beta, self.N)

    def check(self, operator: LinearOperator) -> None:
        """Any operator will do."""

    def solve(self, problem: Problem) -> Tensor:
        """Run Eq. 5 or 6."""
        alpha = self.alpha
        anew = math.sqrt(alpha * self.beta)
        x = self.sigma_1 * problem.draw_noise()
        for n, sigma in enumerate(self.schedule(), start=1):
            noise, pullback = problem.predict_noise_with_pullback(x)
            half_gradient, error = problem.residual_gradient(x - sigma * noise)
            # The chain rule through x − σ ε_θ(x); ½‖·‖² has half the gradient of ‖·‖².
            gradient = 2 * (half_gradient - sigma * pullback(half_gradient))
            strength = self.zeta / (math.sqrt(1 + sigma**2) if self.rescaled else 1.0)
            x = x - alpha * sigma * noise + anew * sigma * problem.draw_noise()
            x = x - strength * gradient / error.clamp_min(1e-12)
            check_image(x, f"dps, iteration {n} of {self.N} at noise level {sigma:.3g}")
        return x
