"""Gaussian noise that depends on the image alone, not on the batch it is processed in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


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
    """

    def __init__(
        self,
        seed: int,
        images: Sequence[int],
        shape: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        self._generators = [seeded_generator(seed, image) for image in images]
        self._shape = shape
        self._device = device

    def draw(self) -> Tensor:
        """Return the next field of noise, (images, rows, columns) float32."""
        fields = [torch.randn(self._shape, generator=each) for each in self._generators]
        return torch.stack(fields).to(self._device)


def seeded_generator(*keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator whose stream belongs to these numbers (each ≥ 0), in this order."""
    mixed = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed))
