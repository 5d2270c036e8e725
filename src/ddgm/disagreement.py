"""Where runs of one measurement disagree, and on which images they do so most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

RADIUS = 3.0  # pixels, standard deviation of the window: a single pixel is no structure
MARKED = 0.95  # of all pixels are not marked


def local_deviation(std: NDArray[np.floating], radius: float = RADIUS) -> NDArray[np.float64]:
    """Return the deviation of runs over a neighbourhood, the root of the smoothed variance.

    Parameters
    ----------
    std : ndarray
        (count, rows, columns), standard deviation of the runs.
    radius : float
        Standard deviation of the Gaussian window, pixels.

    Returns
    -------
    ndarray
        (count, rows, columns) float64.
    """
    variance = np.square(np.asarray(std, dtype=float))
    smooth: NDArray[np.float64] = gaussian_filter(variance, (0, radius, radius), mode="reflect")
    return np.sqrt(smooth)


def by_ambiguity(local: NDArray[np.float64]) -> NDArray[np.intp]:
    """Sort images by how much their runs disagree where they disagree most, the clearest first.

    Parameters
    ----------
    local : ndarray
        (count, rows, columns), what `local_deviation` returns.

    Returns
    -------
    ndarray
        (count,) int, indices: by the 95th percentile of each map.
    """
    return np.argsort(np.quantile(local, MARKED, axis=(1, 2)), kind="stable")


def marking_level(local: NDArray[np.float64]) -> float:
    """Return the local deviation that 5 % of the pixels of all these images exceed.

    One level for all images: in a clear one little is marked, or nothing.
    """
    return float(np.quantile(local, MARKED))
