"""Accuracy of reconstructions together with the work they took, one row an image."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddgm.denoiser import Normalisation
from ddgm.errors import DdgmError
from ddgm.metrics import image_metrics
from ddgm.reconstruction import Reconstruction
from ddgm.volume import Volume


def evaluate(result: Reconstruction, truth: Tensor | None) -> pd.DataFrame:
    """Compare a reconstruction with the truth, where it is known, and with the data.

    Parameters
    ----------
    result : Reconstruction
        Of the first images of a set, or of all.
    truth : Tensor or None
        (count, rows, columns) float32, all images of the set; its range is that of SSIM and PSNR.

    Returns
    -------
    DataFrame
        One row an image: the columns of `ddgm.metrics.image_metrics` (without the truth image
        alone); data_error, the mean over the data of (Ax − y)²; seconds, wall time; gradient_evals,
        adjoint_evals, network_evals and network_gradient_evals.

    Raises
    ------
    DdgmError
        If there are more reconstructions than images.
    """
    count = len(result.images)
    if truth is None:
        metrics = pd.DataFrame({"image": range(count)})
    elif count > len(truth):
        raise DdgmError(f"evaluation: {count} reconstructions of {len(truth)} images")
    else:
        data_range = float(truth.max() - truth.min())
        metrics = image_metrics(result.images, truth[:count], data_range=data_range)
    metrics["data_error"] = result.data_error.numpy()
    metrics["seconds"] = result.seconds.numpy()
    for kind, number in asdict(result.evaluations).items():
        metrics[f"{kind}_evals"] = number
    return metrics


def evaluate_volume(
    result: Volume, truth: Volume, normalisation: Normalisation, *, batch: int = 16
) -> pd.DataFrame:
    """Compare a reconstructed slab with the truth, section by section.

    Parameters
    ----------
    result : Volume
        What `ddgm.volume_reconstruction.reconstruct_volume` made.
    truth : Volume
        Of the same shape.
    normalisation : Normalisation
        Of grey values: errors are in network units, as those of patches are.
    batch : int
        Sections in memory at a time.

    Returns
    -------
    DataFrame
        One row a section: the columns of `evaluate`.

    Raises
    ------
    DdgmError
        If the shapes differ, or the volume does not say how it was made.
    """
    if result.shape != truth.shape:
        raise DdgmError(f"evaluation: the volume is {result.shape}, the truth {truth.shape}")
    if "reconstruction" not in result.array.attrs:
        raise DdgmError("evaluation: the volume has no attribute reconstruction")

    def sections(volume: Volume, first: int) -> Tensor:
        grey = np.asarray(volume.array[first : first + batch], dtype=np.float32)
        return torch.from_numpy((grey - normalisation.mean) / normalisation.std).float()

    starts = range(0, truth.shape[0], batch)
    ranges = [sections(truth, first).aminmax() for first in starts]
    data_range = float(max(each.max for each in ranges) - min(each.min for each in ranges))
    frames = [
        image_metrics(sections(result, first), sections(truth, first), data_range=data_range)
        for first in starts
    ]
    metrics = pd.concat(frames, ignore_index=True).assign(image=range(truth.shape[0]))
    made: Any = result.array.attrs["reconstruction"]
    for column in ("data_error", "seconds"):
        metrics[column] = made[column]
    for kind, number in made["evaluations"].items():
        metrics[f"{kind}_evals"] = number
    return metrics
