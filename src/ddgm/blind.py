"""Choosing settings without the truth, from what the measured tilt views say of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ddgm.errors import DdgmError
from ddgm.selection import IDENTITY, finished_points, lowest

RULES = ("held-out views", "discrepancy")


def scores(rows: pd.DataFrame, noise_std: float) -> pd.DataFrame:
    """Score the points of a sweep by each rule; the lower the better.

    Parameters
    ----------
    rows : DataFrame
        One row an image and point, as `ddgm.sweep_points.evaluate_point` returns them.
    noise_std : float
        σ_y, known or from `ddgm.noise_level.estimate_noise_std`.

    Returns
    -------
    DataFrame
        One row a point: the columns of `IDENTITY`, a column for each rule, and mse where the rows
        have it:

        held-out views
            Mean of (Ax − y)² over views that the reconstruction has not seen.
        discrepancy
            How far the mean of (Ax − y)² over the views that it has seen is from σ_y² (Morozov
            1966), relative to it.

    Raises
    ------
    DdgmError
        If no point has a result.
    """
    rows = finished_points(rows)
    if rows.empty:
        raise DdgmError("choice without the truth: no point has a result")
    known = [name for name in ("mse", "data_error", "held_out_error") if name in rows]
    means = rows.groupby(IDENTITY, sort=False)[known].mean().reset_index()
    return means.assign(
        **{
            "held-out views": means["held_out_error"].fillna(float("inf")),
            "discrepancy": (means["data_error"] / noise_std**2 - 1).abs(),
        }
    ).drop(columns=["data_error", "held_out_error"])


def choose(rows: pd.DataFrame, noise_std: float) -> dict[str, str]:
    """Choose among the points of a sweep by each rule.

    Parameters
    ----------
    rows, noise_std
        As `scores` takes them; an error to the truth is not looked at.

    Returns
    -------
    dict
        The settings that each of `RULES` chooses, as JSON.
    """
    table = scores(rows, noise_std)
    return {rule: str(lowest(table, rule)["settings"]) for rule in RULES}


@dataclass(frozen=True)
class BlindChoice:
    """The settings that a rule picks without the truth, and what the truth says of them.

    Attributes
    ----------
    rule : str
        One of `RULES`.
    settings : str
        All settings, as JSON.
    mse : float
        Mean squared error there.
    best_settings : str
        Those of the lowest error.
    best_mse : float
        That error.
    """

    rule: str
    settings: str
    mse: float
    best_settings: str
    best_mse: float


def judge(rows: pd.DataFrame, choices: Mapping[str, str]) -> list[BlindChoice]:
    """Compare what `choose` chose with the best of all points, by the truth.

    Parameters
    ----------
    rows : DataFrame
        As `choose` took them, with the column mse.
    choices : mapping
        What it returned.
    """
    mse = finished_points(rows).groupby("settings", sort=False)["mse"].mean()
    best = str(mse.index[int(mse.argmin())])
    return [
        BlindChoice(rule, settings, float(mse[settings]), best, float(mse[best]))
        for rule, settings in choices.items()
    ]
