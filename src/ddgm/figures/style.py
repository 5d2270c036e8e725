"""What all figures share: colours, lines, grey scale, scale bar, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

# Okabe and Ito's colours, told apart by colour-blind readers; line styles for prints in grey.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7")
LINES = ("-", "--", ":", "-.", "-")
MARKERS = "os^Dv"
STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "axes.titlesize": 8,
    "savefig.dpi": 300,
}


WIDTH = 6.9  # inches, that of a page of text


def save_figure(figure: Figure, *paths: Path | str) -> None:
    """Write a figure in the formats that the paths' endings name, without a date inside."""
    with mpl.rc_context(STYLE):
        for path in paths:
            metadata = {"CreationDate": None} if str(path).endswith(".pdf") else None
            figure.savefig(path, metadata=metadata)


def grey_limits(images: NDArray[np.float32]) -> tuple[float, float]:
    """Return what is to be black and what white, for all images that are shown beside these."""
    low, high = np.percentile(images, [0.5, 99.5])
    return float(low), float(high)


def show(panel: Axes, image: NDArray[np.float32], low: float, high: float) -> None:
    """Show an image in grey, black at `low` and white at `high`, without ticks or a frame."""
    panel.imshow(image, cmap="gray", vmin=low, vmax=high)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def scale_bar(panel: Axes, voxel_size: float) -> None:
    """Draw a bar of a round length, at most a third of the image's width; `voxel_size` in nm."""
    rows, columns = panel.images[0].get_size()
    nanometres = round_length(columns * voxel_size / 3)
    length = nanometres / voxel_size
    y, x = rows * 0.93, columns * 0.05
    # The outline is for bright tissue.
    look: Any = {"color": "white", "path_effects": [withStroke(linewidth=1.5, foreground="black")]}
    panel.plot([x, x + length], [y, y], lw=2, solid_capstyle="butt", **look)
    panel.text(x, y - rows * 0.03, f"{nanometres:g} nm", va="bottom", fontsize=6, **look)


def round_length(most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))
