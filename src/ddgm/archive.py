"""Named arrays in one file, and files that are there as a whole or not at all."""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddgm.errors import DdgmError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Lend a file beside `path` to write to; without an error, it then takes its place at once."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    yield partial
    os.replace(partial, path)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file in one step, by content that is on disk already."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_archive(path: Path | str, **arrays: ArrayLike) -> None:
    """Write arrays as a compressed NumPy archive, atomically.

    Parameters
    ----------
    path : path-like
        The file, under exactly this name.
    **arrays : array-like
        Numbers or strings.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_archive(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read what `write_archive` wrote; no code in the file is ever run.

    Raises
    ------
    DdgmError
        If the file is absent or not an archive of arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError as error:
        raise DdgmError(f"{path}: no such file") from error
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DdgmError(f"{path}: not an archive of arrays, or a damaged one ({error})") from error
