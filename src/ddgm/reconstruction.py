"""Reconstruction of a whole set of tilt series, batch by batch."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ddgm.archive import read_archive, write_archive
from ddgm.blending import BlendedDenoiser
from ddgm.denoiser import Denoiser
from ddgm.errors import DdgmError
from ddgm.methods import Evaluations, Method, Problem, check_noise_levels
from ddgm.noise import ImageNoise
from ddgm.operator import LinearOperator


@dataclass(frozen=True)
class Reconstruction:
    """Images a method made of a set of tilt series.

    Attributes
    ----------
    images : Tensor
        (count, rows, columns) float32, network units, CPU.
    data_error : Tensor
        (count,) float32: mean over the data of (Ax − y)².
    seconds : Tensor
        (count,) float32: wall time an image, that of its batch divided by the batch's size.
    evaluations : Evaluations
        Work spent on an image, that on which most was spent.
    """

    images: Tensor
    data_error: Tensor
    seconds: Tensor
    evaluations: Evaluations

    def save(self, path: Path | str) -> None:
        """Write the reconstruction as one compressed NumPy archive."""
        write_archive(
            path,
            images=self.images.numpy(),
            data_error=self.data_error.numpy(),
            seconds=self.seconds.numpy(),
            evaluations=json.dumps(asdict(self.evaluations)),
        )

    @classmethod
    def load(cls, path: Path | str) -> Reconstruction:
        """Read what `save` wrote."""
        archive = read_archive(path)
        return cls(
            torch.from_numpy(archive["images"]),
            torch.from_numpy(archive["data_error"]),
            torch.from_numpy(archive["seconds"]),
            Evaluations(**json.loads(str(archive["evaluations"]))),
        )


def reconstruct(
    method: Method,
    operator: LinearOperator,
    data: Tensor,
    denoiser: Denoiser | BlendedDenoiser | None = None,
    *,
    noise_std: float | None = None,
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
    denoiser : Denoiser or BlendedDenoiser, optional
        The prior, on the operator's device, where the method needs one; blended for images that are
        larger than the network's patches or of a size that it does not take.
    noise_std : float, optional
        Standard deviation σ_y of the noise of the data, for methods that weigh by it.
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
        Images in network units, how well they explain the data, and the work that each took.

    Raises
    ------
    DdgmError
        If the settings do not suit operator or network, or the method diverges.
    """
    if not len(data):
        raise DdgmError("reconstruct: there are no data")
    method.check(operator)
    if method.needs_network:
        if denoiser is None:
            raise DdgmError("reconstruct: the method needs a denoising network; none was given")
        if denoiser.card is not None:
            check_noise_levels(method, denoiser.card.sigma_min, denoiser.card.sigma_max)
    images, errors, seconds = [], [], []
    evaluations = Evaluations()

    def watch(spent: Evaluations) -> None:
        bar.set_postfix_str(f"{spent.network} network evaluations", refresh=False)
        bar.update(0)

    shown = tqdm(total=len(data), unit="image", miniters=0, mininterval=1.0, disable=not progress)
    with torch.no_grad(), shown as bar:
        for first in range(0, len(data), batch):
            part = data[first : first + batch].to(operator.device)
            identities = range(first, first + len(part))
            noise = ImageNoise(seed, identities, operator.image_shape, operator.device)
            problem = Problem(operator, part, denoiser, noise, noise_std, watch)
            started = time.perf_counter()
            solution = method.solve(problem)
            images.append(solution.cpu())  # waits for a GPU, so that the time is the work's
            seconds.append(torch.full((len(part),), (time.perf_counter() - started) / len(part)))
            errors.append(data_error(operator, solution, part).cpu())
            evaluations = evaluations.most(problem.evaluations)
            bar.update(len(part))
    return Reconstruction(torch.cat(images), torch.cat(errors), torch.cat(seconds), evaluations)


def data_error(operator: LinearOperator, images: Tensor, data: Tensor) -> Tensor:
    """Return the mean over the data of (Ax − y)², (count,), of images (count, rows, columns)."""
    return (operator.forward(images) - data).square().mean(dim=(1, 2))
