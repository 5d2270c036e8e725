"""Denoising in turn with exact data steps: the accelerated variant of this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.errors import SettingError
from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator
from ddgm.schedules import exponential_decay

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Proximal:
    """N times d = x − σ_n ε_θ(x), x ← argmin ½‖Ax − y‖² + (c σ_y²/σ_n²)/2 ‖x − d‖².

    Where Algorithm 1 takes K gradient steps towards the data, whatever the noise level, this weighs
    the data against the denoised image by the noise of each: with c = 1 it takes the error of d for
    white noise of standard deviation σ_n. What the tilt views measure well follows them from the
    start; what they do not measure is the network's, the more the lower σ_n. The data step is
    exact in the eigenbasis, and conjugate gradients where the image is too large for one.

    Algorithm 1 adds fresh noise σ_n ε before each denoising. Here η = 0 adds none: the iteration
    then goes to one image instead of drawing one of many, as plug-and-play half-quadratic splitting
    does (Zhang et al. 2021), and its squared error is lower (docs/proximal.md). With η > 0 the
    noise goes around the data step, x ← prox(d − η σ ε) + η σ ε, with σ the next level: it reaches
    only what the data decide, so that the data step takes it away again.

    Attributes
    ----------
    N : int
        Noise levels, each with one evaluation of the network.
    c : float
        Trust in the denoised image against the data.
    eta : float
        η, share of fresh noise.
    sigma_1, sigma_N : float
        First and last noise level, in network units; x starts as noise σ_1 ε.
    """

    N: int = 20
    c: float = 1.0
    eta: float = 0.0
    sigma_1: float = 6.0
    sigma_N: float = 0.1  # noqa: N815 (the paper's name)

    needs_svd: ClassVar[bool] = False
    needs_network: ClassVar[bool] = True
    needs_network_gradient: ClassVar[bool] = False
    needs_noise_std: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.c > 0:
            raise SettingError("c", self.c, "must be positive")
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
            where = f"proximal, iteration {n} of {self.N} at noise level {sigma:.3g}"
            d = x - sigma * problem.predict_noise(x)
            check_image(d, where)  # the data step could hide that it explodes
            std = self.eta * lower
            fresh = std * problem.draw_noise() if std else problem.zeros()
            x = problem.proximal(d - fresh, self.c * (problem.noise_std / sigma) ** 2) + fresh
            check_image(x, where)
        return x
