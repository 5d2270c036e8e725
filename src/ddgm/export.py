"""Volumes that other programs open: OME-Zarr and Neuroglancer precomputed.

Both formats keep a pyramid of resolutions. A level is made from the one before it, which is read
back from what was just written, block by block, so that memory is bounded whatever the volume's
size.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from cloudvolume import CloudVolume
from numpy.typing import NDArray
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.image import Image
from pydantic_zarr.v3 import ArraySpec
from tqdm import tqdm
from zarr.codecs import ZstdCodec

from ddgm.archive import sync
from ddgm.errors import DdgmError, SettingError
from ddgm.storage import one_line
from ddgm.volume import Triple, Volume

Region = tuple[slice, slice, slice]

# What both formats, and cloud-volume, have in common.
_DTYPES = ("uint8", "uint16", "uint32", "float32")
_CHUNK = 64
# Two chunks along each axis: where those of two levels do not lie on one another, 5³ are read for
# 4³; with blocks of one it would be 3³ for 2³.
_POOLED_BLOCK = 128
# Of whole chunks of the source, so that each is read once.
_BLOCK_BYTES = 128 * 2**20
_COARSEST = 64
# As for `ddgm.volume`: noise to a byte compressor, so effort buys nothing.
_ZSTD_LEVEL = 1


def export_ome_zarr(
    volume: Volume,
    path: Path | str,
    *,
    name: str = "",
    levels: int | None = None,
    workers: int = 4,
    progress: bool = False,
) -> None:
    """Write a volume as an OME-Zarr 0.5 image, with lower resolutions.

    Each level has half the resolution of the one before it, by the mean of 2 × 2 × 2 voxels counted
    from the volume's first one; where voxels are left over at the end, it is the mean of those. An
    axis of one voxel stays as it is. Means of integers are rounded to the nearest, halves to even.

    Parameters
    ----------
    volume : Volume
        uint8, uint16, uint32 or float32.
    path : path-like
        Folder of the image; it appears when it is complete. Beside it, in ``<path>.partial``, it is
        made; what an earlier run left there is removed.
    name : str
        Of the image; by default that of its folder, without ``.ome.zarr``.
    levels : int, optional
        Resolutions, the full one included; by default until no axis has more than 64 voxels.
    workers : int
        Threads; each needs up to about 0.4 GB, whatever the volume's size.
    progress : bool
        Show a progress bar.

    Raises
    ------
    DdgmError
        If the settings are not allowed, `path` exists, the volume cannot be read, or the image
        cannot be written.
    """
    dtype = _check(volume, workers)
    order = "zyx"
    axes = [volume.axes.index(axis) for axis in order]
    size = [volume.voxel_size[axis] for axis in axes]
    origin = [volume.origin[axis] for axis in axes]
    plan = _plan(_triple(volume.shape[axis] for axis in axes), (0, 0, 0), levels)
    with _appearing(path) as partial:
        group = zarr.create_group(store=str(partial), zarr_format=3)
        arrays = [
            group.create_array(
                str(number),
                shape=level.shape,
                dtype=dtype,
                chunks=_triple(min(_CHUNK, n) for n in level.shape),
                compressors=ZstdCodec(level=_ZSTD_LEVEL),
                fill_value=0,
                dimension_names=tuple(order),
            )
            for number, level in enumerate(plan)
        ]
        image = Image.new(
            array_specs=[ArraySpec.from_zarr(array) for array in arrays],
            paths=[array.basename for array in arrays],
            axes=[Axis(name=axis, type="space", unit="nanometer") for axis in order],
            scales=[[s * k for s, k in zip(size, level.scale, strict=True)] for level in plan],
            # Of the centre of a level's first voxel, which is that of the voxels it is a mean of.
            translations=[
                [(o + (k - 1) / 2) * s for o, k, s in zip(origin, level.scale, size, strict=True)]
                for level in plan
            ],
            name=name or Path(path).name.removesuffix(".zarr").removesuffix(".ome"),
            multiscale_type="mean",
            metadata={
                "description": "mean of 2 × 2 × 2 voxels of the level before; axes of one voxel "
                "are left as they are",
                "method": "ddgm.export.export_ome_zarr",
            },
        )
        group.attrs["ome"] = image.ome_attributes.model_dump(mode="json", exclude_none=True)
        _fill(volume, order, plan, _ZarrStore(arrays), workers, "OME-Zarr" if progress else None)


def export_precomputed(
    volume: Volume,
    path: Path | str,
    *,
    levels: int | None = None,
    workers: int = 1,
    progress: bool = False,
) -> None:
    """Write a volume in the precomputed format of Neuroglancer, with lower resolutions.

    Voxels keep the coordinates of the source: the first one is at the volume's origin. Each level
    has half the resolution of the one before it, by the mean of 2 × 2 × 2 voxels; because the
    format has whole voxels as offsets, these begin at even coordinates, and at either end of an
    axis the mean may be one of fewer voxels. Otherwise as `export_ome_zarr`. Chunks are raw,
    compressed by gzip.

    Parameters
    ----------
    volume : Volume
        uint8, uint16, uint32 or float32.
    path : path-like
        Folder of the layer; it appears when it is complete. Beside it, in ``<path>.partial``, it is
        made; what an earlier run left there is removed.
    levels : int, optional
        Resolutions, the full one included; by default until no axis has more than 64 voxels.
    workers : int
        Threads; each needs up to about 0.4 GB, whatever the volume's size.
    progress : bool
        Show a progress bar.

    Raises
    ------
    DdgmError
        If the settings are not allowed, `path` exists, the volume cannot be read, or the layer
        cannot be written.
    """
    dtype = _check(volume, workers)
    order = "xyz"
    axes = [volume.axes.index(axis) for axis in order]
    size = [volume.voxel_size[axis] for axis in axes]
    plan = _plan(
        _triple(volume.shape[axis] for axis in axes),
        _triple(volume.origin[axis] for axis in axes),
        levels,
    )
    infos = [
        CloudVolume.create_new_info(
            num_channels=1,
            layer_type="image",
            data_type=dtype.name,
            encoding="raw",
            resolution=[s * k for s, k in zip(size, level.scale, strict=True)],
            voxel_offset=level.start,
            volume_size=level.shape,
            chunk_size=(_CHUNK, _CHUNK, _CHUNK),
        )
        for level in plan
    ]
    info = {**infos[0], "scales": [each["scales"][0] for each in infos]}
    with _appearing(path) as partial:
        store = _PrecomputedStore(f"file://{partial}", info)
        store.layer().commit_info()
        _fill(volume, order, plan, store, workers, "precomputed" if progress else None)


@dataclass(frozen=True)
class _Level:
    """One resolution of a pyramid.

    Attributes
    ----------
    start, shape : tuple of int
        First voxel and extent, in voxels of this level.
    scale : tuple of int
        Edge of a voxel in voxels of the volume.
    """

    start: Triple
    shape: Triple
    scale: Triple

    @property
    def stop(self) -> Triple:
        """One past the last voxel."""
        return _triple(a + n for a, n in zip(self.start, self.shape, strict=True))

    def halved(self) -> _Level:
        """Return the level whose voxels are twice as large, but for axes of one voxel."""
        factors = [2 if n > 1 else 1 for n in self.shape]
        start = [a // k for a, k in zip(self.start, factors, strict=True)]
        stop = [-(-b // k) for b, k in zip(self.stop, factors, strict=True)]
        return _Level(
            start=_triple(start),
            shape=_triple(b - a for a, b in zip(start, stop, strict=True)),
            scale=_triple(s * k for s, k in zip(self.scale, factors, strict=True)),
        )

    def blocks(self, extents: Triple) -> Iterator[Region]:
        """Divide the level into blocks, counted from its first voxel."""
        yield from itertools.product(
            *(
                [slice(at, min(at + n, b)) for at in range(a, b, n)]
                for a, b, n in zip(self.start, self.stop, extents, strict=True)
            )
        )

    def below(self, finer: _Level, region: Region) -> Region:
        """Return the voxels of a finer level that lie in a region of this one."""
        a, b, c = (
            slice(max(each.start * k // j, first), min(each.stop * k // j, stop))
            for each, k, j, first, stop in zip(
                region, self.scale, finer.scale, finer.start, finer.stop, strict=True
            )
        )
        return a, b, c


class _Store(Protocol):
    """Where the levels of a pyramid are; regions are in voxels of their level."""

    def read(self, level: int, region: Region) -> NDArray[Any]:
        """Return the voxels of a region."""

    def write(self, level: int, region: Region, image: NDArray[Any]) -> None:
        """Set the voxels of a region, whole chunks of it."""


@dataclass(frozen=True)
class _ZarrStore:
    """Levels as Zarr arrays."""

    arrays: Sequence[zarr.Array[Any]]

    def read(self, level: int, region: Region) -> NDArray[Any]:
        return np.asarray(self.arrays[level][region])

    def write(self, level: int, region: Region, image: NDArray[Any]) -> None:
        self.arrays[level][region] = image


class _PrecomputedStore:
    """Levels as scales of a precomputed layer."""

    def __init__(self, address: str, info: dict[str, Any]) -> None:
        self._address = address
        self._info = info
        self._local = threading.local()

    def layer(self) -> Any:
        """Return this thread's view of the layer: one has a current level, which is its state."""
        if not hasattr(self._local, "layer"):
            self._local.layer = CloudVolume(
                self._address, info=self._info, compress="gzip", cache=False, progress=False
            )
        return self._local.layer

    def read(self, level: int, region: Region) -> NDArray[Any]:
        layer = self.layer()
        layer.mip = level
        return np.asarray(layer[region])[..., 0]

    def write(self, level: int, region: Region, image: NDArray[Any]) -> None:
        layer = self.layer()
        layer.mip = level
        layer[region] = image


