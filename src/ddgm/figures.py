"""Figures, as matplotlib objects; saving them is the caller's business."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}


def save_figure(figure: Figure, *paths: Path | str) -> None:
    """Write a figure in the formats that the paths' endings name, without a date inside."""
    for path in paths:
        metadata = {"CreationDate": None} if str(path).endswith(".pdf") else None
        figure.savefig(path, metadata=metadata)


def comparison(
    truth: NDArray[np.float32],
    sinograms: NDArray[np.float32],
    reconstructions: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    voxel_size: float,
    max_tilt: float,
) -> Figure:
    """Show images beside their tilt series and reconstructions, one row an image (cf. Fig. 4).

    Parameters
    ----------
    truth : ndarray
        (count, rows, columns).
    sinograms : ndarray
        (count, views, detector).
    reconstructions : sequence of (str, ndarray)
        A label and (count, rows, columns) images, a column each.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    max_tilt : float
        Largest tilt, degrees, for the axis of the sinogram.
    """
    with mpl.rc_context(_STYLE):
        columns = len(reconstructions) + 2
        figure = Figure(figsize=(1.6 * columns, 1.65 * len(truth) + 0.35), layout="constrained")
        panels = figure.subplots(len(truth), columns, squeeze=False)
        # All images share one grey scale, so that a washed-out one looks it.
        low, high = np.percentile(truth, [0.5, 99.5])
        for row, image in enumerate(truth):
            _show(panels[row, 0], image, low, high)
            panels[row, 1].imshow(
                sinograms[row], cmap="gray", aspect="auto", extent=(0, 1, max_tilt, -max_tilt)
            )
            panels[row, 1].set(xticks=[], yticks=[-max_tilt, 0, max_tilt])
            panels[row, 1].spines[:].set_visible(False)
            panels[row, 1].yaxis.set_major_formatter("{x:.0f}°")
            for column, (_, images) in enumerate(reconstructions, start=2):
                _show(panels[row, column], images[row], low, high)
                mse = float(np.square(images[row] - image).mean())
                panels[row, column].set_xlabel(f"MSE {mse:.3f}", labelpad=2)
        titles = ["truth", "tilt series", *(label for label, _ in reconstructions)]
        for panel, title in zip(panels[0], titles, strict=True):
            panel.set_title(title)
        _scale_bar(panels[0, 0], voxel_size)
        return figure


def steps_curve(curve: pd.DataFrame) -> Figure:
    """Show MSE, SSIM and data error against the number of gradient steps (Fig. 12).

    Parameters
    ----------
    curve : DataFrame
        One row a K and image: K, mse, ssim, data_error.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.9, 2.2), layout="constrained")
        panels = figure.subplots(1, 3)
        for panel, (name, label, best) in zip(
            panels,
            [
                ("mse", "MSE", "min"),
                ("ssim", "SSIM", "max"),
                ("data_error", "data error, mean (Ax − y)²", None),
            ],
            strict=True,
        ):
            grouped = curve.groupby("K")[name]
            mean, error = grouped.mean(), grouped.sem()
            panel.errorbar(mean.index, mean, yerr=error, marker="o", ms=3, lw=1, color="#0072B2")
            if best is not None:
                at = int(mean.argmin() if best == "min" else mean.argmax())
                k = mean.index[at]
                panel.plot(
                    [k], [mean.iloc[at]], "*", ms=10, color="#D55E00", label=f"best: K = {k}"
                )
                panel.legend(frameon=False)
            panel.set(xlabel="gradient steps K", ylabel=label)
        return figure


def _show(panel: Axes, image: NDArray[np.float32], low: float, high: float) -> None:
    panel.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def _scale_bar(panel: Axes, voxel_size: float) -> None:
    rows, columns = panel.images[0].get_size()
    nanometres = round_length(columns * voxel_size / 3)
    length = nanometres / voxel_size
    y, x = rows * 0.93, columns * 0.05
    panel.plot([x, x + length], [y, y], lw=3, color="white", solid_capstyle="butt")
    panel.text(x, y - rows * 0.03, f"{nanometres:g} nm", color="white", va="bottom", fontsize=6)


def round_length(most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))
