"""Accuracy of reconstructions together with the work they took, one row an image."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd
from torch import Tensor

from ddgm.errors import DdgmError
from ddgm.metrics import image_metrics
from ddgm.reconstruction import Reconstruction


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
