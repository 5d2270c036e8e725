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


def generation_decay(sigma_1: float, alpha: float, beta: float, N: int) -> tuple[float, ...]:
    """Return σ_n = σ₁ ((1−α)² + αβ)^((n−1)/2) for n = 1 … N (Eq. 2).

    Parameters
    ----------
    sigma_1 : float
        First noise level, in network units.
    alpha : float
        Part of the predicted noise that a step takes away, in (0, 1].
    beta : float
        How much of it is drawn anew, in [0, 1].
    N : int
        Number of levels.

    Raises
    ------
    SettingError
        If a value is out of its range, or the noise would not decay.
    """
    if not (math.isfinite(sigma_1) and sigma_1 > 0):
        raise SettingError("sigma_1", sigma_1, "must be positive and finite")
    if not 0 < alpha <= 1:
        raise SettingError("alpha", alpha, "must lie in (0, 1]")
    _check_beta(beta)
    if N < 1:
        raise SettingError("N", N, "must be at least 1")
    ratio = (1 - alpha) ** 2 + alpha * beta
    if ratio >= 1:
        raise SettingError("alpha", alpha, f"must be below 2 − beta = {2 - beta:g}")
    return tuple(float(sigma_1 * ratio ** (n / 2)) for n in range(N))


def generation_alpha(sigma_1: float, sigma_N: float, beta: float, N: int) -> float:
    """Return the α with which Eq. 2 goes from σ₁ to σ_N in N levels.

    It is the smaller root of (1−α)² + αβ = (σ_N/σ₁)^(2/(N−1)).

    Parameters
    ----------
    sigma_1, sigma_N : float
        First and last noise level, in network units; 0 < σ_N < σ₁.
    beta : float
        How much of the noise taken away is drawn anew, in [0, 1].
    N : int
        Number of levels, ≥ 2.

    Raises
    ------
    SettingError
        If a value is out of its range, or N levels are too few to come down to σ_N.
    """
    _check_beta(beta)
    if N < 2:
        raise SettingError("N", N, "must be at least 2 to go from sigma_1 to sigma_N")
    levels = exponential_decay(sigma_1, sigma_N, N)
    ratio = (levels[1] / levels[0]) ** 2
    discriminant = (2 - beta) ** 2 - 4 * (1 - ratio)
    if discriminant < 0:
        fastest = 1 - (2 - beta) ** 2 / 4
        fewest = 1 + math.ceil(2 * math.log(sigma_N / sigma_1) / math.log(fastest))
        raise SettingError(
            "N", N, f"is too small to go from {sigma_1:g} to {sigma_N:g}; at least {fewest}"
        )
    return ((2 - beta) - math.sqrt(discriminant)) / 2


def _check_beta(beta: float) -> None:
    if not 0 <= beta <= 1:
        raise SettingError("beta", beta, "must lie in [0, 1]")
