"""Unconditional samples of a prior (Eq. 2): what a network takes for an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ddgm.schedules import generation_decay

if TYPE_CHECKING:
    from torch import Tensor


def generate(
    predict_noise: Callable[[Tensor], Tensor],
    draw_noise: Callable[[], Tensor],
    *,
    N: int = 50,
    sigma_1: float = 30.0,
    alpha: float = 0.183,
    beta: float = 0.5,
    check: Callable[[Tensor, int, float], None] | None = None,
) -> Tensor:
    """Draw images: N times x ← x − α σ_n ε_θ(x) + √(αβ) σ_n ε, from x = σ₁ ε (Eq. 2).

    Parameters
    ----------
    predict_noise : callable
        ε_θ, of images (batch, rows, columns).
    draw_noise : callable
        Returns the next field of standard normal noise, (batch, rows, columns) float32.
    N : int
        Noise levels, each with one evaluation of the network.
    sigma_1 : float
        First noise level, in network units.
    alpha : float
        Part of the predicted noise that a step takes away.
    beta : float
        How much of it is drawn anew.
    check : callable, optional
        Called after each step with the images, the step from 1 on and its noise level.

    Returns
    -------
    Tensor
        (batch, rows, columns), network units, with the noise of the last level.
    """
    anew = math.sqrt(alpha * beta)
    x = sigma_1 * draw_noise()
    for n, sigma in enumerate(generation_decay(sigma_1, alpha, beta, N), start=1):
        noise = predict_noise(x)
        x = x - alpha * sigma * noise + anew * sigma * draw_noise()
        if check is not None:
            check(x, n, sigma)
    return x
