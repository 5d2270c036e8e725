"""Noise schedules, as pure functions."""

from __future__ import annotations

from ddgm.errors import DdgmError


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
    DdgmError
        If σ_N ≥ σ₁, a level is not positive or N < 1.
    """
    if not 0 < sigma_N < sigma_1:
        raise DdgmError(
            f"schedule: sigma_N = {sigma_N:g} must lie between 0 and sigma_1 = {sigma_1:g}"
        )
    if N < 1:
        raise DdgmError(f"schedule: N = {N}; it must be at least 1")
    if N == 1:
        return (sigma_1,)
    return tuple(sigma_1 * (sigma_N / sigma_1) ** (n / (N - 1)) for n in range(N))
