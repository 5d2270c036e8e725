"""Unconditional generation: images from the prior alone (Eq. 2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator
from ddgm.sampling import generate
from ddgm.schedules import generation_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Generation:
    """An image of the prior, whatever the data (`ddgm.sampling.generate`): it shows its quality.

    Attributes
    ----------
    N : int
        Noise levels, each with one evaluation of the network.
    sigma_1 : float
        First noise level, in network units.
    alpha : float
        Part of the predicted noise that a step takes away.
    beta : float
        How much of it is drawn anew.
    """

    N: int = 50
    sigma_1: float = 30.0
    alpha: float = 0.183
    beta: float = 0.5

    needs_svd: ClassVar[bool] = False
    needs_network: ClassVar[bool] = True
    needs_network_gradient: ClassVar[bool] = False
    needs_noise_std: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.schedule()

    def schedule(self) -> tuple[float, ...]:
        """Return the noise levels σ_1 … σ_N."""
        return generation_decay(self.sigma_1, self.alpha, self.beta, self.N)

    def check(self, operator: LinearOperator) -> None:
        """Any operator will do."""

    def solve(self, problem: Problem) -> Tensor:
        """Run Eq. 2."""

        def check(x: Tensor, n: int, sigma: float) -> None:
            check_image(x, f"generation, iteration {n} of {self.N} at noise level {sigma:.3g}")

        return generate(problem.predict_noise, problem.draw_noise, **asdict(self), check=check)
