"""Choosing settings without the truth, from what the measured tilt views say of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ddgm.errors import DdgmError
from ddgm.selection import IDENTITY, finished_points, lowest

RULES = ("held-out views", "discrepancy", "split noise")

# What the rules that predict go by.
_MEASURES = {"held-out views": "held_out_error", "split noise": "split_error"}


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
        split noise
            Squared error in the directions that the data decide (`ddgm.noise_splitting`).

    Raises
    ------
    DdgmError
        If no point has a result.
    """
    rows = finished_points(rows)
    if rows.empty:
        raise DdgmError("choice without the truth: no point has a result")
    columns = ("mse", "data_error", *_MEASURES.values())
    known = [name for name in columns if name in rows]
    means = rows.groupby(IDENTITY, sort=False)[known].mean().reset_index()
    distance = (means["data_error"] / noise_std**2 - 1).abs()
    return means.rename(columns={column: rule for rule, column in _MEASURES.items()}).assign(
        discrepancy=distance
    )


def choose(rows: pd.DataFrame, noise_std: float) -> dict[str, str]:
    """Choose among the points of a sweep by each rule.

    Predictions do not tell apart settings that differ only where no view says anything. Of those
    whose difference from the best is within two standard errors (over the images, on which they are
    compared one by one), the ones with the most evaluations of the network are taken: more noise
    levels are a finer discretisation, not a weaker prior. Among them the lowest score decides.

    Parameters
    ----------
    rows, noise_std
        As `scores` takes them; an error to the truth is not looked at.

    Returns
    -------
    dict
        The settings that each of `RULES` chooses, as JSON; no entry for a rule whose measure the
        rows have not.
    """
    table = scores(rows, noise_std)
    found = {}
    for rule in RULES:
        if rule not in table or table[rule].isna().all():
            continue
        best = lowest(table, rule)["settings"]
        if rule in _MEASURES:
            best = _finest(finished_points(rows), _MEASURES[rule], best)
        found[rule] = str(best)
    return found


def _finest(rows: pd.DataFrame, measure: str, best: Any) -> Any:
    """Return the settings with most evaluations of the network among those as good as the best.

    As good is a mean difference, over the images, of no more than twice its own standard error.
    """
    values = rows.pivot(index="image", columns="settings", values=measure).astype(float)
    difference = values.sub(values[best], axis=0)
    # A single image has no standard error, and one on which only this measure failed no mean.
    equal = difference.columns[difference.mean() <= 2 * difference.sem().fillna(0.0)]
    evaluations = rows.groupby("settings", sort=False)["network_evals"].max()[equal]
    most = evaluations.index[evaluations == evaluations.max()]
    return values[most].mean().idxmin()


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
