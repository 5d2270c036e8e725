"""Named arrays in one file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddgm.errors import DdgmError


def write_archive(path: Path | str, **arrays: ArrayLike) -> None:
    """Write arrays as a compressed NumPy archive, atomically.

    Parameters
    ----------
    path : path-like
        The file, under exactly this name.
    **arrays : array-like
        Numbers or strings.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(partial, path)


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
