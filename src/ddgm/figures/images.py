"""Images side by side, on one grey scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddgm.figures.style import STYLE, WIDTH, grey_limits, scale_bar, show


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
        side = WIDTH / (columns + 0.4)  # the tilts need some room, too
        height = len(truth) * (side + 0.2) + 0.2
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panels = figure.subplots(len(truth), columns, squeeze=False)
        # All images share one grey scale, so that a washed-out one looks it.
        low, high = grey_limits(truth)
        for row, image in enumerate(truth):
            show(panels[row, 0], image, low, high)
            panels[row, 1].imshow(
                sinograms[row], cmap="gray", aspect="auto", extent=(0, 1, max_tilt, -max_tilt)
            )
            panels[row, 1].set(xticks=[], yticks=[-max_tilt, 0, max_tilt])
            panels[row, 1].set_box_aspect(image.shape[0] / image.shape[1])
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


def image_grid(
    images: NDArray[np.float32],
    *,
    limits: tuple[float, float],
    voxel_size: float,
    columns: int = 8,
) -> Figure:
    """Show many images, row by row (Figs. 5 to 7).

    Parameters
    ----------
    images : ndarray
        (count, rows, columns).
    limits : (float, float)
        What is black and what white: `ddgm.figures.grey_limits` of real images.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    columns : int
        Images a row.
    """
    with mpl.rc_context(STYLE):
        rows, gap = -(-len(images) // columns), 0.03  # between images, in their own size
        width = WIDTH / (columns + gap * (columns - 1))
        height = width * images.shape[1] / images.shape[2]
        columns = min(columns, len(images))
        size = width * (columns + gap * (columns - 1)), height * (rows + gap * (rows - 1))
        figure = Figure(figsize=size)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        figure.subplots_adjust(0, 0, 1, 1, wspace=gap, hspace=gap)
        for panel in panels:
            panel.set_axis_off()
        for panel, image in zip(panels, images, strict=False):
            show(panel, image, *limits)
        scale_bar(panels[0], voxel_size)
        return figure
