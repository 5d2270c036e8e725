"""How ill-conditioned a projector is, in numbers (Sec. 3.2, Appendix D)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Conditioning:
    """What the paper says of the singular values of A, as measured.

    Attributes
    ----------
    count : int
        Singular values: one a pixel of the image.
    largest, smallest : float
        Of them all.
    below_tenth : int
        How many are smaller than 0.1 × the largest.
    resolution : float
        The square root of float64's rounding, times the largest: the values are square roots of the
        eigenvalues of AᵀA, computed in float64, and below this nothing but rounding errors.

    Notes
    -----
    The values are those of the matrix as ASTRA rounds it. Of 128 × 128 pixels and 128 tilts its
    entries are off by up to 3e-4, and A by at least 0.0056 in the spectral norm, by as much as any
    singular value may be off from that of the geometry (Weyl): docs/reproduction.md.
    """

    count: int
    largest: float
    smallest: float
    below_tenth: int
    resolution: float

    @classmethod
    def of(cls, singular_values: NDArray[np.float64]) -> Conditioning:
        """Measure singular values, (pixels,) in any order."""
        largest = float(singular_values.max())
        return cls(
            count=len(singular_values),
            largest=largest,
            smallest=float(singular_values.min()),
            below_tenth=int((singular_values < 0.1 * largest).sum()),
            resolution=largest * float(np.sqrt(np.finfo(np.float64).eps)),
        )

    @property
    def share_below_tenth(self) -> float:
        """Of the singular values, those smaller than 0.1 × the largest."""
        return self.below_tenth / self.count

    def table(self) -> pd.DataFrame:
        """Return what was measured beside what the paper has, one row a number."""
        rows = [
            ("share of singular values below 0.1 × the largest", "> 0.5", self.share_below_tenth),
            ("largest singular value", "1e2", self.largest),
            ("smallest singular value", "1e-5", self.smallest),
            ("rounding of float64, in singular values", "", self.resolution),
        ]
        return pd.DataFrame(rows, columns=["quantity", "paper", "measured"])
