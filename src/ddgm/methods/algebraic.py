"""Algebraic reconstruction: gradient descent, stopped early (Eq. 4)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ddgm.errors import SettingError
from ddgm.methods.problem import Problem, check_image
from ddgm.operator import LinearOperator, check_step_size

if TYPE_CHECKING:
    from torch import Tensor


FINITE = sys.float_info.max  # the only limit: without a network, data may have any unit


@dataclass(frozen=True)
class Algebraic:
    """K steps x ← x − λ Aᵀ(Ax − y) from x = 0.

    The step goes along the gradient of ½‖Ax − y‖²: with the factor 2 that Eq. 4 has as typeset,
    λ = 9e-5 would diverge.

    Attributes
    ----------
    K : int
        Gradient steps; stopping early is the only regularisation.
    step_size : float
        λ.
    """

    K: int = 100
    step_size: float = 9e-5

    needs_svd: ClassVar[bool] = False
    needs_network: ClassVar[bool] = False
    needs_network_gradient: ClassVar[bool] = False
    needs_noise_std: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.K < 1:
            raise SettingError("K", self.K, "must be at least 1")

    def schedule(self) -> tuple[float, ...]:
        """No noise levels: there is no network."""
        return ()

    def check(self, operator: LinearOperator) -> None:
        """Refuse a step size at which the descent diverges."""
        check_step_size(operator, self.step_size)

    def solve(self, problem: Problem) -> Tensor:
        """Run the descent."""
        x = problem.descend(problem.zeros(), self.step_size, self.K)
        check_image(x, f"algebraic, within {self.K} steps", FINITE)
        return x
