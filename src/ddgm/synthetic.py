"""A procedural stand-in for embedded neuropil, for demonstrations without microscope data.

The tissue is a power diagram: neurites are chains of balls along random curved paths, and each
voxel belongs to the ball of the smallest power distance. That fills space without gaps, lets one
law of radii make both giant and hair-thin processes, and gives the exact distance to the nearest
membrane. Mitochondria and endosomes are ellipsoids inside the neurites, vesicles are filtered
impulses, and a small microscope model comes last. The constants were set by comparing
histogram, correlation and power spectrum with FIB-SEM of the fly's medulla at 16 nm.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from ddgm.errors import DdgmError

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

# Lengths in nanometres.
_SMALLEST_RADIUS = 72.0
_LARGEST_RADIUS = 560.0
_MARGIN = 640.0  # neurites also start this far outside, so that the faces look like the inside
_MEMBRANE_HALF_WIDTH = 18.0
_DEEP = 640.0  # membranes farther than this are not looked for

# Grey values before the microscope.
_MEMBRANE_GREY = 74.0
_MITOCHONDRION_GREY = 79.0

_STEPS = 40  # balls per neurite
_STRIDE = 0.6  # distance between balls, in radii
_OVERFILL = 2.2  # volume of all neurites over the volume they share
_BLOCK = 4  # voxels; the voxels of a block share one list of candidate balls
_CANDIDATES = 22


@dataclass(frozen=True)
class _Neurites:
    """Balls in voxel coordinates, neurite by neurite: row ``i`` belongs to ``i // _STEPS``."""

    centre: Floats  # (n, 3)
    radius: Floats  # (n,)
    tangent: Floats  # (n, 3), unit vectors


