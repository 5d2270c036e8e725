"""Image patches of a volume: fixed sets for evaluation, an endless stream for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from ddgm.archive import read_archive, write_archive
from ddgm.denoiser import Normalisation
from ddgm.errors import DdgmError
from ddgm.volume import Volume, open_volume

SETS = ("validation", "test")


@dataclass(frozen=True)
class PatchSet:
    """Square image patches in the grey values of their volume.

    Attributes
    ----------
    images : ndarray
        (count, size, size), the volume's dtype.
    positions : ndarray
        (count, 3) int64: section, first row and first column of each patch in the volume.
    voxel_size : float
        Pixel size, nm.
    """

    images: npt.NDArray[Any]
    positions: npt.NDArray[np.int64]
    voxel_size: float

    def save(self, path: Path | str) -> None:
        """Write the set as one compressed NumPy archive."""
        write_archive(
            path, images=self.images, positions=self.positions, voxel_size=self.voxel_size
        )

    @classmethod
    def load(cls, path: Path | str) -> PatchSet:
        """Read a set that `save` wrote."""
        archive = read_archive(path)
        return cls(archive["images"], archive["positions"], float(archive["voxel_size"]))

    def normalised(self, normalisation: Normalisation) -> torch.Tensor:
        """Return the images in network units, (count, size, size) float32."""
        images = (self.images.astype(np.float32) - normalisation.mean) / normalisation.std
        return torch.from_numpy(images.astype(np.float32))


def section_ranges(sections: int, gap: int) -> dict[str, range]:
    """Divide a volume's sections between the validation and the test set.

    The first half serves validation, the last half the test, with `gap` unused sections between:
    the sets share no voxel, nor sections so close that they look alike.

    Parameters
    ----------
    sections : int
        Sections of the volume along the tilt axis.
    gap : int
        Sections to leave unused.

    Raises
    ------
    DdgmError
        If less than one section a set would be left.
    """
    half = (sections - gap) // 2
    if half < 1:
        raise DdgmError(
            f"patches: {sections} sections cannot hold two sets with a gap of {gap} between them; "
            f"at most {sections - 2} can be left out"
        )
    return {"validation": range(half), "test": range(sections - half, sections)}


def draw_positions(
    shape: tuple[int, int, int], size: int, count: int, sections: range, seed: int
) -> npt.NDArray[np.int64]:
    """Draw random patch positions.

    Sections are drawn without replacement until all are used, since a section's neighbours look
    much like it; rows and columns are uniform.

    Parameters
    ----------
    shape : (int, int, int)
        Of the volume, sections × rows × columns.
    size : int
        Rows and columns of a patch.
    count : int
        Patches to draw.
    sections : range
        Sections to draw from.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray
        (count, 3) int64: section, first row, first column.

    Raises
    ------
    DdgmError
        If a patch is larger than a section.
    """
    if size > min(shape[1:]):
        raise DdgmError(
            f"patches: size {size} does not fit in sections of {shape[1]} × {shape[2]} voxels"
        )
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(sections))
    section = np.concatenate([rng.permutation(sections) for _ in range(rounds)])[:count]
    row = rng.integers(shape[1] - size + 1, size=count)
    column = rng.integers(shape[2] - size + 1, size=count)
    return np.stack([section, row, column], axis=1).astype(np.int64)


def extract_patches(
    volume: Volume, *, name: str, size: int, count: int, gap: int, seed: int
) -> PatchSet:
    """Cut the validation or the test set out of a volume.

    Parameters
    ----------
    volume : Volume
        The evaluation volume.
    name : {"validation", "test"}
        Which set.
    size : int
        Rows and columns of a patch.
    count : int
        Number of patches.
    gap : int
        Sections left unused between the two sets.
    seed : int
        Seed of the positions.
    """
    shape = volume.shape
    sections = section_ranges(shape[0], gap)[name]
    positions = draw_positions(shape, size, count, sections, seed + SETS.index(name))
    images = np.stack(
        [
            np.asarray(volume.array[section, row : row + size, column : column + size])
            for section, row, column in positions.tolist()
        ]
    )
    return PatchSet(images, positions, volume.pixel_size)


class TrainingPatches(Dataset[torch.Tensor]):
    """Random patches drawn on the fly from a volume that need not fit in memory.

    Patch i is a pure function of (seed, i), so that an interrupted training run goes on with the
    very same data. Reading a patch alone would decompress up to nine storage chunks for it; patches
    are cut out of random bricks instead, `bricks` of which are mixed and held in memory at a time.

    Parameters
    ----------
    path : path-like
        A Zarr volume.
    size : int
        Rows and columns of a patch.
    normalisation : Normalisation
        Applied to the grey values.
    seed : int
        Seed of positions, flips and rotations.
    brick : (int, int, int)
        Sections, rows and columns of a brick, at most.
    bricks : int
        Bricks that are mixed.
    patches_per_brick : int
        Patches drawn from a brick before it is let go.
    """

    def __init__(
        self,
        path: Path | str,
        size: int,
        normalisation: Normalisation,
        seed: int,
        *,
        brick: tuple[int, int, int] = (32, 384, 384),
        bricks: int = 16,
        patches_per_brick: int = 256,
    ) -> None:
        self.volume = open_volume(path)
        self.size = size
        self.normalisation = normalisation
        self.seed = seed
        shape = self.volume.shape
        if size > min(shape[1:]):
            raise DdgmError(
                f"training: patch size {size} does not fit in sections of "
                f"{shape[1]} × {shape[2]} voxels"
            )
        # Along each axis: how many places a patch can begin at, and how many of them a brick holds.
        extents = (1, size, size)
        self._places = tuple(full - own + 1 for full, own in zip(shape, extents, strict=True))
        self._span = tuple(max(1, side - own + 1) for side, own in zip(brick, extents, strict=True))
        self.bricks = bricks
        self.patches_per_brick = patches_per_brick
        self._read = lru_cache(maxsize=bricks)(self._read_brick)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes that are not forked get a copy, which begins with no bricks in memory.
        return {name: value for name, value in self.__dict__.items() if name != "_read"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read = lru_cache(maxsize=self.bricks)(self._read_brick)

    def _read_brick(self, starts: tuple[int, ...], stops: tuple[int, ...]) -> npt.NDArray[Any]:
        return np.asarray(self.volume.array[tuple(map(slice, starts, stops))])

    def _draw_brick(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Read a random cell of a grid with a random offset.

        The cell is that of a random place, so that cells cut off by the border of the volume are
        drawn less often: every place of a patch is equally likely.
        """
        starts, stops = [], []
        for places, span, own in zip(
            self._places, self._span, (1, self.size, self.size), strict=True
        ):
            place, offset = int(rng.integers(places)), int(rng.integers(span))
            first = place - (place - offset) % span
            starts.append(max(0, first))
            stops.append(min(places, first + span) + own - 1)
        return self._read(tuple(starts), tuple(stops))

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = np.random.default_rng([self.seed, index])
        group = index // (self.bricks * self.patches_per_brick)
        which = int(rng.integers(self.bricks))
        brick = self._draw_brick(np.random.default_rng([self.seed, group, which, 1]))
        section = rng.integers(brick.shape[0])
        row = rng.integers(brick.shape[1] - self.size + 1)
        column = rng.integers(brick.shape[2] - self.size + 1)
        patch = brick[section, row : row + self.size, column : column + self.size]
        # The eight symmetries of the square: fly neuropil has no preferred direction at this scale.
        patch = np.rot90(patch, int(rng.integers(4)))
        if rng.integers(2):
            patch = patch.T
        values = (patch.astype(np.float32) - self.normalisation.mean) / self.normalisation.std
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


class StepSampler(Sampler[list[int]]):
    """Endless batches of consecutive indices, from a given step on.

    Each of `replicas` processes takes its own part of every batch, so that the data of a step do
    not depend on how many processes share them.

    Parameters
    ----------
    batch : int
        Patches a step, over all processes; a multiple of `replicas`.
    step : int
        Step to begin with.
    rank, replicas : int
        This process, and how many there are.
    """

    def __init__(self, batch: int, step: int = 0, rank: int = 0, replicas: int = 1) -> None:
        if batch % replicas:
            raise DdgmError(
                f"training: batch {batch} cannot be divided among {replicas} processes evenly"
            )
        self.share = batch // replicas
        self.batch, self.step, self.rank = batch, step, rank

    def __iter__(self) -> Iterator[list[int]]:
        step = self.step
        while True:
            first = step * self.batch + self.rank * self.share
            yield list(range(first, first + self.share))
            step += 1
