"""An approximate inverse of AᵀA + w for slabs, in memory that does not grow with their length."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddgm.geometry import TiltGeometry

LONGEST_BLOCK = 1024  # columns of a Fourier transform
DEEPEST = 256  # rows: 135 MB of eigenvectors, and 8 s to compute them
FLOOR = 1e-3  # of the largest eigenvalue of AᵀA
SAMPLES = 256  # of a footprint, a bin


class SlabPreconditioner:
    """M ≈ (AᵀA + w)⁻¹ for the tilt views of a slab: shift-invariant along it, dense in its depth.

    AᵀA of a slab without ends, averaged over where pixels lie in their bins, is a convolution along
    the slab: at each frequency a matrix of depth × depth, whose eigenvectors serve every weight w.
    What the average leaves out couples directions of large eigenvalues to those of small ones, so
    that these are not known to better than a share of the largest; M treats all as if larger by
    that share. It is symmetric and positive definite.

    Slabs longer than a block of columns are taken in overlapping blocks, weighted before and after
    by the root of a partition of unity: √u₁ M₁ √u₁ + √u₂ M₂ √u₂ + ….

    Parameters
    ----------
    eigenvalues : Tensor
        (frequencies, depth) float32, those of AᵀA, ascending at each frequency.
    eigenvectors : Tensor
        (frequencies, depth, depth), one a column; float32 for symmetric tilts, else complex64.
    block : int
        Columns of a block: frequencies are those of a real Fourier transform of this length.
    """

    def __init__(self, eigenvalues: Tensor, eigenvectors: Tensor, block: int) -> None:
        self.eigenvalues = eigenvalues.clamp_min(0)
        self.eigenvectors = eigenvectors
        self.block = block
        self._floor = FLOOR * float(self.eigenvalues.max())

    @classmethod
    def from_geometry(
        cls, geometry: TiltGeometry, device: torch.device | str = "cpu"
    ) -> SlabPreconditioner | None:
        """Compute the eigenvectors of a geometry: a second for 128 rows, in 34 MB.

        Parameters
        ----------
        geometry : TiltGeometry
            Image, tilts and detector.
        device : torch.device or str
            Where residuals will be.

        Returns
        -------
        SlabPreconditioner or None
            None for slabs deeper than `DEEPEST`, or where a pixel shares bins with others further
            along the slab than half a block.
        """
        reach = _reach(geometry)
        if geometry.height > DEEPEST or 2 * reach >= LONGEST_BLOCK:
            return None
        # Zeros behind the slab's end keep its two ends apart in a periodic transform.
        needed = max(geometry.width, reach + 1) + reach
        block = min(scipy.fft.next_fast_len(needed, real=True), LONGEST_BLOCK)
        matrices = torch.from_numpy(_matrices(geometry, reach, block)).to(device)
        eigenvalues, eigenvectors = torch.linalg.eigh(matrices)
        return cls(eigenvalues, eigenvectors, block)

    def apply(self, residual: Tensor, weight: float) -> Tensor:
        """Return M r.

        Parameters
        ----------
        residual : Tensor
            (batch, rows, columns) float32.
        weight : float
            w > 0.

        Returns
        -------
        Tensor
            (batch, rows, columns) float32.
        """
        factors = 1 / (self.eigenvalues + (weight + self._floor)).unsqueeze(-1)
        columns = residual.shape[-1]
        if columns <= self.block:
            return self._apply_block(residual, factors)
        result = torch.zeros_like(residual)
        for first, share in _partition(columns, self.block):
            root = share.to(residual.device)
            part = slice(first, first + self.block)
            result[..., part] += root * self._apply_block(root * residual[..., part], factors)
        return result

    def _apply_block(self, residual: Tensor, factors: Tensor) -> Tensor:
        waves = torch.fft.rfft(residual, n=self.block).permute(2, 1, 0)
        if not self.eigenvectors.is_complex():
            # Real and imaginary parts are two columns to real eigenvectors.
            waves = torch.view_as_real(waves).flatten(2)
        solved = self.eigenvectors @ (factors * (self.eigenvectors.mH @ waves))
        if not solved.is_complex():
            solved = torch.view_as_complex(solved.reshape(*solved.shape[:2], -1, 2))
        result: Tensor = torch.fft.irfft(solved.permute(2, 1, 0), n=self.block)
        return result[..., : residual.shape[-1]]


def _reach(geometry: TiltGeometry) -> int:
    """Return how many columns apart two pixels may be and yet share a bin."""
    angles = np.deg2rad(np.asarray(geometry.angles, dtype=np.float64))
    cosines, sines = np.cos(angles), np.abs(np.sin(angles))
    extents = geometry.height * sines + cosines + 1
    # A view along the slab sees all of it in one bin.
    return math.ceil(min(float((extents / np.maximum(cosines, 1e-9)).max()), 1e9))


def _matrices(geometry: TiltGeometry, reach: int, block: int) -> NDArray[Any]:
    """Return AᵀA at each frequency along the slab, (frequencies, depth, depth).

    Two pixels share the more bins the nearer they are on the detector, Δ bins apart: averaged over
    where they lie in their bins, ∫ t(s) t(s + Δ) ds with t the share of a pixel in a bin as it
    passes by. Both depend only on how many rows and columns the pixels are apart.
    """
    across = np.arange(-reach, reach + 1)
    down = np.arange(geometry.height)
    angles = np.deg2rad(np.asarray(geometry.angles, dtype=np.float64))
    overlap = np.zeros((len(down), len(across)))
    for cosine, sine in zip(np.cos(angles), np.sin(angles), strict=True):
        share = _share(cosine, sine)
        together = np.convolve(share, share) / SAMPLES
        places = (np.arange(len(together)) - len(together) // 2) / SAMPLES
        overlap += np.interp(across * cosine - down[:, None] * sine, places, together)
    line = np.zeros((len(down), block))
    line[:, across % block] = overlap
    # Rows apart the other way round are columns apart the other way round.
    spectrum = np.fft.rfft(line).T
    rows = down[:, None] - down
    matrices = np.where(rows >= 0, spectrum[:, abs(rows)], spectrum[:, abs(rows)].conj())
    if np.abs(matrices.imag).max() <= 1e-6 * np.abs(matrices).max():
        return matrices.real.astype(np.float32)
    return matrices.astype(np.complex64)


def _share(cosine: float, sine: float) -> NDArray[np.float64]:
    """Sample the share of a pixel in a bin against the distance of their centres, in bins.

    It is three intervals, of widths |cos θ|, |sin θ| and 1, convolved with each other.
    """
    wide, narrow = max(abs(cosine), abs(sine)), max(min(abs(cosine), abs(sine)), 1e-9)
    flat, reach = (wide - narrow) / 2, 2 * SAMPLES
    edges = np.arange(-reach, reach + 1) / SAMPLES

    def integral(edge: NDArray[np.float64]) -> NDArray[np.float64]:
        level = np.clip(edge, -flat, flat)
        beyond = np.clip(edge - level, -narrow, narrow)
        total: NDArray[np.float64] = (level + beyond - beyond * abs(beyond) / (2 * narrow)) / wide
        return total

    return integral(edges + 0.5) - integral(edges - 0.5)


@functools.lru_cache(maxsize=8)
def _partition(columns: int, block: int) -> Sequence[tuple[int, Tensor]]:
    """Return where blocks begin, and the roots of their weights, which add up to one."""
    overlap = block // 4
    steps = math.ceil((columns - block) / (block - overlap))
    starts = [round(at * (columns - block) / steps) for at in range(steps + 1)]
    rise = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / overlap) ** 2
    weights, total = [], np.zeros(columns)
    for first in starts:
        weight = np.ones(block)
        if first > starts[0]:
            weight[:overlap] = rise
        if first < starts[-1]:
            weight[-overlap:] = rise[::-1]
        total[first : first + block] += weight
        weights.append(weight)
    return [
        (first, torch.from_numpy(np.sqrt(weight / total[first : first + block])).float())
        for first, weight in zip(starts, weights, strict=True)
    ]
