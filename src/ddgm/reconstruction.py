"""Reconstruction of a whole set of tilt series, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ddgm.archive import read_archive, write_archive
from ddgm.denoiser import Denoiser
from ddgm.errors import DdgmError
from ddgm.methods import Algebraic, Evaluations, Method, Problem, check_noise_levels
from ddgm.metrics import image_metrics
from ddgm.noise import ImageNoise
from ddgm.operator import LinearOperator


@dataclass(frozen=True)
class Reconstruction:
    """Images a method made of a set of tilt series.

    Attributes
    ----------
    images : Tensor
        (count, rows, columns) float32, network units, CPU.
    evaluations : Evaluations
        Work spent on each image.
    """

    images: Tensor
    evaluations: Evaluations

    def save(self, path: Path | str) -> None:
        """Write the reconstruction as one compressed NumPy archive."""
        write_archive(
            path,
            images=self.images.numpy(),
            evaluations=json.dumps(asdict(self.evaluations)),
        )

    @classmethod
    def load(cls, path: Path | str) -> Reconstruction:
        """Read what `save` wrote."""
        archive = read_archive(path)
        return cls(
            torch.from_numpy(archive["images"]),
            Evaluations(**json.loads(str(archive["evaluations"]))),
        )


def reconstruct(
    method: Method,
    operator: LinearOperator,
    data: Tensor,
    denoiser: Denoiser | None = None,
    *,
    seed: int = 0,
    batch: int = 32,
    progress: bool = False,
) -> Reconstruction:
    """Reconstruct every tilt series of a set.

    Parameters
    ----------
    method : Method
        The method with its settings.
    operator : LinearOperator
        The forward operator; its device is where the work is done.
    data : Tensor
        (count, views, detector) float32.
    denoiser : Denoiser, optional
        The prior, on the operator's device, where the method needs one.
    seed : int
        Of the noise; each image has its own stream, so that results do not depend on `batch`
        beyond float rounding.
    batch : int
        Images at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Reconstruction
        Images in network units, and the work that each took.

    Raises
    ------
    DdgmError
        If the settings do not suit operator or network, or the method diverges.
    """
    method.check(operator)
    if method.needs_network:
        if denoiser is None:
            raise DdgmError("reconstruct: the method needs a denoising network; none was given")
        check_noise_levels(method, denoiser.card.sigma_min, denoiser.card.sigma_max)
    images: list[Tensor] = []
    evaluations = Evaluations()
    with torch.inference_mode(), tqdm(total=len(data), unit="image", disable=not progress) as bar:
        for first in range(0, len(data), batch):
            part = data[first : first + batch].to(operator.device)
            identities = range(first, first + len(part))
            noise = ImageNoise(seed, identities, operator.image_shape, operator.device)
            problem = Problem(operator, part, denoiser, noise)
            images.append(method.solve(problem).cpu())
            evaluations = problem.evaluations
            bar.update(len(part))
    return Reconstruction(torch.cat(images), evaluations)


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
    with torch.inference_mode(), tqdm(total=len(data), unit="image", disable=not progress) as bar:
        for first in range(0, len(data), batch):
            part = data[first : first + batch].to(operator.device)
            expected = truth[first : first + batch]
            for k, image in enumerate(method.iterates(Problem(operator, part)), start=1):
                if k not in steps:
                    continue
                frame = image_metrics(image.cpu(), expected, data_range=data_range)
                frame["image"] += first
                frame.insert(0, "K", k)
                error = (operator.forward(image) - part).square().mean(dim=(1, 2))
                frame["data_error"] = error.cpu().numpy()
                frames.append(frame)
            bar.update(len(part))
    return pd.concat(frames, ignore_index=True).sort_values(["K", "image"], ignore_index=True)


def pick_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one.

    Raises
    ------
    DdgmError
        If a GPU is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DdgmError("reconstruction: device is cuda, but PyTorch sees no GPU; use auto or cpu")
    return torch.device(name)
