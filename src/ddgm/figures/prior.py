"""What a network takes for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ddgm.figures.style import COLOURS, LINES, STYLE, WIDTH, grey_limits, scale_bar, show
from ddgm.image_statistics import radial_power_spectrum


def prior_samples(
    sets: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    voxel_size: float,
    count: int = 12,
) -> Figure:
    """Show samples of a prior beside real images, and the statistics of both (cf. Figs. 2 and 5).

    Parameters
    ----------
    sets : sequence of (str, ndarray)
        A label and (count, size, size) images in network units; the first are real.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    count : int
        Images of each set to show, at most.
    """
    with mpl.rc_context(STYLE):
        columns, rows = 4, -(-count // 4)
        side = WIDTH / columns / len(sets)
        figure = Figure(figsize=(WIDTH, side * rows + 2.5), layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=[side * rows + 0.3, 2.2])
        top, bottom = halves
        low, high = grey_limits(sets[0][1])
        parts = top.subfigures(1, len(sets), squeeze=False)[0]
        for index, (part, (label, images)) in enumerate(zip(parts, sets, strict=True)):
            part.suptitle(label, fontsize=8)
            panels = part.subplots(rows, columns, squeeze=False).ravel()
            for panel in panels:
                panel.set_axis_off()
            for panel, image in zip(panels, images[:count], strict=False):
                show(panel, image, low, high)
            if index == 0:
                scale_bar(panels[0], voxel_size)
        histogram, spectrum = bottom.subplots(1, 2)
        darkest, brightest = np.percentile(sets[0][1], [0.01, 99.99])
        bins = np.linspace(darkest, brightest, 200)
        for (label, images), colour, style in zip(sets, COLOURS, LINES, strict=False):
            kept = {"color": colour, "linestyle": style, "lw": 1.2}
            density, _ = np.histogram(images, bins, density=True)
            # Real images have whole grey values, which a finer histogram would show as a comb.
            density = gaussian_filter1d(density, 5)
            histogram.plot((bins[1:] + bins[:-1]) / 2, density, **kept, label=label)
            frequency, power = radial_power_spectrum(images)
            spectrum.loglog(frequency, power, **kept)
        histogram.set(xlabel="intensity, standard deviations", ylabel="density")
        histogram.legend(frameon=False)
        spectrum.xaxis.set_minor_formatter(NullFormatter())  # of small images they overlap
        spectrum.set(xlabel="spatial frequency, cycles a pixel", ylabel="power")
        return figure
