"""A denoiser of patches made into one of images of any size (Sec. 3.5, App. F)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ddgm.denoiser import Denoiser, DenoiserCard, NoisePredictor
from ddgm.errors import DdgmError, SettingError


def bump(size: int) -> NDArray[np.float64]:
    """Return the weight of each pixel of a patch along one axis (Eq. 9, corrected).

    b(u) = exp(−1/max(1 − u², 0.2)) at the centres of the pixels, u from −1 to 1: it falls from
    0.37 in the middle to 0.007 near the edges. As typeset, Eq. 9 is one minus this, which grows.

    Parameters
    ----------
    size : int
        Pixels of the patch.
    """
    u = (2 * np.arange(size) + 1) / size - 1
    weights: NDArray[np.float64] = np.exp(-1 / np.maximum(1 - u**2, 0.2))
    return weights


def patch_starts(length: int, patch: int, stride: int) -> tuple[int, ...]:
    """Return where patches begin along one axis so that they cover it.

    They begin at multiples of the stride; the last one ends where the axis ends, so that none
    reaches outside. An axis no longer than a patch has one.

    Parameters
    ----------
    length, patch, stride : int
        Pixels of the axis, of a patch, and from one patch to the next.
    """
    last = max(length - patch, 0)
    return (*range(0, last, stride), last)


@dataclass(frozen=True)
class Axis:
    """Patches along one axis, and their weights.

    Attributes
    ----------
    starts : tuple of int
        First pixel of each patch.
    size : int
        Pixels of a patch.
    weights : ndarray
        (patches, size) float32; at each pixel of the axis they sum to 1.
    """

    starts: tuple[int, ...]
    size: int
    weights: NDArray[np.float32]


def divide_axis(length: int, patch: int, stride: int) -> Axis:
    """Divide an axis into overlapping patches.

    Eq. 7 divides by the sum of all weights at a pixel. The weights of an image are products of
    those along its axes (Eq. 8), and so is that sum, so that each axis can be divided by its own
    beforehand; blending is then addition.

    Parameters
    ----------
    length, patch, stride : int
        Pixels of the axis, of a patch, and from one patch to the next.
    """
    size = min(patch, length)
    starts = patch_starts(length, size, stride)
    weights = np.tile(bump(size), (len(starts), 1))
    total = np.zeros(length)
    for start, one in zip(starts, weights, strict=True):
        total[start : start + size] += one
    for start, one in zip(starts, weights, strict=True):
        one /= total[start : start + size]
    return Axis(starts, size, weights.astype(np.float32))


class BlendedDenoiser:
    """A noise-prediction network that takes images of any size, patch by patch (Eq. 7).

    Overlapping patches go through the network, and their predictions are averaged with a weight
    that falls towards the edges of a patch, so that no seam shows. Memory for the network is that
    of one batch of patches, whatever the images' size.

    Parameters
    ----------
    network : NoisePredictor
        Called with (patches, rows, columns).
    patch : int
        Pixels of a patch along both axes, a multiple of `multiple`.
    stride : int
        Pixels from one patch to the next, at most `patch`.
    batch : int
        Patches at a time, from one image or several.
    multiple : int
        The network takes sizes that are multiples of this. An image smaller than a patch is
        extended to the next one by reflection.
    card : DenoiserCard, optional
        Description of the network.
    """

    def __init__(
        self,
        network: NoisePredictor,
        *,
        patch: int = 128,
        stride: int = 96,
        batch: int = 16,
        multiple: int = 16,
        card: DenoiserCard | None = None,
    ) -> None:
        if multiple < 1 or patch < 1 or patch % multiple:
            raise SettingError(
                "patch", patch, f"must be a positive multiple of the network's {multiple}"
            )
        if not 1 <= stride <= patch:
            raise SettingError("stride", stride, f"must lie between 1 and the patch size {patch}")
        if batch < 1:
            raise SettingError("batch", batch, "of patches must be at least 1")
        self.card = card
        self._network = network
        self._patch = patch
        self._stride = stride
        self._batch = batch
        self._multiple = multiple

    @classmethod
    def of(
        cls, denoiser: Denoiser, *, patch: int = 128, stride: int = 96, batch: int = 16
    ) -> BlendedDenoiser:
        """Wrap a trained network, whose architecture says which sizes it takes."""
        return cls(
            denoiser,
            patch=patch,
            stride=stride,
            batch=batch,
            multiple=denoiser.card.architecture.stride,
            card=denoiser.card,
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Predict ε of images.

        Parameters
        ----------
        image : Tensor
            (images, rows, columns) float32, of any size.

        Returns
        -------
        Tensor
            (images, rows, columns) float32.
        """
        if image.ndim != 3 or not image.numel():
            raise DdgmError(
                f"denoiser: input is {tuple(image.shape)}; it takes (images, rows, columns), none "
                "of them 0"
            )
        rows, columns = image.shape[-2:]
        extended = _extend(image, [self._needed(rows), self._needed(columns)])
        down = divide_axis(extended.shape[-2], self._patch, self._stride)
        across = divide_axis(extended.shape[-1], self._patch, self._stride)
        places = list(
            itertools.product(range(len(image)), range(len(down.starts)), range(len(across.starts)))
        )
        row_weights = torch.from_numpy(down.weights).to(image.device)
        column_weights = torch.from_numpy(across.weights).to(image.device)
        blended = torch.zeros_like(extended)
        for first in range(0, len(places), self._batch):
            part = places[first : first + self._batch]
            regions = [
                (which, _span(down, above), _span(across, left)) for which, above, left in part
            ]
            noise = self._predict(torch.stack([extended[region] for region in regions]))
            for (_, above, left), region, one in zip(part, regions, noise, strict=True):
                weight = row_weights[above].unsqueeze(1) * column_weights[left]
                blended[region] += weight * one
        return blended[:, :rows, :columns]

    def _predict(self, patches: Tensor) -> Tensor:
        if torch.is_grad_enabled() and patches.requires_grad:
            # For the way back patches go through the network again, a batch at a time: memory stays
            # that of one batch.
            noise: Tensor = checkpoint(self._network, patches, use_reentrant=False)
            return noise
        return self._network(patches)

    def _needed(self, size: int) -> int:
        """Return the size that an axis has to be extended to; patches fit on longer ones."""
        return size if size >= self._patch else size + -size % self._multiple


def _span(axis: Axis, index: int) -> slice:
    return slice(axis.starts[index], axis.starts[index] + axis.size)


def _extend(image: Tensor, sizes: Sequence[int]) -> Tensor:
    """Extend images by reflection at their ends; an axis of one pixel repeats it."""
    for axis, needed in zip((-2, -1), sizes, strict=True):
        # A reflection reaches no further than the image; of a tiny one, several are needed.
        while image.shape[axis] < needed:
            size = image.shape[axis]
            step = min(needed - size, max(size - 1, 1))
            margin = (0, 0, 0, step) if axis == -2 else (0, step, 0, 0)
            mode = "reflect" if size > 1 else "replicate"
            image = functional.pad(image.unsqueeze(1), margin, mode=mode).squeeze(1)
    return image
