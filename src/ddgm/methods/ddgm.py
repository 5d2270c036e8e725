"""Diffusive denoising of gradient-based minimization (Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.errors import SettingError
from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator, check_step_size
from ddgm.schedules import exponential_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DDGM:
    """N times: K gradient steps on ½‖Ax − y‖², add noise σ_n ε, subtract σ_n ε_θ(x).

    Attributes
    ----------
    N : int
        Noise levels, each with one evaluation of the network.
    K : int
        Gradient steps a noise level.
    step_size : float
        λ of x ← x − λ Aᵀ(Ax − y).
    sigma_1, sigma_N : float
        First and last noise level, in network units.
    """

    N: int = 150
    K: int = 15
    step_size: float = 9e-5
    sigma_1: float = 3.0
    sigma_N: float = 0.03  # noqa: N815 (the paper's name)

    needs_svd: ClassVar[bool] = False
    needs_network: ClassVar[bool] = True
    needs_network_gradient: ClassVar[bool] = False
    needs_noise_std: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.K < 1:
            raise SettingError("K", self.K, "must be at least 1")
        self.schedule()

    def schedule(self) -> tuple[float, ...]:
        """Return the noise levels σ_1 … σ_N."""
        return exponential_decay(self.sigma_1, self.sigma_N, self.N)

    def check(self, operator: LinearOperator) -> None:
        """Refuse a step size at which the descent diverges."""
        check_step_size(operator, self.step_size)

    def solve(self, problem: Problem) -> Tensor:
        """Run Algorithm 1."""
        x = problem.zeros()
        for n, sigma in enumerate(self.schedule(), start=1):
            x = problem.descend(x, self.step_size, self.K)
            x = x + sigma * problem.draw_noise()
            x = x - sigma * problem.predict_noise(x)
            check_image(x, f"ddgm, iteration {n} of {self.N} at noise level {sigma:.3g}")
        return x
