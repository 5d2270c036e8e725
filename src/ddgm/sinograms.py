"""Simulated tilt series: y = A x + σ_y ε (Eq. 3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddgm.archive import read_archive, write_archive
from ddgm.denoiser import Normalisation
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.noise import ImageNoise, Purpose
from ddgm.operator import LinearOperator


@dataclass(frozen=True)
class SinogramSet:
    """Tilt series of a set of images, with the geometry they were taken in.

    Attributes
    ----------
    sinograms : Tensor
        (count, views, detector) float32, projections of normalised images.
    geometry : TiltGeometry
        Image, tilts and detector.
    noise_std : float
        Standard deviation σ_y of the noise.
    """

    sinograms: Tensor
    geometry: TiltGeometry
    noise_std: float

    def __post_init__(self) -> None:
        if tuple(self.sinograms.shape[1:]) != self.geometry.sinogram_shape:
            raise DdgmError(
                f"sinograms: shape {tuple(self.sinograms.shape)} does not fit the geometry, which "
                f"has (views, detector) = {self.geometry.sinogram_shape}"
            )

    def save(self, path: Path | str) -> None:
        """Write the set as one compressed NumPy archive."""
        write_archive(
            path,
            sinograms=self.sinograms.numpy(),
            geometry=json.dumps(self.geometry.as_dict()),
            noise_std=self.noise_std,
        )

    @classmethod
    def load(cls, path: Path | str) -> SinogramSet:
        """Read a set that `save` wrote."""
        archive = read_archive(path)
        return cls(
            torch.from_numpy(archive["sinograms"]),
            TiltGeometry.from_dict(json.loads(str(archive["geometry"]))),
            float(archive["noise_std"]),
        )


def simulate(
    operator: LinearOperator,
    images: Tensor,
    *,
    noise_std: float,
    seed: int,
    purpose: Purpose = Purpose.TEST_MEASUREMENT,
) -> Tensor:
    """Project images and add measurement noise (Eq. 3).

    Parameters
    ----------
    operator : LinearOperator
        The projector A.
    images : Tensor
        (count, rows, columns) float32, zero mean and unit variance.
    noise_std : float
        σ_y; the paper's 4.1 is a signal-to-noise ratio of 10 to 1 for 128 × 128 patches.
    seed : int
        Seed of the noise; each image has its own stream.
    purpose : Purpose
        Of the set of images: validation and test measurements have different noise.

    Returns
    -------
    Tensor
        (count, views, detector) float32.
    """
    noise = ImageNoise(
        seed, range(len(images)), operator.data_shape, operator.device, purpose=purpose
    )
    return operator.forward(images.to(operator.device)) + noise_std * noise.draw()


def normalise_measurement(
    operator: LinearOperator, data: Tensor, normalisation: Normalisation
) -> Tensor:
    """Bring measured tilt views into the units that networks and methods work in.

    A is linear, so the projection of the normalised image (x − mean)/std is (A x − mean A 1)/std.

    Parameters
    ----------
    operator : LinearOperator
        The projector A.
    data : Tensor
        (..., views, detector) float32: line integrals of grey values, in grey values × pixels.
    normalisation : Normalisation
        Of the network: ``denoiser.card.normalisation``.

    Returns
    -------
    Tensor
        (..., views, detector) float32.
    """
    flat = operator.forward(torch.ones(operator.image_shape, device=operator.device))
    return (data - normalisation.mean * flat) / normalisation.std
