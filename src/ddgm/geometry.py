"""The geometry of a parallel-beam tilt series of one image plane."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddgm.errors import DdgmError, SettingError


@dataclass(frozen=True)
class TiltGeometry:
    """Parallel-beam projections of an image on to a line detector, one a tilt.

    The image is a plane normal to the tilt axis. Its rows run along the depth of the slab, its
    columns along the detector at zero tilt; detector bins are as wide as pixels. The sinogram of an
    image has one row a view and one column a detector bin.

    Attributes
    ----------
    height, width : int
        Image size in pixels (depth × lateral).
    angles : tuple of float
        Tilt of each view in degrees; 0 looks along the depth.
    detector : int
        Number of detector bins, centred on the tilt axis.
    """

    height: int
    width: int
    angles: tuple[float, ...]
    detector: int

    def __post_init__(self) -> None:
        for name in ("height", "width", "detector"):
            if getattr(self, name) < 1:
                raise DdgmError(f"geometry: {name} is {getattr(self, name)}; it must be at least 1")
        if not self.angles:
            raise DdgmError("geometry: no tilt angles; at least one view is needed")
        for angle in self.angles:
            if not -90 <= angle <= 90:
                raise DdgmError(f"geometry: tilt {angle:g} must lie between -90 and 90 degrees")

    @classmethod
    def limited_angle(
        cls,
        image_shape: tuple[int, int],
        *,
        views: int = 128,
        max_tilt: float = 60.0,
        detector: int | None = None,
    ) -> TiltGeometry:
        """Build evenly spaced tilts from −`max_tilt` to +`max_tilt`, both included (Sec. 3.2).

        Parameters
        ----------
        image_shape : (int, int)
            Rows (depth) and columns (lateral) of the image, pixels.
        views : int
            Number of tilt views.
        max_tilt : float
            Largest tilt, degrees.
        detector : int, optional
            Detector bins; as many as the image has columns unless given.
        """
        if views < 1:
            raise SettingError("views", views, "must be at least 1")
        height, width = image_shape
        angles = tuple(float(angle) for angle in np.linspace(-max_tilt, max_tilt, views))
        return cls(height, width, angles, width if detector is None else detector)

    @property
    def views(self) -> int:
        """Number of tilt views."""
        return len(self.angles)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.height, self.width

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """Views and detector bins of the sinogram."""
        return self.views, self.detector

    @property
    def flip_symmetric(self) -> bool:
        """Whether the tilts are symmetric, so that AᵀA commutes with both flips of the image."""
        angles = np.sort(np.asarray(self.angles))
        symmetric = np.allclose(angles, -angles[::-1], rtol=0.0, atol=1e-9)
        return min(self.image_shape) > 1 and bool(symmetric)

    def of_views(self, views: Sequence[int]) -> TiltGeometry:
        """Return the geometry of some of the views, by their indices."""
        return dataclasses.replace(self, angles=tuple(self.angles[view] for view in views))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that JSON and `from_dict` understand."""
        return {
            "height": self.height,
            "width": self.width,
            "angles": list(self.angles),
            "detector": self.detector,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TiltGeometry:
        """Build a geometry from what `as_dict` returned.

        Raises
        ------
        DdgmError
            If a key is missing or unknown.
        """
        expected = {"height", "width", "angles", "detector"}
        if set(values) != expected:
            raise DdgmError(f"geometry: keys are {sorted(values)}; expected {sorted(expected)}")
        angles: Sequence[float] = values["angles"]
        return cls(
            int(values["height"]),
            int(values["width"]),
            tuple(float(angle) for angle in angles),
            int(values["detector"]),
        )


def divide_views(views: int, held: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose views to hold out, spread evenly and symmetric about the middle of the series.

    The outermost views stay: beyond them the kept ones could only be extrapolated. With symmetric
    tilts what is kept is symmetric as well, so that its operator has an eigenbasis in blocks.

    Parameters
    ----------
    views : int
        Number of views.
    held : int
        How many to hold out; an odd number becomes the next lower even one.

    Returns
    -------
    kept, held : tuple of int
        Indices, ascending.

    Raises
    ------
    SettingError
        If fewer than two or more than just under half of the views are to be held out.
    """
    if views < 6:
        raise SettingError("views", views, "are too few to hold some out; at least 6 are needed")
    if not 2 <= held <= views // 2 - 1:
        raise SettingError(
            "views", held, f"to hold out must lie between 2 and {views // 2 - 1} of {views} views"
        )
    half = held // 2
    first = {round((at + 0.5) * (views // 2) / half) for at in range(half)}
    out = sorted(first | {views - 1 - view for view in first})
    return tuple(view for view in range(views) if view not in out), tuple(out)