def make_volume(shape: Sequence[int], *, seed: int, voxel_size: float = 16.0) -> NDArray[np.uint8]:
    """Make an electron-microscope-like volume of neuropil.

    The statistics are alike along the three axes. The result depends on the arguments only, not on
    the number of threads; another shape gives another tissue, not a crop of the same one.

    Parameters
    ----------
    shape : sequence of three int
        Voxels along x, y and z, each at least 1.
    seed : int
        Non-negative seed of everything random.
    voxel_size : float, default 16.0
        Edge of the cubic voxels in nm, from 8 to 32. Tissue has its size in nm; blur and noise of
        the microscope have theirs in voxels.

    Returns
    -------
    numpy.ndarray
        uint8 array of that shape, indexed ``[x, y, z]``; membranes are dark.

    Raises
    ------
    DdgmError
        If an argument is outside the ranges above.
    """
    size = _checked_shape(shape)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DdgmError(f"seed is {seed!r}; it must be an integer of at least 0")
    if not 8.0 <= voxel_size <= 32.0:
        raise DdgmError(f"voxel_size is {voxel_size!r} nm; it must be from 8 to 32 nm")

    # One stream a part: a change to one part leaves the others as they were.
    tissue, warp, greys, organelles, vesicles, microscope = (
        np.random.default_rng(s) for s in np.random.SeedSequence(int(seed)).spawn(6)
    )
    neurites = _grow_neurites(tissue, size, voxel_size)
    position = _warped_positions(warp, size, voxel_size)
    owner, depth = _cells(neurites, position, voxel_size)
    image = _cytoplasm(greys, owner, neurites)
    _add_vesicles(vesicles, image, owner, len(neurites.radius) // _STEPS, voxel_size)
    _add_organelles(organelles, image, owner, depth, position, neurites, voxel_size)
    del owner, position
    _add_membranes(greys, image, depth, voxel_size)
    return _microscope(microscope, image)


def write_precomputed(
    volume: NDArray[Any],
    path: str | os.PathLike[str],
    *,
    voxel_size: float = 16.0,
    chunk_size: Sequence[int] = (64, 64, 64),
) -> None:
    """Write a volume as a Neuroglancer precomputed image (raw encoding, gzip, one scale).

    The folder appears whole or not at all: it is written beside ``path`` and then renamed.

    Parameters
    ----------
    volume : numpy.ndarray
        uint8 array of shape (x, y, z).
    path : path-like
        Folder to create; it must not exist, its parent is made if need be. Read it as
        ``precomputed://file://<absolute path>``.
    voxel_size : float, default 16.0
        Edge of the cubic voxels in nm, a whole number or not, above 0.
    chunk_size : sequence of three int, default (64, 64, 64)
        Voxels of a stored chunk along x, y and z, each at least 1.

    Raises
    ------
    DdgmError
        If the volume is not a three-dimensional uint8 array, if a size is out of range, or if
        ``path`` already exists.
    """
    if volume.dtype != np.uint8 or volume.ndim != 3 or volume.size == 0:
        raise DdgmError(
            f"volume is {volume.dtype} of shape {volume.shape}; "
            "it must be uint8 of shape (x, y, z) with at least one voxel"
        )
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise DdgmError(f"voxel_size is {voxel_size!r} nm; it must be above 0 nm")
    chunk = _checked_shape(chunk_size, "chunk_size")
    target = Path(path).absolute()
    if target.exists():
        raise DdgmError(f"{target} already exists; remove it or choose another folder")

    from cloudvolume import CloudVolume

    # The info format has integers where it can, so that 16.0 is stored as every other tool does.
    edge = int(voxel_size) if float(voxel_size).is_integer() else float(voxel_size)
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="image",
        data_type="uint8",
        encoding="raw",
        resolution=[edge] * 3,
        voxel_offset=[0, 0, 0],
        chunk_size=list(chunk),
        volume_size=list(volume.shape),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        whole = scratch / "volume"  # mkdtemp's own folder is private to the user
        layer = CloudVolume(
            f"precomputed://file://{whole}",
            info=info,
            compress="gzip",
            cache=False,
            progress=False,
            bounded=True,
            parallel=1,
        )
        layer.commit_info()
        layer[:, :, :] = volume[..., np.newaxis]
        whole.rename(target)
    finally:
        shutil.rmtree(scratch)


def _checked_shape(shape: Sequence[int], name: str = "shape") -> tuple[int, int, int]:
    values = tuple(shape)
    whole = all(isinstance(n, (int, np.integer)) and n >= 1 for n in values)
    if len(values) != 3 or not whole:
        raise DdgmError(f"{name} is {shape!r}; it must be three integers (x, y, z) of at least 1")
    return int(values[0]), int(values[1]), int(values[2])


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], scale: float
) -> NDArray[np.float32]:
    """Make isotropic Gaussian noise, unit variance, correlated over about ``scale`` voxels.

    It is made on a grid of half that spacing and interpolated, which costs the same at any scale.
    """
    spacing = max(scale / 2, 1.0)
    coarse = tuple(int(n / spacing) + 3 for n in shape)
    noise = rng.standard_normal(coarse, dtype=np.float32)
    sigma = scale / spacing / 1.5
    noise = gaussian_filter(noise, sigma, mode="wrap")
    noise *= (2 * np.sqrt(np.pi) * sigma) ** 1.5  # gain of a Gaussian on white noise
    if spacing == 1:
        return noise[tuple(slice(n) for n in shape)]
    for axis, n in enumerate(shape):
        at = np.arange(n, dtype=np.float32) / np.float32(spacing)
        low = at.astype(np.intp)
        weight = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        below = noise.take(low, axis)
        noise = noise.take(low + 1, axis)
        noise -= below
        noise *= weight
        noise += below
    return noise


