"""Unconditional generation: images from the prior alone (Eq. 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator
from ddgm.schedules import generation_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Generation:
    """N times x ← x − α σ_n ε_θ(x) + √(αβ) σ_n ε, from x = σ₁ ε; the data are not looked at.

    What comes out shows the quality of the prior.

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

    def sample(
        self, predict_noise: Callable[[Tensor], Tensor], draw_noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        """Yield the images after each of the N steps; the last ones are the samples.

        Parameters
        ----------
        predict_noise : callable
            ε_θ, of images (batch, rows, columns).
        draw_noise : callable
            Returns the next field of standard normal noise, (batch, rows, columns) float32.
        """
        anew = math.sqrt(self.alpha * self.beta)
        x = self.sigma_1 * draw_noise()
        for sigma in self.schedule():
            noise = predict_noise(x)
            x = x - self.alpha * sigma * noise + anew * sigma * draw_noise()
            yield x

    def solve(self, problem: Problem) -> Tensor:
        """Run Eq. 2."""
        steps = self.sample(problem.predict_noise, problem.draw_noise)
        for n, (sigma, x) in enumerate(zip(self.schedule(), steps, strict=True), start=1):
            check_image(x, f"generation, iteration {n} of {self.N} at noise level {sigma:.3g}")
        return x
