"""Statistics of images as such, by which samples of a prior are held against real images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ddgm.errors import DdgmError

Images = npt.NDArray[np.floating]


def radial_power_spectrum(images: Images) -> tuple[npt.NDArray[np.float64], Images]:
    """Return the mean power of images by spatial frequency.

    A Hann window keeps the edges, where opposite sides do not meet, out of the spectrum; the sum of
    its squares is divided out, so that white noise of unit variance has power 1 everywhere.

    Parameters
    ----------
    images : ndarray
        (count, size, size).

    Returns
    -------
    frequency : ndarray
        (size // 2 − 1,) cycles a pixel, from 1/size up to below one half; the mean is left out.
    power : ndarray
        (size // 2 − 1,) mean over images and over the ring of half a bin around each frequency.

    Raises
    ------
    DdgmError
        If the images are not square.
    """
    images = np.asarray(images, dtype=np.float64)
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise DdgmError(f"power spectrum: images are {images.shape}; they must be square")
    size = images.shape[1]
    window = np.outer(np.hanning(size), np.hanning(size))
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    power = np.square(np.abs(np.fft.fft2(centred * window))).mean(axis=0) / np.square(window).sum()
    axis = np.fft.fftfreq(size)
    ring = np.rint(np.hypot(axis[:, None], axis) * size).astype(int).ravel()
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring)
    rings = np.arange(1, size // 2)
    return rings / size, mean[rings]


def spectrum_distance(images: Images, real: Images) -> float:
    """Return the root mean square, over log frequency, of the ratio of two power spectra in dB.

    Octaves weigh the same, so that the few low frequencies, which hold the most power, count.

    Parameters
    ----------
    images, real : ndarray
        (count, size, size) each, of one size.
    """
    frequency, power = radial_power_spectrum(images)
    _, expected = radial_power_spectrum(real)
    decibel = 10 * np.log10(power / expected)
    return float(np.sqrt(np.average(np.square(decibel), weights=1 / frequency)))


def compare_statistics(sets: dict[str, Images], real: Images) -> pd.DataFrame:
    """Hold sets of images against real ones.

    Parameters
    ----------
    sets : dict of str to ndarray
        Name and (count, size, size) images in network units. To know what is close, put in other
        real images, too.
    real : ndarray
        (count, size, size) real images.

    Returns
    -------
    DataFrame
        One row a set: its name, number of images, mean and standard deviation of its pixels,
        `intensity_distance` (the earth mover's distance between the histograms of all pixels, in
        network units: standard deviations of the training volume) and `spectrum_distance` (dB).
    """
    from scipy.stats import wasserstein_distance  # a second to load, which most figures can save

    rows = [
        {
            "images_of": name,
            "count": len(images),
            "mean": float(images.mean()),
            "std": float(images.std()),
            "intensity_distance": float(wasserstein_distance(images.ravel(), real.ravel())),
            "spectrum_distance": spectrum_distance(images, real),
        }
        for name, images in sets.items()
    ]
    return pd.DataFrame(rows)
