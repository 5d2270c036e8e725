"""Noise schedules, as pure functions."""

from __future__ import annotations

import math

from ddgm.errors import SettingError


def exponential_decay(sigma_1: float, sigma_N: float, N: int) -> tuple[float, ...]:
    """Return σ_n = σ₁ (σ_N/σ₁)^((n−1)/(N−1)) for n = 1 … N (Algorithm 1).

    Parameters
    ----------
    sigma_1, sigma_N : float
        First and last noise level, in network units; 0 < σ_N < σ₁.
    N : int
        Number of levels; a single one is σ₁.

    Raises
    ------
    SettingError
        If σ_N ≥ σ₁, a level is not positive and finite, or N < 1.
    """
    if not math.isfinite(sigma_1):
        raise SettingError("sigma_1", sigma_1, "must be finite")
    if not 0 < sigma_N < sigma_1:
        raise SettingError("sigma_N", sigma_N, f"must lie between 0 and sigma_1 = {sigma_1:g}")
    if N < 1:
        raise SettingError("N", N, "must be at least 1")
    if N == 1:
        return (sigma_1,)
    return tuple(sigma_1 * (sigma_N / sigma_1) ** (n / (N - 1)) for n in range(N))
