"""Tilt series of a whole slab on disk: Zarr arrays that know their geometry."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.volume import (
    Triple,
    check_axes,
    identity,
    open_array,
    square_pixel,
    triple_of_floats,
    triple_of_ints,
)

DIMENSIONS = ("y", "view", "detector")
_ZSTD_LEVEL = 1  # noise does not compress; the exponents of floats do, quickly


@dataclass(frozen=True)
class TiltSeries:
    """Tilt views of a slab; its planes ``array[y]`` are sinograms, each a problem of its own.

    Attributes
    ----------
    path : Path
        Folder of the Zarr array.
    array : zarr.Array
        (y, view, detector) float, line integrals of grey values, in grey values × pixels; y runs
        along the tilt axis. What was never written is not a number.
    geometry : TiltGeometry
        Of the image plane of each y: depth × lateral pixels, tilts and detector.
    voxel_size : tuple of float
        Edge lengths of a voxel of the slab in nanometres: tilt axis, depth, lateral. The last two
        are equal, and the pitch of the detector.
    noise_std : float or None
        Standard deviation of the noise, in grey values × pixels; None if it is not known.
    axes : str
        What the slab's axes are in the volume it comes from, a permutation of "xyz".
    origin : tuple of int
        Where its first voxel lies there, in voxels, in array order.
    """

    path: Path
    array: zarr.Array[Any]
    geometry: TiltGeometry
    voxel_size: tuple[float, float, float]
    noise_std: float | None
    axes: str
    origin: Triple

    @property
    def identity(self) -> str:
        """A digest of its description, which a series that is made anew does not have again."""
        return identity(self.array)

    @property
    def sections(self) -> int:
        """Number of image planes along the tilt axis."""
        return int(self.array.shape[0])

    @property
    def pixel_size(self) -> float:
        """Pixel size of the sections in nanometres."""
        return self.voxel_size[2]

    @property
    def volume_shape(self) -> Triple:
        """Shape of the slab in voxels: tilt axis, depth, lateral."""
        return self.sections, self.geometry.height, self.geometry.width

    def read(self, first: int, stop: int) -> NDArray[np.float32]:
        """Read the sinograms of some sections, (stop − first, views, detector) float32.

        Raises
        ------
        DdgmError
            If a value is not finite, or a view was not written or holds nothing but zeros; the
            message names section and view.
        """
        block = np.asarray(self.array[first:stop], dtype=np.float32)
        finite = np.isfinite(block)
        for broken, problem in (
            (np.isnan(block).all(axis=2), "is missing: nothing was written there"),
            (~finite.all(axis=2), "holds values that are not finite"),
            ((block == 0).all(axis=2), "is missing: it holds nothing but zeros"),
        ):
            if broken.any():
                section, view = np.argwhere(broken)[0]
                raise DdgmError(
                    f"tilt series {self.path}: view {view} ({self.geometry.angles[view]:g} "
                    f"degrees) of section {first + section} {problem}; repair the view, or leave "
                    "it and its angle out of the series"
                )
        return block


def create_tilt_series(
    path: Path | str,
    sections: int,
    geometry: TiltGeometry,
    *,
    voxel_size: Sequence[float],
    noise_std: float | None = None,
    axes: str = "yzx",
    origin: Sequence[int] = (0, 0, 0),
    chunk: int = 8,
) -> TiltSeries:
    """Create the Zarr v3 array of a tilt series, to be filled section by section.

    Parameters
    ----------
    path : path-like
        Folder of the new array.
    sections : int
        Image planes along the tilt axis.
    geometry : TiltGeometry
        Of each of them.
    voxel_size : sequence of float
        Nanometres along tilt axis, depth and lateral axis.
    noise_std : float, optional
        Standard deviation of the noise, in grey values × pixels.
    axes : str
        What the slab's axes are in the volume it comes from.
    origin : sequence of int
        Where its first voxel lies there, in array order.
    chunk : int
        Sections of a chunk; write whole ones.

    Raises
    ------
    DdgmError
        If something is there already, or an argument is not allowed.
    """
    path = Path(path)
    if sections < 1:
        raise DdgmError(f"tilt series {path}: {sections} sections; at least 1 is needed")
    try:
        array = zarr.create_array(
            store=str(path),
            shape=(sections, *geometry.sinogram_shape),
            chunks=(min(chunk, sections), geometry.views, min(1024, geometry.detector)),
            dtype=np.float32,
            fill_value=np.nan,
            compressors=ZstdCodec(level=_ZSTD_LEVEL),
            zarr_format=3,
            dimension_names=DIMENSIONS,
            attributes={
                "geometry": geometry.as_dict(),
                "voxel_size_nm": [float(each) for each in voxel_size],
                "noise_std": noise_std,
                "axes": axes,
                "origin_voxels": [int(each) for each in origin],
                "id": uuid.uuid4().hex,
            },
        )
    except zarr.errors.ContainsArrayError as error:
        raise DdgmError(f"{path} already holds a Zarr array: remove it first") from error
    return _described(path, array)


def open_tilt_series(path: Path | str, *, mode: Literal["r", "r+"] = "r") -> TiltSeries:
    """Open a tilt series.

    Parameters
    ----------
    path : path-like
        A Zarr v3 array (y, view, detector) of floats, with the attributes ``geometry`` (height,
        width, angles in degrees, detector) and ``voxel_size_nm`` (tilt axis, depth, lateral);
        ``noise_std``, ``axes`` and ``origin_voxels`` may be left out.
    mode : str
        "r", or "r+" to write to it.

    Raises
    ------
    DdgmError
        If there is none, its shape does not fit its geometry, or an attribute is missing or wrong.
    """
    return _described(Path(path), open_array(path, "tilt series", mode))


def _described(path: Path, array: zarr.Array[Any]) -> TiltSeries:
    where = f"tilt series {path}"
    attributes: dict[str, Any] = dict(array.attrs)
    for name in ("geometry", "voxel_size_nm"):
        if name not in attributes:
            raise DdgmError(f"{where}: it has no attribute {name}")
    try:
        geometry = TiltGeometry.from_dict(attributes["geometry"])
    except (DdgmError, TypeError, ValueError) as error:
        raise DdgmError(f"{where}: its attribute geometry is wrong: {error}") from error
    if array.ndim != 3 or array.shape[1:] != geometry.sinogram_shape:
        raise DdgmError(
            f"{where}: its shape {array.shape} does not fit its geometry, which has (views, "
            f"detector) = {geometry.sinogram_shape}; the array is (y, view, detector)"
        )
    if np.dtype(array.dtype).kind != "f":
        raise DdgmError(f"{where}: its values are {array.dtype}; line integrals are floats")
    axes = str(attributes.get("axes", "yzx"))
    noise_std = attributes.get("noise_std")
    try:
        size = triple_of_floats("voxel_size_nm", attributes["voxel_size_nm"])
        origin = triple_of_ints("origin_voxels", attributes.get("origin_voxels", (0, 0, 0)))
        check_axes(axes)
        square_pixel(size[1], size[2])
        if not all(0 < edge < math.inf for edge in size):
            raise DdgmError(f"voxel_size_nm is {list(size)}; every edge must be positive")
        if noise_std is not None and (
            not isinstance(noise_std, int | float) or not 0 <= noise_std < math.inf
        ):
            raise DdgmError(f"noise_std is {noise_std!r}; a number that is not negative is needed")
    except DdgmError as error:
        raise DdgmError(f"{where}: {error}") from error
    return TiltSeries(
        path=path,
        array=array,
        geometry=geometry,
        voxel_size=size,
        noise_std=None if noise_std is None else float(noise_std),
        axes=axes,
        origin=origin,
    )