def _check(volume: Volume, workers: int) -> np.dtype[Any]:
    if workers < 1:
        raise SettingError("workers", workers, "must be at least 1")
    if volume.dtype.name not in _DTYPES:
        raise DdgmError(
            f"volume {volume.array.store_path} has voxels of type {volume.dtype}: only "
            f"{', '.join(_DTYPES)} can be exported; convert it first"
        )
    return volume.dtype


def _plan(shape: Triple, start: Triple, levels: int | None) -> list[_Level]:
    """Return the levels of a pyramid, the finest first."""
    if levels is not None and levels < 1:
        raise SettingError("levels", levels, "of resolution must be at least 1")
    plan = [_Level(start, shape, (1, 1, 1))]
    while len(plan) < levels if levels is not None else max(plan[-1].shape) > _COARSEST:
        if max(plan[-1].shape) == 1:
            raise SettingError(
                "levels", levels, f"is too many: {len(plan)} already lead to a single voxel"
            )
        plan.append(plan[-1].halved())
    return plan


@contextmanager
def _appearing(path: Path | str) -> Iterator[Path]:
    """Lend a new folder beside `path`; without an error, it then takes its place at once."""
    target = Path(path).absolute()
    if target.exists():
        raise DdgmError(f"{target} exists already; remove it, or choose another name")
    partial = target.with_name(target.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        for written in (*partial.rglob("*"), partial):
            sync(written)
        os.replace(partial, target)
        sync(target.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DdgmError(
            f"{target} could not be written ({error.strerror or one_line(error)}); "
            f"{'free some space' if full else 'mend that'} and run again: it begins anew"
        ) from error
    finally:
        # Nothing goes on from here, and on a full disk the space is needed.
        shutil.rmtree(partial, ignore_errors=True)


def _fill(
    volume: Volume,
    order: str,
    plan: Sequence[_Level],
    store: _Store,
    workers: int,
    progress: str | None,
) -> None:
    """Write all levels, the finest from the volume and each other one from the one before it.

    Parameters
    ----------
    volume : Volume
        What to write.
    order : str
        Order of the store's axes, a permutation of "xyz".
    plan : sequence of _Level
        The levels, in that order of axes.
    store : _Store
        Where to.
    workers : int
        Threads.
    progress : str or None
        What to call the progress bar; none if None.
    """
    axes = [volume.axes.index(axis) for axis in order]

    def copy(number: int, region: Region) -> int:
        level = plan[number]
        if number == 0:
            image = _read(volume, axes, region, level.start)
        else:
            finer = plan[number - 1]
            box = level.below(finer, region)
            factors = _triple(k // j for k, j in zip(level.scale, finer.scale, strict=True))
            first = _triple(each.start for each in box)
            image = _pool(store.read(number - 1, box), first, factors)
        store.write(number, region, image)
        return image.size

    total = sum(math.prod(level.shape) for level in plan)
    with (
        tqdm(
            total=total, unit="voxel", unit_scale=True, desc=progress, disable=progress is None
        ) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for number, level in enumerate(plan):
            extents = (
                (_POOLED_BLOCK, _POOLED_BLOCK, _POOLED_BLOCK)
                if number
                else _source_block(volume, axes)
            )
            blocks = level.blocks(extents)
            # A round at a time: the blocks of a large volume would fill memory as tasks.
            while some := list(itertools.islice(blocks, 32 * workers)):
                for size in pool.map(copy, itertools.repeat(number), some):
                    bar.update(size)


def _source_block(volume: Volume, axes: Sequence[int]) -> Triple:
    """Return how much to copy at a time: whole chunks of the source, if they are not too large."""
    extents = [-(-volume.array.chunks[axis] // _CHUNK) * _CHUNK for axis in axes]
    while math.prod(extents) * volume.dtype.itemsize > _BLOCK_BYTES and max(extents) > _CHUNK:
        longest = extents.index(max(extents))
        extents[longest] = -(-extents[longest] // (2 * _CHUNK)) * _CHUNK
    return _triple(extents)


def _read(volume: Volume, axes: Sequence[int], region: Region, start: Triple) -> NDArray[Any]:
    """Read a region of the volume, with its axes in another order."""
    box = [slice(0, 0)] * 3
    for axis, each, first in zip(axes, region, start, strict=True):
        box[axis] = slice(each.start - first, each.stop - first)
    try:
        image = np.asarray(volume.array[tuple(box)])
    # A damaged chunk is whatever its codec makes of it.
    except (OSError, RuntimeError, ValueError) as error:
        place = ", ".join(f"{each.start}:{each.stop}" for each in box)
        raise DdgmError(
            f"volume {volume.array.store_path}: voxels [{place}] could not be read "
            f"({one_line(error)}); check the disk, or make the volume again"
        ) from error
    return image.transpose(axes)


def _pool(image: NDArray[Any], first: Triple, factors: Triple) -> NDArray[Any]:
    """Average voxels pairwise along the axes whose factor is 2.

    Parameters
    ----------
    image : numpy.ndarray
        Three axes.
    first : tuple of int
        Coordinates of its first voxel; pairs begin at even ones. A voxel without its partner, at
        either end, stands for itself.
    factors : tuple of int
        1 or 2 for each axis.

    Returns
    -------
    numpy.ndarray
        Of the same type; integers rounded to the nearest, halves to even.
    """
    # Sums of eight, exact in this type unless image is float itself.
    dtype = np.result_type(image.dtype, np.float32)
    total = image
    for axis, (at, factor) in enumerate(zip(first, factors, strict=True)):
        if factor == 1:
            continue
        missing = [(0, 0)] * 3
        missing[axis] = (at % 2, (at + image.shape[axis]) % 2)
        if any(missing[axis]):
            total = np.pad(total, missing, mode="edge")
        pairs = np.moveaxis(total, axis, 0)
        total = np.moveaxis(np.add(pairs[0::2], pairs[1::2], dtype=dtype), 0, axis)
    mean: NDArray[Any] = total / dtype.type(math.prod(factors))
    if image.dtype.kind != "f":
        mean = np.rint(mean)
    return mean.astype(image.dtype, copy=False)


def _triple(values: Any) -> Triple:
    a, b, c = (int(value) for value in values)
    return a, b, c
