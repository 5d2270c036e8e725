"""The best settings of a method, from the rows of its sweeps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ddgm.errors import DdgmError

IDENTITY = ["sweep", "method", "settings"]


@dataclass(frozen=True)
class Choice:
    """The settings chosen for a row of Table 1, and what they reach on the validation images.

    Attributes
    ----------
    sweep : str
        The sweep they come from.
    method : str
        Name in `ddgm.methods.METHODS`.
    settings : dict
        All that are not the method's defaults.
    network_evals : int
        Evaluations of the network an image.
    mse, mse_se : float
        Mean over the images compared, and its standard error.
    images : int
        Number of images compared.
    points : int
        Points it was chosen from.
    """

    sweep: str
    method: str
    settings: dict[str, Any]
    network_evals: int
    mse: float
    mse_se: float
    images: int
    points: int


def select(rows: pd.DataFrame, *, network_evals: int | None = None) -> Choice:
    """Choose the settings with the lowest mean squared error.

    Where points were evaluated on different numbers of images, those that all have count: means
    over different images are not to be compared.

    Parameters
    ----------
    rows : DataFrame
        Of one or more sweeps, as `ddgm.sweep_points.evaluate_point` returns them.
    network_evals : int, optional
        Most evaluations of the network an image.

    Raises
    ------
    DdgmError
        If no point is left to choose from.
    """
    rows = finished_points(rows)
    if network_evals is not None and not rows.empty:
        rows = rows[rows["network_evals"] <= network_evals]
    if rows.empty:
        limit = (
            "" if network_evals is None else f" with at most {network_evals} network evaluations"
        )
        raise DdgmError(f"selection: the sweeps have no finished point{limit}")
    rows = rows[rows["image"] < rows.groupby(IDENTITY)["image"].count().min()]
    points = (
        rows.groupby(IDENTITY, sort=False)
        .agg(
            mse=("mse", "mean"),
            mse_se=("mse", "sem"),
            images=("mse", "size"),
            network_evals=("network_evals", "max"),
        )
        .reset_index()
    )
    best = lowest(points, "mse")
    return Choice(
        best["sweep"],
        best["method"],
        json.loads(best["settings"]),
        int(best["network_evals"]),
        float(best["mse"]),
        float(best["mse_se"]),
        int(best["images"]),
        len(points),
    )


def lowest(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return the row in which a column is lowest; the first of equals."""
    row = table.iloc[int(table[column].argmin())]
    return {str(name): row[name] for name in table.columns}


def finished_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of points that have a result."""
    return rows[rows["failure"] == ""]


def failed_points(rows: pd.DataFrame) -> list[tuple[dict[str, Any], str]]:
    """Return the settings of the points that have no result, and why."""
    failed = rows[rows["failure"] != ""]
    return [
        (json.loads(settings), reason)
        for settings, reason in zip(failed["settings"], failed["failure"], strict=True)
    ]
