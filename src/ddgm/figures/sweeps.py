"""Accuracy over a grid of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ddgm.figures.style import COLOURS, LINES, MARKERS, STYLE, WIDTH
from ddgm.selection import lowest

# How axes and legends write the parameters.
_SYMBOLS = {
    "K": "gradient steps K",
    "c": "trust in the denoised image c",
    "eta": "share of fresh noise η",
    "zeta": "strength of the data ζ",
    "sigma_1": "σ₁",
    "sigma_N": "σ_N",
}
_MEASURES = {"mse": "MSE", "ssim": "SSIM", "data_error": "mean (Ax − y)²"}


def sweep(
    rows: pd.DataFrame,
    parameters: Sequence[str],
    *,
    noise_std: float,
    only: Mapping[str, float] | None = None,
) -> Figure:
    """Show MSE, SSIM and data error over a sweep (Figs. 9 to 16).

    The first parameter is the abscissa, the second tells the lines apart, the third the rows of
    panels. Bars are standard errors over images; a star marks the best point of all.

    Parameters
    ----------
    rows : DataFrame
        One row an image and point: the parameters, mse, ssim and data_error.
    parameters : sequence of str
        The swept ones, at most three.
    noise_std : float
        σ_y; the data error of the true image is its square.
    only : mapping, optional
        Show the points with these values of swept parameters, which the title then names.
    """
    fixed = {name: value for name, value in (only or {}).items() if name in parameters}
    for parameter, value in fixed.items():
        rows = rows[rows[parameter] == value]
    parameters = [each for each in parameters if each not in fixed]
    abscissa, (line, level) = parameters[0], [*parameters[1:], None, None][:2]
    points = rows.groupby(list(parameters))[list(_MEASURES)].agg(["mean", "sem"])
    points.columns = points.columns.map("_".join)  # mse_mean, mse_sem, …
    points = points.reset_index()
    levels = [None] if level is None else sorted(points[level].unique())
    lines = [None] if line is None else sorted(points[line].unique())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.1 * len(levels) + 0.2), layout="constrained")
        panels = figure.subplots(len(levels), 3, squeeze=False, sharex=True, sharey="col")
        colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(lines)))
        for row, chosen in zip(panels, levels, strict=True):
            looks = zip(colours, cycle(MARKERS), cycle(LINES), strict=False)
            for value, (colour, marker, dashes) in zip(lines, looks, strict=False):
                part = points
                for name, wanted in ((level, chosen), (line, value)):
                    part = part if name is None else part[part[name] == wanted]
                for panel, measure in zip(row, _MEASURES, strict=True):
                    panel.errorbar(
                        part[abscissa],
                        part[f"{measure}_mean"],
                        yerr=part[f"{measure}_sem"],
                        fmt=f"{marker}{dashes}",
                        elinewidth=0.7,
                        capsize=1.5,
                        ms=3,
                        lw=1,
                        color=colour,
                        label=None if line is None else _equation(line, value),
                    )
            row[2].axhline(noise_std**2, color="grey", lw=0.8, ls=":")
            if level is not None:
                row[0].set_title(_equation(level, chosen), loc="left")
        for column, label in enumerate(_MEASURES.values()):
            panels[-1, column].set_xlabel(_SYMBOLS.get(abscissa, abscissa))
            for panel in panels[:, column]:
                panel.set_ylabel(label)
        for column, measure, sign in ((0, "mse_mean", 1), (1, "ssim_mean", -1)):
            winner = lowest(points.assign(order=sign * points[measure]), "order")
            at = 0 if level is None else levels.index(winner[level])
            star = {"ms": 11, "mfc": "none", "color": COLOURS[1]}
            panels[at, column].plot(winner[abscissa], winner[measure], "*", **star)
        # A setting far off would flatten all that matters.
        for column, measure in ((0, "mse_mean"), (2, "data_error_mean")):
            if points[measure].max() > 10 * points[measure].min():
                panels[0, column].set_yscale("log")
        values = points[abscissa]
        if values.min() > 0 and values.max() >= 20 * values.min():
            panels[0, 0].set_xscale("log")
        if panels[0, 0].get_xscale() == "log" or values.nunique() <= 6:
            for panel in panels[-1]:
                panel.set_xticks(sorted(values.unique()), minor=False)
                panel.xaxis.set_major_formatter("{x:g}")
                panel.xaxis.set_minor_locator(NullLocator())
        if fixed:
            panels[0, 0].set_title(
                ", ".join(_equation(*each) for each in fixed.items()), loc="left"
            )
        if line is not None:
            panels[0, 0].legend(frameon=False, fontsize=6)
        panels[0, 2].annotate(
            r"$\sigma_y^2$",
            (1, noise_std**2),
            xycoords=("axes fraction", "data"),
            color="grey",
            ha="right",
            va="bottom",
        )
        return figure


def _equation(name: str, value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return name if value else f"not {name}"
    return f"{_SYMBOLS.get(name, name).rpartition(' ')[2]} = {value:g}"
