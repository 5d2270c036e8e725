"""Gaussian noise that depends on its place alone, not on how the work is divided."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 64  # pixels along each side of what one generator draws


class Purpose(IntEnum):
    """What random numbers are for: streams of different purpose have nothing in common.

    Without it, a reconstruction with the measurement's seed would draw the very noise that it is
    to remove.
    """

    VALIDATION_MEASUREMENT = 1
    TEST_MEASUREMENT = 2
    RECONSTRUCTION = 3
    TRAINING_STEP = 4
    VALIDATION_LOSS = 5
    TRAINING_SAMPLE = 6
    NOISE_SPLITTING = 7
    SLAB_MEASUREMENT = 8


class ImageNoise:
    """Standard normal noise whose every value depends on its place and on nothing else.

    A value is a function of purpose, seed, image, draw, row and column: the same whatever batch,
    order, device or part of a larger image it is asked for in. Random numbers are computed on the
    CPU, since the CUDA generator draws other ones.

    Parameters
    ----------
    seed : int
        Seed of the run, ≥ 0.
    images : sequence of int
        Identity of each image of the batch, ≥ 0; in a volume its place along the tilt axis.
    shape : (int, int)
        Rows and columns.
    device : torch.device or str
        Where to put the noise.
    purpose : Purpose
        What the noise is for.
    """

    def __init__(
        self,
        seed: int,
        images: Sequence[int],
        shape: tuple[int, int],
        device: torch.device | str = "cpu",
        purpose: Purpose = Purpose.RECONSTRUCTION,
    ) -> None:
        self._keys = [_mixed([purpose, 2, seed, image], words=2) for image in images]
        self._shape = shape
        self._device = device
        self._draws = 0

    def draw(self) -> Tensor:
        """Return the next field of noise, (images, rows, columns) float32."""
        fields = np.stack([_field(key, self._draws, self._shape) for key in self._keys])
        self._draws += 1
        return torch.from_numpy(fields).to(self._device)


def _field(key: NDArray[np.uint64], draw: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return one image's noise: tiles of the plane, each with a range of counters of its own."""
    rows, columns = shape
    field = np.empty((-(-rows // TILE) * TILE, -(-columns // TILE) * TILE), np.float32)
    for row in range(0, rows, TILE):
        for column in range(0, columns, TILE):
            # The generator counts up in the first word; a tile takes thousands of its 2⁶⁴ steps.
            counter = [0, column // TILE, row // TILE, draw]
            generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
            tile = generator.standard_normal((TILE, TILE), dtype=np.float32)
            field[row : row + TILE, column : column + TILE] = tile
    return field[:rows, :columns]


def seeded_generator(
    purpose: Purpose, *keys: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator whose stream belongs to a purpose and to numbers ≥ 0, in this order."""
    return torch.Generator(device).manual_seed(int(_mixed([purpose, len(keys), *keys])[0]))


def _mixed(numbers: Sequence[int], words: int = 1) -> NDArray[np.uint64]:
    # How many keys there are goes in too: a seed sequence does not tell trailing zeros from none.
    mixed = np.random.SeedSequence([int(each) for each in numbers])
    return mixed.generate_state(words, np.uint64).astype(np.uint64)