def _grow_neurites(
    rng: np.random.Generator, shape: tuple[int, int, int], voxel_size: float
) -> _Neurites:
    """Grow neurites of all calibres, each octave of radius with the same share of the volume."""
    low, high, margin = (v / voxel_size for v in (_SMALLEST_RADIUS, _LARGEST_RADIUS, _MARGIN))
    box = np.asarray(shape) + 2 * margin
    # A neurite's volume goes as r³, so equal shares mean a density of radii going as r⁻⁴.
    mean_volume = np.pi * _STEPS * _STRIDE * 3 * np.log(high / low) / (low**-3 - high**-3)
    count = int(np.ceil(_OVERFILL * box.prod() / mean_volume))
    base = (low**-3 - rng.random(count) * (low**-3 - high**-3)) ** (-1 / 3)

    heading = rng.standard_normal((count, 3))
    turns = np.cumsum(rng.standard_normal((_STEPS, count, 3)), axis=0)
    headings = heading / np.linalg.norm(heading, axis=1, keepdims=True) + 0.16 * turns
    headings /= np.linalg.norm(headings, axis=2, keepdims=True)
    path = np.cumsum(headings * (_STRIDE * base)[:, None], axis=0)
    # The box holds the middle of a neurite, not its start, so that its ends stick out either way.
    path += rng.random((count, 3)) * box - margin - path[_STEPS // 2]

    # Varicosities: calibre swells and narrows along the neurite.
    swelling = gaussian_filter(rng.standard_normal((_STEPS, count)), (2.5, 0), mode="nearest")
    radius = np.clip(base * np.exp(0.75 * swelling), low, high)

    by_neurite = (1, 0, 2)
    return _Neurites(
        centre=np.ascontiguousarray(path.transpose(by_neurite).reshape(-1, 3), np.float32),
        radius=np.ascontiguousarray(radius.T.reshape(-1), np.float32),
        tangent=np.ascontiguousarray(headings.transpose(by_neurite).reshape(-1, 3), np.float32),
    )


def _warped_positions(
    rng: np.random.Generator, shape: tuple[int, int, int], voxel_size: float
) -> Floats:
    """Positions (3, x, y, z) at which to look up the tissue: bent, so that borders are curved."""
    position = np.empty((3, *shape), np.float32)
    for axis in range(3):
        grid = np.arange(shape[axis], dtype=np.float32)
        position[axis] = grid.reshape([-1 if a == axis else 1 for a in range(3)])
        for amplitude, scale in ((50.0, 420.0), (32.0, 165.0)):
            noise = _smooth_noise(rng, shape, scale / voxel_size)
            position[axis] += np.float32(amplitude / voxel_size) * noise
    return position


def _cells(neurites: _Neurites, position: Floats, voxel_size: float) -> tuple[Ints, Floats]:
    """Find the neurite each voxel belongs to, and its distance from the membrane in voxels.

    The power |x − c|² − r² is a squared distance in four dimensions, from (x, 0) to
    (c, sqrt(R² − r²)) less the constant R²; hence an ordinary nearest-neighbour tree finds it.
    """
    shape = position.shape[1:]
    deep = np.float32(_DEEP / voxel_size)
    inside = (neurites.centre > -2 * deep) & (neurites.centre < np.asarray(shape) + 2 * deep)
    index = np.flatnonzero(inside.all(axis=1)).astype(np.int32)
    centre, radius = neurites.centre[index], neurites.radius[index]
    tree = cKDTree(np.column_stack([centre, np.sqrt(radius.max() ** 2 - radius**2)]))
    ranks = range(1, min(_CANDIDATES, len(index)) + 1)

    # Blocks of whole size only: the rest is filled with copies of the last voxel and cut off again.
    padded = [(0, 0)] + [(0, -n % _BLOCK) for n in shape]
    blocks = np.pad(position, padded, mode="edge")
    _, nx, ny, nz = blocks.shape
    blocks = blocks.reshape(3, nx, ny // _BLOCK, _BLOCK, nz // _BLOCK, _BLOCK)
    owner = np.empty(blocks.shape[1:], np.int32)
    depth = np.empty(blocks.shape[1:], np.float32)
    for x in range(0, nx, _BLOCK):
        # The candidates are those of the block's middle voxel, wherever warping has put it.
        middle = blocks[:, x + _BLOCK // 2, :, _BLOCK // 2, :, _BLOCK // 2]
        query = np.concatenate([middle, np.zeros_like(middle[:1])]).transpose(1, 2, 0)
        ball = tree.query(query, k=ranks)[1]
        owner[x : x + _BLOCK], depth[x : x + _BLOCK] = _nearest_two(
            blocks[:, x : x + _BLOCK], centre[ball], radius[ball], index[ball] // _STEPS
        )
    crop = tuple(slice(n) for n in shape)
    np.minimum(depth, deep, out=depth)
    return owner.reshape(nx, ny, nz)[crop], depth.reshape(nx, ny, nz)[crop]


def _nearest_two(
    position: Floats, centre: Floats, radius: Floats, neurite: Ints
) -> tuple[Ints, Floats]:
    """Find each voxel's neurite, and its distance to the plane that borders the next neurite.

    ``position`` is (3, block, Y, block, Z, block); the candidates of block column (Y, Z) are
    ``centre`` (Y, Z, k, 3), ``radius`` (Y, Z, k) and ``neurite`` (Y, Z, k).
    """
    shape = position.shape[1:]
    best = np.full(shape, np.inf, np.float32)
    second = np.full(shape, np.inf, np.float32)
    best_rank = np.zeros(shape, np.uint8)
    second_rank = np.zeros(shape, np.uint8)
    owner = np.full(shape, -1, np.int32)
    power = np.empty(shape, np.float32)
    term = np.empty(shape, np.float32)
    for rank in range(radius.shape[-1]):
        np.subtract(position[0], _per_block(centre[:, :, rank, 0]), out=power)
        np.square(power, out=power)
        for axis in (1, 2):
            np.subtract(position[axis], _per_block(centre[:, :, rank, axis]), out=term)
            power += np.square(term, out=term)
        power -= _per_block(np.square(radius[:, :, rank]))
        label = _per_block(neurite[:, :, rank])
        wins = power < best
        other = label != owner
        # The old best is the new runner-up only if it is of another neurite.
        deposed = wins & other
        np.copyto(second, best, where=deposed)
        np.copyto(second_rank, best_rank, where=deposed)
        follows = ~wins & other & (power < second)
        np.copyto(second, power, where=follows)
        np.copyto(second_rank, rank, where=follows)
        np.copyto(best, power, where=wins)
        np.copyto(best_rank, rank, where=wins)
        np.copyto(owner, label, where=wins)
    row, column = np.ogrid[: shape[1], : shape[3]]
    row, column = _per_block(row), _per_block(column)
    across = centre[row, column, best_rank] - centre[row, column, second_rank]
    apart = np.sqrt(np.einsum("...i,...i->...", across, across))
    return owner, (second - best) / np.maximum(2 * apart, np.float32(1e-3))


def _per_block(values: NDArray[Any]) -> NDArray[Any]:
    """Turn (Y, Z) into (1, Y, 1, Z, 1), which broadcasts against the voxels of the blocks."""
    return values[None, :, None, :, None]


def _cytoplasm(rng: np.random.Generator, owner: Ints, neurites: _Neurites) -> Floats:
    """Give every neurite its grey, thin ones (and glia) darker, and a fine-grained texture."""
    calibre = neurites.radius.reshape(-1, _STEPS).mean(axis=1)
    thickness = np.clip(np.log(calibre / calibre.min()) / np.log(4.0), 0.0, 1.0)
    grey = 156.0 + 27.0 * thickness + 11.0 * rng.standard_normal(len(calibre))
    glia = rng.random(len(calibre)) < 0.16
    grey[glia] -= 38.0
    image: Floats = np.clip(grey, 105.0, 200.0).astype(np.float32)[owner]
    image += np.float32(5.0) * _smooth_noise(rng, owner.shape, 2.0)
    image += np.float32(3.0) * _smooth_noise(rng, owner.shape, 12.0)
    return image


def _add_vesicles(
    rng: np.random.Generator, image: Floats, owner: Ints, neurites: int, voxel_size: float
) -> None:
    """Darken vesicles: three-voxel dots with a paler middle, in clouds, more in some neurites."""
    share = rng.beta(1.3, 1.5, neurites).astype(np.float32)
    cloud = _smooth_noise(rng, owner.shape, 300.0 / voxel_size)
    density = np.float32(0.055) * share[owner] * np.clip(1 + cloud, 0, None)
    spots = (rng.random(owner.shape, dtype=np.float32) < density).astype(np.float32)
    outer, inner = 15.0 / voxel_size, 7.0 / voxel_size
    ring = gaussian_filter(spots, outer) * np.float32((2 * np.pi) ** 1.5 * outer**3)
    ring -= (
        np.float32(0.2) * gaussian_filter(spots, inner) * np.float32((2 * np.pi) ** 1.5 * inner**3)
    )
    image -= np.float32(48.0) * np.tanh(ring)


def _add_organelles(
    rng: np.random.Generator,
    image: Floats,
    owner: Ints,
    depth: Floats,
    position: Floats,
    neurites: _Neurites,
    voxel_size: float,
) -> None:
    """Put mitochondria into the wider neurites, along their axis, and small pale endosomes."""
    wide = np.flatnonzero(neurites.radius > 105.0 / voxel_size)
    wide = wide[_touches(neurites.centre[wide], neurites.radius[wide], image.shape)]
    dice = rng.random(len(wide))
    cristae = _smooth_noise(rng, owner.shape, 40.0 / voxel_size)
    for ball, die in zip(wide.tolist(), dice.tolist(), strict=True):
        radius = float(neurites.radius[ball])
        if die < 0.11:
            across = min(radius * rng.uniform(0.45, 0.75), 330.0 / voxel_size)
            along = across * rng.uniform(1.3, 3.0)
            off_axis, clearance, kind = 0.25, 2.4, "mitochondrion"
        elif die < 0.17:
            across = min(radius * 0.4, rng.uniform(50.0, 90.0) / voxel_size)
            along = across * rng.uniform(1.0, 1.8)
            off_axis, clearance, kind = 0.6, 2.0, "endosome"
        else:
            continue
        centre = neurites.centre[ball] + off_axis * radius * rng.uniform(-1, 1, 3)
        # Half the ellipsoid's bounding box, and as far again as warping moves things.
        axis = neurites.tangent[ball].astype(float)
        reach = np.sqrt((along**2 - across**2) * axis**2 + across**2) + 200.0 / voxel_size
        window = tuple(
            slice(max(int(c - r), 0), max(int(c + r) + 1, 0))
            for c, r in zip(centre.tolist(), reach.tolist(), strict=True)
        )
        mine = owner[window] == ball // _STEPS
        if not mine.any():
            continue
        offset = position[(slice(None), *window)][:, mine] - centre.astype(np.float32)[:, None]
        axial = np.square(np.einsum("i,iv->v", neurites.tangent[ball], offset))
        radial = np.einsum("iv,iv->v", offset, offset) - axial
        shell = np.sqrt(axial / np.float32(along**2) + radial / np.float32(across**2))
        # Inside by so many voxels, of the ellipsoid and of the neurite.
        inside = np.minimum(
            (1 - shell) * np.float32(across), depth[window][mine] - np.float32(clearance)
        )
        cover = np.clip(inside + np.float32(0.5), 0, 1)
        rim = np.exp(-np.square((inside - np.float32(0.5)) / np.float32(1.2)))
        if kind == "mitochondrion":
            grey = _MITOCHONDRION_GREY + rng.normal(0, 4.0)
            fill = grey + 6.0 * cristae[window][mine] - 5.0 * rim
        else:
            fill = rng.uniform(125.0, 175.0) - 75.0 * rim
        image[window][mine] += cover * (fill.astype(np.float32) - image[window][mine])


def _touches(centre: Floats, radius: Floats, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    reach = 3 * radius[:, None]
    inside = (centre > -reach) & (centre < np.asarray(shape, np.float32) + reach)
    return np.asarray(inside.all(axis=1))


def _add_membranes(
    rng: np.random.Generator, image: Floats, depth: Floats, voxel_size: float
) -> None:
    """Draw the dark line between neurites, here and there heavy as at a synapse."""
    heavy = np.clip(_smooth_noise(rng, depth.shape, 150.0 / voxel_size) - np.float32(1.7), 0, 1)
    half_width = np.float32(_MEMBRANE_HALF_WIDTH / voxel_size) * (1 + np.float32(1.5) * heavy)
    cover = np.exp(-np.power(depth / half_width, 2))
    image += cover * (np.float32(_MEMBRANE_GREY) - np.float32(25.0) * heavy - image)


def _microscope(rng: np.random.Generator, image: Floats) -> NDArray[np.uint8]:
    """Blur by the point spread, then add shot noise (variance as the grey) and Gaussian noise."""
    seen = gaussian_filter(image, 0.75, mode="reflect")
    noise = rng.standard_normal(seen.shape, dtype=np.float32)
    seen += noise * np.sqrt(np.float32(1.0) + np.float32(0.012) * np.clip(seen, 0, None))
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)
