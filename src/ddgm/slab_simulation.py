"""Simulated tilt series of a whole volume, section by section: y = A x + σ_y ε (Eq. 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddgm.denoiser import Normalisation
from ddgm.engine import make_operator
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.noise import ImageNoise, Purpose
from ddgm.tilt_series import TiltSeries, create_tilt_series, open_tilt_series
from ddgm.volume import Volume, identity
from ddgm.workplace import Workplace


def simulate_series(
    volume: Volume,
    path: Path | str,
    normalisation: Normalisation,
    *,
    views: int = 128,
    max_tilt: float = 60.0,
    detector: int | None = None,
    noise_std: float,
    seed: int,
    batch: int = 8,
    code: str | None = None,
    progress: bool = False,
) -> TiltSeries:
    """Simulate the tilt series of a slab of any size; goes on where it was interrupted.

    Each section of the volume, (depth, lateral), is a problem of its own. What is written are line
    integrals of grey values, as a microscope would give them.

    Parameters
    ----------
    volume : Volume
        The slab, tilt axis × depth × lateral.
    path : path-like
        Folder of the tilt series; it appears when it is complete.
    normalisation : Normalisation
        Of grey values, to express the noise in them.
    views, max_tilt, detector
        As for `TiltGeometry.limited_angle`.
    noise_std : float
        σ_y for an image of unit variance; the paper's is 4.1.
    seed : int
        Of the noise: a function of section, view and detector bin.
    batch : int
        Sections at a time.
    code : str, optional
        What identifies the code that does it; unfinished work of other code is not gone on with.
    progress : bool
        Show a progress bar.

    Returns
    -------
    TiltSeries
        The finished series.

    Raises
    ------
    DdgmError
        If the path is taken, or holds an unfinished simulation with other settings.
    """
    if volume.dtype.kind not in "uif":
        raise DdgmError(f"slab: its voxels are {volume.dtype}; numbers are needed")
    sections, *plane = volume.shape
    geometry = TiltGeometry.limited_angle(
        (plane[0], plane[1]), views=views, max_tilt=max_tilt, detector=detector
    )
    std = noise_std * normalisation.std
    settings = {
        "geometry": geometry.as_dict(),
        "sections": sections,
        "noise_std": std,
        "seed": seed,
        "batch": batch,
        "code": code,
        "origin": list(volume.origin),
        "volume": identity(volume.array),
    }
    workplace = Workplace.open(path, settings)
    with workplace.held():
        _simulate(workplace, volume, geometry, std, seed, batch, progress)
        with workplace.writing("the series"):
            workplace.close()
    return open_tilt_series(path)


def _simulate(
    workplace: Workplace,
    volume: Volume,
    geometry: TiltGeometry,
    std: float,
    seed: int,
    batch: int,
    progress: bool,
) -> None:
    """Simulate what is not finished."""
    sections = volume.shape[0]
    if not workplace.array.exists():
        with workplace.writing("the series"):
            create_tilt_series(
                workplace.array,
                sections,
                geometry,
                voxel_size=volume.voxel_size,
                noise_std=std,
                axes=volume.axes,
                origin=volume.origin,
                chunk=batch,
            )
            workplace.sync_array()
    series = open_tilt_series(workplace.array, mode="r+")
    remaining = workplace.remaining(sections, batch)
    left = sum(map(len, remaining))
    workplace.check_space(left * 4 * geometry.views * geometry.detector)
    operator = make_operator(geometry, fused=False)
    bar = tqdm(
        total=sections,
        initial=sections - left,
        unit="section",
        desc="tilt series",
        disable=not progress,
    )
    with torch.no_grad(), bar:
        for part in remaining:
            first, stop = part.start, part.stop
            images = np.asarray(volume.array[first:stop], dtype=np.float32)
            if not np.isfinite(images).all():
                raise DdgmError(
                    f"slab: sections {first} to {stop - 1} hold values that are not finite"
                )
            noise = ImageNoise(seed, part, operator.data_shape, purpose=Purpose.SLAB_MEASUREMENT)
            data = operator.forward(torch.from_numpy(images)) + std * noise.draw()
            with workplace.writing_sections(first, stop):
                series.array[first:stop] = data.numpy()
            with workplace.writing("a record"):
                workplace.finish(first, {"sections": len(part)})
            bar.update(len(part))
