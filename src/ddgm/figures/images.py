"""Images side by side, on one grey scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddgm.figures.style import STYLE, scale_bar, show


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
    with mpl.rc_context(STYLE):
        columns = len(reconstructions) + 2
        figure = Figure(figsize=(1.6 * columns, 1.65 * len(truth) + 0.35), layout="constrained")
        panels = figure.subplots(len(truth), columns, squeeze=False)
        # All images share one grey scale, so that a washed-out one looks it.
        low, high = np.percentile(truth, [0.5, 99.5])
        for row, image in enumerate(truth):
            show(panels[row, 0], image, low, high)
            panels[row, 1].imshow(
                sinograms[row], cmap="gray", aspect="auto", extent=(0, 1, max_tilt, -max_tilt)
            )
            panels[row, 1].set(xticks=[], yticks=[-max_tilt, 0, max_tilt])
            panels[row, 1].spines[:].set_visible(False)
            panels[row, 1].yaxis.set_major_formatter("{x:.0f}°")
            for column, (_, images) in enumerate(reconstructions, start=2):
                show(panels[row, column], images[row], low, high)
                mse = float(np.square(images[row] - image).mean())
                panels[row, column].set_xlabel(f"MSE {mse:.3f}", labelpad=2)
        titles = ["truth", "tilt series", *(label for label, _ in reconstructions)]
        for panel, title in zip(panels[0], titles, strict=True):
            panel.set_title(title)
        scale_bar(panels[0, 0], voxel_size)
        return figure
