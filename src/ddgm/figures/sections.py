"""Sections of a slab, far wider than deep."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddgm.figures.style import STYLE, WIDTH, grey_limits, scale_bar, show


def slab(
    sinogram: NDArray[np.float32],
    images: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    truth: NDArray[np.float32] | None = None,
    voxel_size: float,
    tilts: tuple[float, float],
) -> Figure:
    """Show a section of a slab: its tilt views above reconstructions and truth (cf. Fig. 1).

    Parameters
    ----------
    sinogram : ndarray
        (views, detector).
    images : sequence of (str, ndarray)
        A label and a (depth, lateral) image each.
    truth : ndarray, optional
        (depth, lateral); with it errors are given.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    tilts : (float, float)
        Of the first and the last view, degrees.
    """
    with mpl.rc_context(STYLE):
        rows, columns = images[0][1].shape
        height = max(0.5, WIDTH * rows / columns)
        shown = [*images, *([] if truth is None else [("truth", truth)])]
        count = len(shown) + 1
        figure = Figure(figsize=(WIDTH, count * (height + 0.2)), layout="constrained")
        panels = figure.subplots(count, 1, squeeze=False)[:, 0]
        panels[0].imshow(
            sinogram, cmap="gray", aspect="auto", extent=(0, 1, len(sinogram) - 0.5, -0.5)
        )
        panels[0].set(xticks=[], yticks=[0, len(sinogram) - 1])
        panels[0].set_yticklabels([f"{tilt:.0f}°".replace("-", "−") for tilt in tilts])
        panels[0].spines[:].set_visible(False)
        panels[0].set_title("tilt series", loc="left")
        low, high = grey_limits(shown[-1][1])
        for index, (panel, (label, image)) in enumerate(zip(panels[1:], shown, strict=True)):
            show(panel, image, low, high)
            if truth is not None and index < len(images):
                label = f"{label}, MSE {np.square(image - truth).mean():.3f}"
            panel.set_title(label, loc="left")
        scale_bar(panels[-1], voxel_size)
        return figure
