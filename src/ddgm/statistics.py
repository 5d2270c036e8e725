"""Mean and standard deviation of a volume larger than memory."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ddgm.denoiser import Normalisation
from ddgm.errors import DdgmError
from ddgm.volume import Volume


def volume_statistics(volume: Volume, *, progress: bool = False) -> Normalisation:
    """Return mean and standard deviation over all voxels, one pass, one block in memory.

    Blocks are whole storage chunks, so that each is read once. Their moments are merged in float64
    by the pairwise update of Chan, Golub and LeVeque (1983), which does not cancel.

    Parameters
    ----------
    volume : Volume
        Any integer or float volume.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Normalisation
        In the volume's grey values.

    Raises
    ------
    DdgmError
        If the volume is constant or holds values that are not finite.
    """
    array = volume.array
    starts = [range(0, size, step) for size, step in zip(array.shape, array.chunks, strict=True)]
    count, mean, squares = 0, 0.0, 0.0
    blocks = list(itertools.product(*starts))
    for start in tqdm(blocks, desc="statistics", unit="chunk", disable=not progress):
        region = tuple(slice(at, at + step) for at, step in zip(start, array.chunks, strict=True))
        block = np.asarray(array[region], dtype=np.float64)
        if not np.isfinite(block).all():
            raise DdgmError(f"statistics: the volume holds values that are not finite at {start}")
        block_mean = float(block.mean())
        delta, total = block_mean - mean, count + block.size
        squares += float(np.square(block - block_mean).sum())
        squares += delta**2 * count * block.size / total
        mean += delta * block.size / total
        count = total
    return Normalisation(mean=mean, std=(squares / count) ** 0.5)


def check_normalised(images: Tensor) -> None:
    """Refuse images whose grey values are not what their normalisation is for.

    Of another volume of the same kind the mean is a little off zero and the standard deviation a
    little off one; of one with another range or contrast they are far off. (Black and white
    exchanged is not noticed: it leaves both as they are.)

    Parameters
    ----------
    images : Tensor
        (count, rows, columns), normalised.

    Raises
    ------
    DdgmError
        If the mean is further than 1 from zero, or the standard deviation not within a factor of
        2 of one.
    """
    mean, std = float(images.mean()), float(images.std())
    if abs(mean) > 1 or not 0.5 < std < 2:
        raise DdgmError(
            f"normalisation: in the network's units the images have mean {mean:.3g} and standard "
            f"deviation {std:.3g} instead of about 0 and 1: their grey values are not those that "
            "the network was trained on; rescale the volume, or train a network on it"
        )


def save_statistics(statistics: Normalisation, path: Path | str) -> None:
    """Write statistics as JSON."""
    values = {"mean": statistics.mean, "std": statistics.std}
    Path(path).write_text(json.dumps(values, indent=2) + "\n")


def load_statistics(path: Path | str) -> Normalisation:
    """Read what `save_statistics` wrote."""
    values = json.loads(Path(path).read_text())
    return Normalisation(mean=float(values["mean"]), std=float(values["std"]))
