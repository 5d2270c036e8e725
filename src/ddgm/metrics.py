"""How far a reconstruction is from the truth."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from ddgm.errors import DdgmError

WINDOW = 11  # pixels, of SSIM (Wang et al. 2004)


def image_metrics(
    images: Tensor, truth: Tensor, *, data_range: float | None = None
) -> pd.DataFrame:
    """Compare images with the truth, one row an image.

    Parameters
    ----------
    images, truth : Tensor
        (count, rows, columns) float32 in network units.
    data_range : float, optional
        Range of grey values for SSIM and PSNR; that of all of `truth` unless given. It must be one
        number for a whole set: TorchMetrics' default depends on the batch.

    Returns
    -------
    DataFrame
        Columns image, mse (mean squared error), psnr (dB, of `data_range`) and ssim (Wang et al.
        2004, as TorchMetrics computes it with a Gaussian window).

    Raises
    ------
    DdgmError
        If the shapes differ, images are smaller than SSIM's window or the truth is constant.
    """
    if images.shape != truth.shape:
        raise DdgmError(
            f"metrics: images are {tuple(images.shape)}, the truth is {tuple(truth.shape)}"
        )
    if min(images.shape[1:]) < WINDOW:
        raise DdgmError(
            f"metrics: images of {images.shape[1]} × {images.shape[2]} pixels are smaller than the "
            f"window of SSIM, {WINDOW} × {WINDOW}"
        )
    if data_range is None:
        data_range = float(truth.max() - truth.min())
    if not data_range > 0:
        raise DdgmError(
            f"metrics: the range of the truth is {data_range:g}; SSIM needs one above 0"
        )
    mse = (images - truth).square().mean(dim=(1, 2))
    ssim = structural_similarity_index_measure(
        images.unsqueeze(1),
        truth.unsqueeze(1),
        data_range=data_range,
        kernel_size=WINDOW,
        reduction="none",
    )
    assert isinstance(ssim, Tensor)
    psnr = peak_signal_noise_ratio(
        images, truth, data_range=data_range, reduction="none", dim=(1, 2)
    )
    return pd.DataFrame(
        {
            "image": torch.arange(len(images)).numpy(),
            "mse": mse.numpy(),
            "psnr": psnr.numpy(),
            "ssim": ssim.reshape(-1).numpy(),
        }
    )
