"""How far a reconstruction is from the truth."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ddgm.errors import DdgmError


def image_metrics(
    images: Tensor, truth: Tensor, *, data_range: float | None = None
) -> pd.DataFrame:
    """Compare images with the truth, one row an image.

    Parameters
    ----------
    images, truth : Tensor
        (count, rows, columns) float32 in network units.
    data_range : float, optional
        Range of grey values for SSIM; that of all of `truth` unless given. It must be one number
        for a whole set: TorchMetrics' default depends on the batch.

    Returns
    -------
    DataFrame
        Columns image, mse (mean squared error) and ssim (Wang et al. 2004, as TorchMetrics
        computes it with a Gaussian window).

    Raises
    ------
    DdgmError
        If the shapes differ.
    """
    if images.shape != truth.shape:
        raise DdgmError(
            f"metrics: images are {tuple(images.shape)}, the truth is {tuple(truth.shape)}"
        )
    mse = (images - truth).square().mean(dim=(1, 2))
    ssim = structural_similarity_index_measure(
        images.unsqueeze(1),
        truth.unsqueeze(1),
        data_range=float(truth.max() - truth.min()) if data_range is None else data_range,
        reduction="none",
    )
    assert isinstance(ssim, Tensor)
    return pd.DataFrame(
        {
            "image": torch.arange(len(images)).numpy(),
            "mse": mse.numpy(),
            "ssim": ssim.reshape(-1).numpy(),
        }
    )
