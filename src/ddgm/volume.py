"""Image volumes on disk: Zarr v3 arrays that know where in the source they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from ddgm.errors import DdgmError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Triple = tuple[int, int, int]

# A fast level: electron micrographs are noise to a byte compressor, so effort buys nothing.
_ZSTD_LEVEL = 1


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels at one mip.

    Attributes
    ----------
    start, stop
        First voxel, and one past the last voxel, in the order x, y, z.

    Raises
    ------
    DdgmError
        If a corner does not have three whole numbers, or the box is empty along an axis.
    """

    start: Triple
    stop: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", triple_of_ints("start", self.start))
        object.__setattr__(self, "stop", triple_of_ints("stop", self.stop))
        if not all(a < b for a, b in zip(self.start, self.stop, strict=True)):
            raise DdgmError(
                f"box {self} is empty: every coordinate of start (x, y, z) must be smaller than "
                "that of stop"
            )

    @property
    def shape(self) -> Triple:
        """Extent in voxels, in the order x, y, z."""
        x, y, z = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return x, y, z

    def contains(self, other: Box) -> bool:
        """Tell whether every voxel of `other` lies in this box."""
        return all(
            a <= c and d <= b
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def intersects(self, other: Box) -> bool:
        """Tell whether the two boxes have a voxel in common."""
        return all(
            a < d and c < b
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.start}–{self.stop}"


@dataclass(frozen=True)
class Volume:
    """An image volume; its planes ``array[i]`` are the sections normal to the tilt axis.

    Attributes
    ----------
    array
        Zarr array of shape (tilt axis, depth, detector axis).
    axes
        Which source axes those are, a permutation of "xyz", for example "yzx".
    voxel_size
        Edge lengths of a voxel in nanometres, in array order.
    origin
        Position of ``array[0, 0, 0]`` in voxels of the source's mip, in array order.
    """

    array: zarr.Array[Any]
    axes: str
    voxel_size: tuple[float, float, float]
    origin: Triple

    @property
    def shape(self) -> Triple:
        """Extent in voxels, in array order."""
        a, b, c = self.array.shape
        return a, b, c

    @property
    def pixel_size(self) -> float:
        """Pixel size of the sections in nanometres.

        Raises
        ------
        DdgmError
            If pixels are not square: tilts would not be what they are said to be.
        """
        return square_pixel(self.voxel_size[1], self.voxel_size[2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""
        return np.dtype(self.array.dtype)


def square_pixel(depth: float, detector: float) -> float:
    """Return the size that a pixel has in depth and along the detector, in nanometres.

    Raises
    ------
    DdgmError
        If the two differ by more than a per cent.
    """
    if abs(depth - detector) > 0.01 * detector:
        raise DdgmError(
            f"pixels are {depth:g} nm deep and {detector:g} nm wide: tomography needs square ones; "
            "take two axes of equal voxel size as depth and detector axis, or resample"
        )
    return depth


def check_axes(axes: str) -> None:
    """Raise a `DdgmError` unless `axes` is a permutation of "xyz"."""
    if sorted(axes) != ["x", "y", "z"]:
        raise DdgmError(
            f'axes "{axes}" is not an order of the source axes: it must be a permutation of "xyz" '
            'for (tilt axis, depth, detector axis), such as "yzx"'
        )


def create_volume(
    path: str | Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    axes: str,
    voxel_size: Sequence[float],
    origin: Sequence[int],
    chunks: Sequence[int] = (64, 64, 64),
    attributes: Mapping[str, Any] | None = None,
) -> Volume:
    """Create a Zarr v3 array, filled with zeros, for an image volume.

    Parameters
    ----------
    path
        Folder of the new array; its parents are made where they are missing.
    shape
        Three extents in voxels: (tilt axis, depth, detector axis).
    dtype
        Type of one voxel.
    axes
        Which source axes those are, a permutation of "xyz".
    voxel_size
        Edge lengths of a voxel in nanometres, in array order.
    origin
        Position of the first voxel in voxels of the source's mip, in array order.
    chunks
        Shape of a Zarr chunk in voxels, clipped to `shape`.
    attributes
        Further attributes to store; whatever JSON can hold.

    Returns
    -------
    Volume
        The new volume, open for writing.

    Raises
    ------
    DdgmError
        If `axes` is not a permutation of "xyz", an extent is not positive, or `path` already holds
        an array.
    """
    check_axes(axes)
    extents = triple_of_ints("shape", shape)
    if min(extents) < 1:
        raise DdgmError(f"volume {path} would have the shape {extents}: every extent must be >= 1")
    size = triple_of_floats("voxel_size", voxel_size)
    first = triple_of_ints("origin", origin)
    try:
        array = zarr.create_array(
            store=str(path),
            shape=extents,
            dtype=np.dtype(dtype),
            chunks=tuple(min(c, n) for c, n in zip(chunks, extents, strict=True)),
            compressors=ZstdCodec(level=_ZSTD_LEVEL),
            fill_value=0,
            zarr_format=3,
            dimension_names=tuple(axes),
            attributes={
                **(attributes or {}),
                "voxel_size_nm": list(size),
                "origin_voxels": list(first),
            },
        )
    except zarr.errors.ContainsArrayError as error:
        raise DdgmError(f"{path} already holds a Zarr array: remove it first") from error
    return Volume(array=array, axes=axes, voxel_size=size, origin=first)


def open_volume(path: str | Path, *, mode: Literal["r", "r+"] = "r") -> Volume:
    """Open a volume that `create_volume` made.

    Parameters
    ----------
    path
        Folder of the Zarr array.
    mode
        "r" for reading, "r+" to write to it as well.

    Returns
    -------
    Volume
        The volume.

    Raises
    ------
    DdgmError
        If there is nothing at `path`, if it is not a three-dimensional Zarr v3 array, or if its
        dimension names or the attributes ``voxel_size_nm`` and ``origin_voxels`` are missing or
        malformed.
    """
    array = open_array(path, "volume", mode)
    if array.ndim != 3:
        raise DdgmError(f"{path} has {array.ndim} dimensions: a volume has 3")
    names = getattr(array.metadata, "dimension_names", None) or ()
    axes = "".join(name or "" for name in names)
    try:
        check_axes(axes)
        size = triple_of_floats("voxel_size_nm", array.attrs["voxel_size_nm"])
        origin = triple_of_ints("origin_voxels", array.attrs["origin_voxels"])
    except KeyError as error:
        raise DdgmError(
            f"{path} has no attribute {error}: a volume has voxel_size_nm and origin_voxels, "
            "three numbers each"
        ) from error
    except DdgmError as error:
        raise DdgmError(f"{path} is not a ddgm volume: {error}") from error
    return Volume(array=array, axes=axes, voxel_size=size, origin=origin)


def open_array(path: Path | str, what: str, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open the Zarr v3 array of a volume or tilt series; raises DdgmError if there is none."""
    if not Path(path).exists():
        raise DdgmError(f"there is no {what} at {path}: a Zarr v3 array is needed there")
    try:
        return zarr.open_array(str(path), mode=mode, zarr_format=3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DdgmError(
            f"{path} is not a Zarr v3 array ({reason}): give the folder that holds zarr.json"
        ) from error


def identity(array: zarr.Array[Any]) -> str:
    """Return a digest of an array's description and of when it was written."""
    file = cast(LocalStore, array.store_path.store).root / array.path / "zarr.json"
    digest = hashlib.sha256(file.read_bytes())
    digest.update(str(file.stat().st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def triple_of_ints(name: str, values: Any) -> Triple:
    """Return three whole numbers, as of a setting or attribute; raises DdgmError for others."""
    try:
        a, b, c = values
        whole = int(a), int(b), int(c)
    except (TypeError, ValueError):
        whole = None
    if whole is None or any(v != w for v, w in zip(values, whole, strict=True)):
        raise DdgmError(f"{name} is {values!r}: three whole numbers are needed")
    return whole


def triple_of_floats(name: str, values: Any) -> tuple[float, float, float]:
    """Return three numbers, as of a setting or attribute; raises DdgmError for others."""
    try:
        a, b, c = values
        return float(a), float(b), float(c)
    except (TypeError, ValueError):
        raise DdgmError(f"{name} is {values!r}: three numbers are needed") from None
