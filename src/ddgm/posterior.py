"""Several runs of a random method on each measurement: their mean, spread and consistency."""

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
from ddgm.data_consistency import check_noise_std, column_norms, residual, score_map
from ddgm.denoiser import Denoiser
from ddgm.errors import DdgmError, SettingError
from ddgm.methods import Evaluations, Method, Problem, check_noise_levels
from ddgm.noise import ImageNoise
from ddgm.operator import LinearOperator
from ddgm.reconstruction import data_error

APART = 2**32  # between the identities of two runs of one measurement


@dataclass(frozen=True)
class Posterior:
    """What S runs on each of a set of tilt series have in common, and where they differ.

    Attributes
    ----------
    mean : Tensor
        (count, rows, columns) float32, network units, CPU: mean of the runs.
    std : Tensor
        (count, rows, columns) float32: standard deviation of the runs, with S − 1 in the
        denominator.
    residual : Tensor
        (count, views, detector) float32: (y − A mean)/σ_y (`ddgm.data_consistency.residual`).
    consistency : Tensor
        (count, rows, columns) float32: by how many standard deviations the views ask for another
        value of the mean in each pixel (`ddgm.data_consistency.score_map`).
    runs : Tensor
        (count, kept, rows, columns) float32: the first runs themselves.
    samples : int
        S.
    data_error : Tensor
        (count,) float32: mean over runs and data of (Ax − y)².
    seconds : Tensor
        (count,) float32: wall time of the runs of a measurement.
    evaluations : Evaluations
        Work spent on one run, that on which most was spent.
    """

    mean: Tensor
    std: Tensor
    residual: Tensor
    consistency: Tensor
    runs: Tensor
    samples: int
    data_error: Tensor
    seconds: Tensor
    evaluations: Evaluations

    def save(self, path: Path | str) -> None:
        """Write everything as one compressed NumPy archive."""
        write_archive(
            path,
            mean=self.mean.numpy(),
            std=self.std.numpy(),
            residual=self.residual.numpy(),
            consistency=self.consistency.numpy(),
            runs=self.runs.numpy(),
            samples=self.samples,
            data_error=self.data_error.numpy(),
            seconds=self.seconds.numpy(),
            evaluations=json.dumps(asdict(self.evaluations)),
        )

    @classmethod
    def load(cls, path: Path | str) -> Posterior:
        """Read what `save` wrote."""
        archive = read_archive(path)
        return cls(
            mean=torch.from_numpy(archive["mean"]),
            std=torch.from_numpy(archive["std"]),
            residual=torch.from_numpy(archive["residual"]),
            consistency=torch.from_numpy(archive["consistency"]),
            runs=torch.from_numpy(archive["runs"]),
            samples=int(archive["samples"]),
            data_error=torch.from_numpy(archive["data_error"]),
            seconds=torch.from_numpy(archive["seconds"]),
            evaluations=Evaluations(**json.loads(str(archive["evaluations"]))),
        )


def draw_posterior(
    method: Method,
    operator: LinearOperator,
    data: Tensor,
    denoiser: Denoiser | BlendedDenoiser | None = None,
    *,
    noise_std: float,
    samples: int = 16,
    kept: int = 0,
    seed: int = 0,
    batch: int = 32,
    progress: bool = False,
) -> Posterior:
    """Run a method several times on every tilt series of a set, with fresh noise each time.

    Runs of one or of several measurements go through the network together, `batch` at a time. They
    are added up as they come, so that no more than a batch of them is in memory.

    Parameters
    ----------
    method : Method
        A random method with its settings: DDGM, DDRM, DPS, or the proximal one, which draws fresh
        noise with η > 0 and is random by its start alone with η = 0.
    operator : LinearOperator
        The forward operator; its device is where the work is done.
    data : Tensor
        (count, views, detector) float32.
    denoiser : Denoiser or BlendedDenoiser, optional
        As `ddgm.reconstruction.reconstruct` takes it.
    noise_std : float
        Standard deviation σ_y of the noise of the data, > 0.
    samples : int
        Runs of each measurement S, at least 2.
    kept : int
        How many of the runs to return as they are, the first ones.
    seed : int
        Of the noise. Each run of each measurement has its own stream: the first run is that of
        `reconstruct` with this seed, more samples leave the earlier ones as they are, and no
        result depends on `batch` beyond float rounding.
    batch : int
        Runs at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Posterior
        Mean, standard deviation and data consistency in network units.

    Raises
    ------
    DdgmError
        If there are too few samples, the settings do not suit operator or network, or the method
        diverges.
    """
    if not len(data):
        raise DdgmError("posterior: there are no data")
    if samples < 2:
        raise SettingError("samples", samples, "must be at least 2: one has no deviation")
    if not 0 <= kept <= samples:
        raise SettingError("kept", kept, f"must lie between 0 and samples = {samples}")
    check_noise_std(noise_std)
    method.check(operator)
    if not method.needs_network or denoiser is None:
        raise DdgmError("posterior: samples need a random method and a network; one is missing")
    if denoiser.card is not None:
        check_noise_levels(method, denoiser.card.sigma_min, denoiser.card.sigma_max)
    norms = column_norms(operator)

    shape = (len(data), *operator.image_shape)
    mean, squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    runs = torch.empty(len(data), kept, *operator.image_shape)
    errors, seconds = torch.zeros(2, len(data), dtype=torch.float64)
    evaluations = Evaluations()

    def watch(spent: Evaluations) -> None:
        bar.set_postfix_str(f"{spent.network} network evaluations", refresh=False)
        bar.update(0)

    total = len(data) * samples
    shown = tqdm(total=total, unit="run", miniters=0, mininterval=1.0, disable=not progress)
    with torch.no_grad(), shown as bar:
        for first in range(0, total, batch):
            places = [divmod(at, samples) for at in range(first, min(first + batch, total))]
            part = data[[owner for owner, _ in places]].to(operator.device)
            identities = [number * APART + owner for owner, number in places]
            noise = ImageNoise(seed, identities, operator.image_shape, operator.device)
            problem = Problem(operator, part, denoiser, noise, noise_std, watch)
            started = time.perf_counter()
            drawn = method.solve(problem)
            images = drawn.cpu()  # waits for a GPU, so that the time is the work's
            each = (time.perf_counter() - started) / len(places)
            missed = data_error(operator, drawn, part).cpu()
            for image, error, (owner, number) in zip(images, missed, places, strict=True):
                # Welford's: the sum of squares less that of the mean would lose digits.
                change = image.double() - mean[owner]
                mean[owner] += change / (number + 1)
                squares[owner] += change * (image.double() - mean[owner])
                if number < kept:
                    runs[owner, number] = image
                errors[owner] += error / samples
                seconds[owner] += each
            evaluations = evaluations.most(problem.evaluations)
            bar.update(len(places))
        residuals, scores = [], []
        for images, part in zip(
            torch.split(mean.float(), batch), torch.split(data, batch), strict=True
        ):
            left = residual(
                operator, images.to(operator.device), part.to(operator.device), noise_std
            )
            residuals.append(left.cpu())
            scores.append(score_map(operator, left, norms).cpu())
    return Posterior(
        mean=mean.float(),
        std=(squares / (samples - 1)).sqrt().float(),
        residual=torch.cat(residuals),
        consistency=torch.cat(scores),
        runs=runs,
        samples=samples,
        data_error=errors.float(),
        seconds=seconds.float(),
        evaluations=evaluations,
    )
