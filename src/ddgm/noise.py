"""Gaussian noise that depends on the image alone, not on the batch it is processed in."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


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


class ImageNoise:
    """Standard normal noise with one generator an image.

    The same seed gives an image the same noise whatever batch, order or device it is processed in:
    generators run on the CPU, since the CUDA generator draws other numbers.

    Parameters
    ----------
    seed : int
        Seed of the run, ≥ 0.
    images : sequence of int
        Identity of each image of the batch, ≥ 0.
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
        self._generators = [seeded_generator(purpose, seed, image) for image in images]
        self._shape = shape
        self._device = device

    def draw(self) -> Tensor:
        """Return the next field of noise, (images, rows, columns) float32."""
        fields = [torch.randn(self._shape, generator=each) for each in self._generators]
        return torch.stack(fields).to(self._device)


def seeded_generator(
    purpose: Purpose, *keys: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator whose stream belongs to a purpose and to numbers ≥ 0, in this order."""
    # The length goes in too, since a seed sequence does not tell trailing zeros from none.
    mixed = np.random.SeedSequence([int(purpose), len(keys), *keys]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed))
