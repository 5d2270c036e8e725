"""Decomposed diffusion sampling (Chung et al. 2024), variance-exploding form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.errors import SettingError
from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator
from ddgm.schedules import exponential_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DDS:
    """N times d = x − σ_n ε_θ(x), M conjugate gradient steps from d towards the data, then noise.

    Decomposed diffusion sampling (Chung, Lee and Ye, ICLR 2024) in its proximal form, for noisy
    data: the steps go towards argmin_z γ/(2σ_y²) ‖Az − y‖² + ½‖z − d‖², that is, they solve
    (γ/σ_y² AᵀA + 1) z = d + γ/σ_y² Aᵀy, and stay in the Krylov subspace of d. Nothing goes back
    through the network. Then x ← z + √(1 − η²) σ_{n+1} ε_θ(x) + η σ_{n+1} ε with fresh ε, as in
    DDIM; after the last level z is the result.

    `Proximal` takes the same data step exactly, and weighs by the noise level; here γ is the same
    at all levels, and few steps leave what is hardly measured as the network has it.

    Attributes
    ----------
    N : int
        Noise levels, each with one evaluation of the network and M + 1 gradients.
    M : int
        Conjugate gradient steps a noise level.
    gamma : float
        γ, trust in the data against the denoised image: the variance that the error of d has in
        network units, since the data are weighed by their own noise.
    eta : float
        η, share of fresh noise.
    sigma_1, sigma_N : float
        First and last noise level, in network units; x starts as noise σ_1 ε.
    """

    N: int = 50
    M: int = 5
    gamma: float = 0.1
    eta: float = 1.0
    sigma_1: float = 6.0
    sigma_N: float = 0.1  # noqa: N815 (the paper's name)

    needs_svd: ClassVar[bool] = False
    needs_network: ClassVar[bool] = True
    needs_network_gradient: ClassVar[bool] = False
    needs_noise_std: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.M < 1:
            raise SettingError("M", self.M, "must be at least 1")
        if not 0 < self.gamma < math.inf:
            raise SettingError("gamma", self.gamma, "must be positive and finite")
        if not 0 <= self.eta <= 1:
            raise SettingError("eta", self.eta, "must lie in [0, 1]")
        self.schedule()

    def schedule(self) -> tuple[float, ...]:
        """Return the noise levels σ_1 … σ_N."""
        return exponential_decay(self.sigma_1, self.sigma_N, self.N)

    def check(self, operator: LinearOperator) -> None:
        """Any operator will do."""

    def solve(self, problem: Problem) -> Tensor:
        """Run the iteration."""
        levels = self.schedule()
        x = levels[0] * problem.draw_noise()
        for n, (sigma, lower) in enumerate(zip(levels, (*levels[1:], 0.0), strict=True), start=1):
            where = f"dds, iteration {n} of {self.N} at noise level {sigma:.3g}"
            noise = problem.predict_noise(x)
            d = x - sigma * noise
            check_image(d, where)  # the data step could hide that it explodes
            x = _towards_data(problem, d, self.gamma / problem.noise_std**2, self.M)
            if lower:
                kept = math.sqrt(1 - self.eta**2) * noise
                fresh = self.eta * problem.draw_noise() if self.eta else 0.0
                x = x + lower * (kept + fresh)
            check_image(x, where)
        return x


def _towards_data(problem: Problem, image: Tensor, strength: float, steps: int) -> Tensor:
    """Solve (strength · AᵀA + 1) x = strength · Aᵀy + image by conjugate gradients from `image`.

    Each image of the batch has its own step lengths. It takes one gradient more than steps.
    """
    start, _ = problem.residual_gradient(image)
    solution = image
    residual = -strength * start
    direction, size = residual, _dots(residual, residual)
    smallest = 1e-30  # where data and image agree there is nothing to do, and no 0/0
    for _ in range(steps):
        # The gradient is affine: AᵀA p is how it changes along p. Taken from the image, whose
        # gradient is known and, near the data, small, little is lost by rounding.
        normal = problem.residual_gradient(image + direction)[0] - start
        image_of = strength * normal + direction
        length = size / _dots(direction, image_of).clamp_min(smallest)
        solution = solution + length * direction
        residual = residual - length * image_of
        previous, size = size, _dots(residual, residual)
        direction = residual + size / previous.clamp_min(smallest) * direction
    return solution


def _dots(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(dim=(-2, -1), keepdim=True)
