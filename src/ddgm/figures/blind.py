"""Settings chosen without the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ddgm.figures.style import COLOURS, STYLE, WIDTH
from ddgm.selection import lowest


def blind_scores(
    scores: Mapping[str, pd.DataFrame],
    rules: Sequence[str],
    picks: Mapping[str, Mapping[str, str]],
) -> Figure:
    """Show the true error of settings against what rules without the truth make of them.

    Parameters
    ----------
    scores : mapping
        What `ddgm.blind.scores` returned for each sweep, by the sweep's name.
    rules : sequence of str
        Columns to show, one a column of panels.
    picks : mapping
        What `ddgm.blind.choose` returned for each sweep.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.2 * len(scores)), layout="constrained")
        panels = figure.subplots(len(scores), len(rules), squeeze=False, sharey="row")
        for row, (name, points) in zip(panels, scores.items(), strict=True):
            best = lowest(points, "mse")
            row[0].set_ylabel(f"{name}: MSE")
            for panel, rule in zip(row, rules, strict=True):
                pick = lowest(points[points["settings"] == picks[name][rule]], "mse")
                panel.plot(points[rule], points["mse"], "o", ms=3, color=COLOURS[2])
                for point, marker, label in ((pick, "s", "picked"), (best, "*", "best")):
                    style = {"ms": 9, "mfc": "none", "color": COLOURS[1], "ls": "none"}
                    panel.plot(point[rule], point["mse"], marker, label=label, **style)
                panel.set_xlabel(rule)
        panels[0, 0].legend(frameon=False)
        return figure
