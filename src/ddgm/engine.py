"""The fastest operator of a tilt geometry; eigenbases are computed once and kept on disk.

Loads without PyTorch, so that the workflow can ask which operators have an eigenbasis, and where.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import platformdirs

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry

if TYPE_CHECKING:
    import torch

    from ddgm.eigenbasis import Eigenbasis
    from ddgm.operator import LinearOperator

CACHE_VERSION = 1  # to be raised when the projector or the file changes: old files are not read
LARGEST_BLOCK = 5000  # pixels; 200 MB of float64 and a quarter of a minute on two cores


def make_operator(
    geometry: TiltGeometry,
    device: torch.device | str = "cpu",
    *,
    cache: Path | str | None = None,
    fused: bool | None = None,
    progress: bool = False,
) -> LinearOperator:
    """Return the fastest operator of a geometry.

    Parameters
    ----------
    geometry : TiltGeometry
        Image, tilts and detector.
    device : torch.device or str
        Where images and data will be.
    cache : path-like, optional
        Folder of computed eigenbases; `default_cache` unless given.
    fused : bool, optional
        Whether to take the eigenbasis; `is_fused` of the geometry unless given.
    progress : bool
        Show progress of the eigendecomposition, a minute for 128 × 128 pixels.

    Returns
    -------
    FusedOperator, StripProjector or Projector
        With the eigenbasis up to 128 × 128 pixels (64 × 64 if tilts are not symmetric), else
        with loops: without a matrix on a CPU, with one on a GPU.
    """
    from ddgm.fused import FusedOperator
    from ddgm.projector import Projector
    from ddgm.strip_projector import StripProjector

    if fused is None:
        fused = is_fused(geometry)
    if not fused and str(device) == "cpu":
        return StripProjector(geometry)
    projector = Projector(geometry, device, preconditioned=not fused)
    if not fused:
        return projector
    basis = cached_eigenbasis(geometry, cache, device=device, progress=progress)
    return FusedOperator(projector, basis)


def largest_block(geometry: TiltGeometry) -> int:
    """Return the size of the largest matrix to decompose, in pixels."""
    rows, columns = geometry.image_shape
    if geometry.flip_symmetric:
        return math.ceil(rows / 2) * math.ceil(columns / 2)
    return rows * columns


def is_fused(geometry: TiltGeometry) -> bool:
    """Tell whether `make_operator` computes an eigenbasis for a geometry, or loops."""
    return largest_block(geometry) <= LARGEST_BLOCK


def default_cache() -> Path:
    """Return the folder of computed bases: DDGM_CACHE_DIR, or ddgm in the user's cache folder."""
    return Path(os.environ.get("DDGM_CACHE_DIR") or platformdirs.user_cache_path("ddgm"))


def cached_path(geometry: TiltGeometry, cache: Path | str | None = None) -> Path:
    """Return the file that holds a geometry's eigenbasis, whether or not it exists."""
    # Angles may be integers, or numbers of NumPy's that JSON does not know.
    plain = TiltGeometry.from_dict(geometry.as_dict())
    key = json.dumps([CACHE_VERSION, plain.as_dict()], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(cache or default_cache()) / f"eigenbasis-{digest}.safetensors"


def cached_eigenbasis(
    geometry: TiltGeometry,
    cache: Path | str | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Eigenbasis:
    """Return a geometry's eigenbasis: computed once a machine, then read from the cache.

    Processes that need it at the same time wait for the first one. A damaged file is replaced.

    Parameters
    ----------
    geometry : TiltGeometry
        Image, tilts and detector.
    cache : path-like, optional
        Folder of computed bases; `default_cache` unless given.
    device : torch.device or str
        Where to compute it and where to put it.
    progress : bool
        Show progress of the computation.

    Returns
    -------
    Eigenbasis
        On `device`.

    Raises
    ------
    DdgmError
        If it has to be computed and cannot be written.
    """
    from ddgm.eigenbasis import decompose
    from ddgm.projector import system_matrix

    path = cached_path(geometry, cache)
    # A complete file is read without the lock: the folder may be read-only, and readers many.
    basis = _load(path, device)
    if basis is not None:
        return basis
    with _locked(path):
        basis = _load(path, device)
        if basis is not None:
            return basis
        # What a process that was killed while saving left behind; no other one saves now.
        for rest in path.parent.glob(f"{path.name}.*.partial"):
            rest.unlink()
        basis = decompose(
            system_matrix(geometry),
            geometry.image_shape,
            symmetric=geometry.flip_symmetric,
            device=device,
            progress=progress,
        )
        basis.save(path)
    return basis.to(device)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a cached file, in a folder that is made if need be."""
    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DdgmError(
            f"eigenbasis: {path.parent} cannot be written ({error.strerror}); set DDGM_CACHE_DIR "
            "to a folder with 300 MB to spare"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _load(path: Path, device: torch.device | str) -> Eigenbasis | None:
    """Read a cached basis; None if there is none that can be read."""
    from ddgm.eigenbasis import Eigenbasis

    try:
        return Eigenbasis.load(path, device)
    except DdgmError:
        return None
