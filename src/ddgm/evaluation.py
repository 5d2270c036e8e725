"""Accuracy of reconstructions together with the work they took, one row an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ddgm.errors import DdgmError
from ddgm.methods import Algebraic, Problem
from ddgm.metrics import image_metrics
from ddgm.operator import LinearOperator
from ddgm.reconstruction import Reconstruction, data_error


def evaluate(result: Reconstruction, truth: Tensor) -> pd.DataFrame:
    """Compare a reconstruction with the truth.

    Parameters
    ----------
    result : Reconstruction
        Of the first images of a set, or of all.
    truth : Tensor
        (count, rows, columns) float32, all images of the set; its range is that of SSIM and PSNR.

    Returns
    -------
    DataFrame
        One row an image: the columns of `ddgm.metrics.image_metrics`; data_error, the mean over the
        data of (Ax − y)²; seconds, wall time; gradient_evals, adjoint_evals, network_evals and
        network_gradient_evals.

    Raises
    ------
    DdgmError
        If there are more reconstructions than images.
    """
    count = len(result.images)
    if count > len(truth):
        raise DdgmError(f"evaluation: {count} reconstructions of {len(truth)} images")
    data_range = float(truth.max() - truth.min())
    metrics = image_metrics(result.images, truth[:count], data_range=data_range)
    metrics["data_error"] = result.data_error.numpy()
    metrics["seconds"] = result.seconds.numpy()
    for kind, count in asdict(result.evaluations).items():
        metrics[f"{kind}_evals"] = count
    return metrics


def algebraic_curve(
    steps: Sequence[int],
    step_size: float,
    operator: LinearOperator,
    data: Tensor,
    truth: Tensor,
    *,
    batch: int = 32,
    progress: bool = False,
) -> pd.DataFrame:
    """Follow the algebraic method's error over its steps, in one run (Fig. 12).

    Parameters
    ----------
    steps : sequence of int
        Numbers of gradient steps K to report.
    step_size : float
        λ.
    operator : LinearOperator
        The forward operator.
    data : Tensor
        (count, views, detector) float32.
    truth : Tensor
        (count, rows, columns) float32.
    batch : int
        Images at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row a K and image: the columns of `image_metrics`, K, and data_error, the mean over
        the data of (Ax − y)².
    """
    method = Algebraic(K=max(steps), step_size=step_size)
    method.check(operator)
    data_range = float(truth.max() - truth.min())
    frames: list[pd.DataFrame] = []
    with torch.no_grad(), tqdm(total=len(data), unit="image", disable=not progress) as bar:
        for first in range(0, len(data), batch):
            part = data[first : first + batch].to(operator.device)
            expected = truth[first : first + batch]
            for k, image in enumerate(method.iterates(Problem(operator, part)), start=1):
                if k not in steps:
                    continue
                frame = image_metrics(image.cpu(), expected, data_range=data_range)
                frame["image"] += first
                frame.insert(0, "K", k)
                frame["data_error"] = data_error(operator, image, part).cpu().numpy()
                frames.append(frame)
            bar.update(len(part))
    return pd.concat(frames, ignore_index=True).sort_values(["K", "image"], ignore_index=True)
