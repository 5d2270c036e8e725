"""Denoising diffusion restoration models (Kawar et al. 2022), variance-exploding form."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.errors import DdgmError, SettingError
from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator
from ddgm.schedules import exponential_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DDRM:
    """Diffusion in the SVD basis of A, where each coefficient is measured well, badly or not.

    Their Eqs. 7 and 8. With singular values s_i, ȳ = Σ⁺Uᵀy and the noise σ_y/s_i of ȳ_i, a
    coefficient of x follows ȳ while its noise is below the level σ_t, and the network afterwards.
    Singular values below 1/σ₁ are set to zero, as the network knows no noise above σ₁ (Sec. 3.4).

    Attributes
    ----------
    N : int
        Noise levels, each with one evaluation of the network.
    eta : float
        η, share of fresh noise at each level.
    eta_b : float
        η_b, share of the measurement where it is better than the level.
    sigma_1, sigma_N : float
        First and last noise level, in network units.
    """

    N: int = 10
    eta: float = 1.0
    eta_b: float = 1.0
    sigma_1: float = 30.0
    sigma_N: float = 0.03  # noqa: N815 (the paper's name)

    needs_svd: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True
    needs_network_gradient: ClassVar[bool] = False
    needs_noise_std: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("eta", "eta_b"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(name, getattr(self, name), "must lie in [0, 1]")
        self.schedule()

    def schedule(self) -> tuple[float, ...]:
        """Return the noise levels, the first one first."""
        return exponential_decay(self.sigma_1, self.sigma_N, self.N)

    def check(self, operator: LinearOperator) -> None:
        """Refuse an operator whose singular vectors are not known."""
        if operator.eigenbasis is None:
            rows, columns = operator.image_shape
            raise DdgmError(
                f"ddrm needs the SVD of the operator, and this one for {rows} × {columns} pixels "
                "has none: take the operator from ddgm.engine.make_operator, or, where images are "
                "too large for that, ddgm or proximal"
            )

    def solve(self, problem: Problem) -> Tensor:
        """Run the diffusion."""
        basis = problem.operator.eigenbasis
        assert basis is not None
        s = basis.singular_values
        measured = s >= 1 / self.sigma_1
        # Uᵀy = Σ⁻¹VᵀAᵀy, so that ȳ = Σ⁻²VᵀAᵀy needs no left singular vectors.
        inverse = measured / s.square().clamp_min(1e-300)
        y_bar = inverse.float() * problem.right_side
        # Its noise; without bound where nothing is measured.
        y_noise = (problem.noise_std / s.clamp_min(1e-300)).masked_fill(~measured, math.inf)
        y_noise = y_noise.float()

        levels = self.schedule()
        trusted = y_noise <= levels[0]
        spread = (levels[0] ** 2 - y_noise.square()).clamp_min(0.0).sqrt()
        x_bar = trusted * y_bar + spread.where(trusted, levels[0]) * self._draw(problem)
        for n, (sigma, lower) in enumerate(itertools.pairwise(levels), start=1):
            x_theta = basis.analyse(self._denoise(problem, basis.synthesise(x_bar), sigma, n))
            kept = math.sqrt(1 - self.eta**2) * lower
            blind = x_theta + kept * (x_bar - x_theta) / sigma
            worse = x_theta + kept * (y_bar - x_theta) / y_noise
            better = (1 - self.eta_b) * x_theta + self.eta_b * y_bar
            mean = blind.where(~measured, worse.where(lower < y_noise, better))
            remaining = (lower**2 - (self.eta_b * y_noise).square()).clamp_min(0.0).sqrt()
            std = remaining.where(lower >= y_noise, self.eta * lower)
            x_bar = mean + std * self._draw(problem)
        # The level after the last is 0, where all that is left is the denoised image.
        return self._denoise(problem, basis.synthesise(x_bar), levels[-1], self.N)

    def _denoise(self, problem: Problem, x: Tensor, sigma: float, n: int) -> Tensor:
        denoised = x - sigma * problem.predict_noise(x)
        check_image(denoised, f"ddrm, iteration {n} of {self.N} at noise level {sigma:.3g}")
        return denoised

    @staticmethod
    def _draw(problem: Problem) -> Tensor:
        """Draw white noise; it is white in any orthonormal basis."""
        return problem.draw_noise().flatten(1)
