"""Several runs of one measurement: where they differ, and whether that foretells the error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddgm.figures.style import (
    COLOURS,
    LINES,
    MARKERS,
    STYLE,
    WIDTH,
    grey_limits,
    scale_bar,
    show,
)

MARK = COLOURS[1]


def several_runs(
    truth: NDArray[np.floating],
    algebraic: NDArray[np.floating],
    runs: NDArray[np.floating],
    local: NDArray[np.floating],
    level: float,
    *,
    voxel_size: float,
) -> Figure:
    """Show runs of one measurement each, with the places where they disagree outlined (Fig. 3).

    Parameters
    ----------
    truth : ndarray
        (count, rows, columns), a row of panels each.
    algebraic : ndarray
        (count, rows, columns), reconstructions without a prior.
    runs : ndarray
        (count, runs, rows, columns).
    local : ndarray
        (count, rows, columns), `ddgm.disagreement.local_deviation` of all runs, not only of those
        shown.
    level : float
        The local deviation above which a place is outlined.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    """
    with mpl.rc_context(STYLE):
        shown = [("truth", truth), ("algebraic", algebraic)]
        shown += [(f"run {at + 1}", runs[:, at]) for at in range(runs.shape[1])]
        count, columns = len(truth), len(shown)
        figure = Figure(figsize=(WIDTH, count * WIDTH / columns + 0.2), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
        panels = figure.subplots(count, columns, squeeze=False)
        low, high = grey_limits(truth)
        for row, line in enumerate(panels):
            for panel, (title, images) in zip(line, shown, strict=True):
                show(panel, images[row], low, high)
                if row == 0:
                    panel.set_title(title)
                if title != "algebraic" and local[row].max() > level:
                    panel.contour(local[row], [level], colors=MARK, linewidths=0.8)
        scale_bar(panels[0, 0], voxel_size)
        return figure


def uncertainty_maps(
    truth: NDArray[np.floating],
    mean: NDArray[np.floating],
    predicted: NDArray[np.floating],
    consistency: NDArray[np.floating],
    *,
    samples: int,
    voxel_size: float,
) -> Figure:
    """Show the mean of runs, its error, the predicted deviation and the data's objections.

    Parameters
    ----------
    truth, mean : ndarray
        (count, rows, columns), a row of panels each.
    predicted : ndarray
        (count, rows, columns), deviation predicted from the runs; on one scale with the error.
    consistency : ndarray
        (count, rows, columns), `ddgm.data_consistency.score_map` of the mean.
    samples : int
        Runs.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    """
    error = np.abs(mean - truth)
    with mpl.rc_context(STYLE):
        count = len(truth)
        figure = Figure(figsize=(WIDTH, 1.4 * count + 0.75), layout="constrained")
        panels = figure.subplots(count, 5, squeeze=False)
        low, high = grey_limits(truth)
        most = float(np.percentile(error, 99.5))
        # At least 3: noise alone would fill the scale otherwise.
        reach = max(3.0, float(np.percentile(np.abs(consistency), 99.9)))
        maps: list[tuple[str, NDArray[Any], dict[str, Any]]] = [
            ("truth", truth, {"cmap": "gray", "vmin": low, "vmax": high}),
            (f"mean of {samples} runs", mean, {"cmap": "gray", "vmin": low, "vmax": high}),
            ("its error", error, {"cmap": "magma", "vmin": 0, "vmax": most}),
            ("predicted deviation", predicted, {"cmap": "magma", "vmin": 0, "vmax": most}),
            ("data consistency", consistency, {"cmap": "PuOr", "vmin": -reach, "vmax": reach}),
        ]
        for column, (title, images, scale) in enumerate(maps):
            for row in range(count):
                panels[row, column].imshow(images[row], **scale)
                panels[row, column].set(xticks=[], yticks=[])
                panels[row, column].spines[:].set_visible(False)
            panels[0, column].set_title(title)
        for first, last, label in (
            (0, 2, "intensity, standard deviations of the images"),
            (2, 4, "error and deviation, same unit"),
            (4, 5, "noise deviations"),
        ):
            figure.colorbar(
                panels[-1, first].images[0],
                ax=list(panels[:, first:last].ravel()),
                location="bottom",
                shrink=0.9 if last - first == 1 else 0.6,
                aspect=16 if last - first == 1 else 24,
                pad=0.02,
                label=label,
            ).outline.set_visible(False)
        scale_bar(panels[0, 0], voxel_size)
        return figure


def calibration(
    curves: Sequence[tuple[str, pd.DataFrame]],
    shares: Sequence[tuple[str, pd.DataFrame]],
    means: Sequence[tuple[str, pd.DataFrame]],
) -> Figure:
    """Show how error grows with predicted deviation, shares inside it, and error by runs.

    Parameters
    ----------
    curves, shares, means : sequence of (str, DataFrame)
        A label and what `ddgm.calibration.calibrate` returned as curve, shares and means; one a
        method.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        curve, share, mean = figure.subplots(1, 3)
        _before_and_after(curve, curves, "predicted", "rms_error")
        most = max(rows[["predicted", "rms_error"]].to_numpy().max() for _, rows in curves)
        curve.plot([0, most], [0, most], color="grey", lw=0.8, zorder=0)
        curve.set(xlabel="predicted deviation", ylabel="root-mean-square error")
        curve.set(xlim=(0, None), ylim=(0, None))

        _before_and_after(share, shares, "deviations", "share")
        reference = shares[0][1]
        reference = reference[~reference["recalibrated"]]
        alike = share.plot(
            reference["deviations"],
            reference["expected"],
            color="grey",
            lw=0.8,
            zorder=0,
            label="if truth and runs\nwere alike",
        )
        share.set(xlabel="predicted deviations", ylabel="share of pixels within", ylim=(0, 1))
        share.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        share.legend(handles=alike, frameon=False, fontsize=6, loc="lower right")

        for at, (_, rows) in enumerate(means):
            colour = COLOURS[1 + at % 4]
            points = rows.groupby("samples")["mse"].agg(["mean", "sem"])
            finite = points[np.isfinite(points.index)]
            mean.errorbar(
                finite.index,
                finite["mean"],
                yerr=finite["sem"],
                fmt=MARKERS[at % 5] + "-",
                ms=3,
                lw=1,
                color=colour,
            )
            mean.axhline(
                rows.loc[np.isinf(rows["samples"]), "mse"].mean(), color=colour, lw=0.8, ls=LINES[1]
            )
        mean.set_xscale("log", base=2)
        mean.xaxis.set_major_formatter("{x:g}")
        mean.set(xlabel="runs", ylabel="MSE of their mean", ylim=(0, None))
        handles, labels = curve.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        return figure


def _before_and_after(
    panel: Axes, tables: Sequence[tuple[str, pd.DataFrame]], abscissa: str, ordinate: str
) -> None:
    """Draw a line a method as its runs say, filled, and recalibrated, open and dotted."""
    for at, (label, rows) in enumerate(tables):
        colour, marker = COLOURS[1 + at % 4], MARKERS[at % 5]
        for changed, style, face in ((False, "-", colour), (True, ":", "white")):
            part = rows[rows["recalibrated"] == changed]
            panel.errorbar(
                part[abscissa],
                part[ordinate],
                yerr=part[f"{ordinate}_se"],
                fmt=marker + style,
                ms=3,
                lw=1,
                color=colour,
                mfc=face,
                label=None if changed else label,
            )
