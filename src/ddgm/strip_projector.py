"""The projector without a matrix: for slabs of any length, in the memory of their images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.preconditioner import SlabPreconditioner
from ddgm.projector import TiltOperator

ONE = np.float32(1)
HALF = np.float32(0.5)
MARGIN = 3  # bins that a pixel can reach
TOGETHER = 4  # rows that are projected in turn: one alone waits for its own last addition
NORM_TOLERANCE = 5e-3  # of σ_max²
NORM_ITERATIONS = 100
LANES = 8  # images that one instruction adds to
WORTH_LANES = 3  # images from which on LANES at a time are faster, some of them empty


class StripProjector(TiltOperator):
    """Tilt views of batches of images on a CPU, each weight computed when it is needed.

    The entries are those of `ddgm.projector.system_matrix`: the area of a pixel inside a detector
    bin's strip. Seen at tilt θ, a pixel is a trapezoid of width cos θ + `|sin θ|`, at most √2 bins,
    so that it lies in three neighbouring bins at most; their shares are differences of the integral
    of the trapezoid. A stored matrix takes 0.8 MB a column of a slab of 128 × 128 views, twice with
    its transpose; this takes nothing. Positions are computed in double precision, where ASTRA's
    single precision is off by a thousandth of a bin and more in wide slabs.

    Several images are interleaved pixel by pixel, so that one instruction adds a pixel of each to
    its bin: per image a batch of eight takes a third of the time of a single image.

    Parameters
    ----------
    geometry : TiltGeometry
        Image, tilts and detector.
    """

    def __init__(self, geometry: TiltGeometry) -> None:
        self.geometry = geometry
        angles = np.deg2rad(np.asarray(geometry.angles, dtype=np.float64))
        self._cosines, self._sines = np.cos(angles), np.sin(angles)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @functools.cached_property
    def norm(self) -> float:
        """Largest singular value σ_max of A, or up to 0.25 % more.

        Power iteration on AᵀA, whose entries are not negative: for every positive x, the largest
        ratio (AᵀAx)ᵢ/xᵢ bounds its largest eigenvalue from above (Collatz and Wielandt), and xᵀAᵀAx
        from below. The bounds meet long before the vector of a long slab is found.
        """
        vector = torch.ones(self.image_shape)
        for _ in range(NORM_ITERATIONS):
            image = self.adjoint(self.forward(vector))
            above = float((image / vector).max())
            below = float((vector * image).sum() / vector.square().sum())
            if above == 0.0:
                raise DdgmError("operator: it maps every image to zero; check the geometry")
            if above <= (1 + NORM_TOLERANCE) * below:
                break
            vector = (image / image.max()).clamp_min(1e-6)
        return math.sqrt(above)

    @functools.cached_property
    def preconditioner(self) -> SlabPreconditioner | None:
        """Approximate inverse of AᵀA + weight, where there is one for the geometry."""
        return SlabPreconditioner.from_geometry(self.geometry)

    def project(self, image: Tensor) -> Tensor:
        """Apply A to images of the right shape."""
        if _are_few(image):
            return self._one_by_one(_project, image, self.data_shape)
        return self._interleaved(
            lambda images: self._views(_interleave(images))[:, MARGIN:-MARGIN],
            image,
            self.data_shape,
        )

    def back_project(self, data: Tensor) -> Tensor:
        """Apply Aᵀ to sinograms of the right shape."""
        if _are_few(data):
            return self._one_by_one(_back_project, data, self.image_shape)
        return self._interleaved(
            lambda sinograms: self._images(_interleave(sinograms, MARGIN)), data, self.image_shape
        )

    def _normal(self, image: Tensor) -> Tensor:
        if _are_few(image):
            return super()._normal(image)
        # Between A and Aᵀ images stay interleaved: two copies less in memory and time.
        return self._interleaved(
            lambda images: self._images(self._views(_interleave(images))), image, self.image_shape
        )

    def _one_by_one(self, kernel: Any, values: Tensor, target: tuple[int, int]) -> Tensor:
        stacked = values.reshape(-1, *values.shape[-2:]).float().contiguous()
        result = torch.empty(len(stacked), *target)
        with _threads_of_torch():
            kernel(stacked.numpy(), self._cosines, self._sines, result.numpy())
        return result.reshape(*values.shape[:-2], *target)

    def _interleaved(
        self, apply: Callable[[Tensor], Tensor], values: Tensor, target: tuple[int, int]
    ) -> Tensor:
        """Map LANES images at a time; `apply` returns them interleaved."""
        stacked = values.reshape(-1, *values.shape[-2:]).float()
        result = torch.empty(len(stacked), *target)
        with _threads_of_torch():
            for at in range(0, len(stacked), LANES):
                own = result[at : at + LANES]
                own.copy_(apply(stacked[at : at + LANES])[..., : len(own)].movedim(-1, 0))
        return result.reshape(*values.shape[:-2], *target)

    def _views(self, images: Tensor) -> Tensor:
        """Project interleaved images; returns sinograms with margins, interleaved too."""
        views, detector = self.data_shape
        sinograms = torch.zeros(views, detector + 2 * MARGIN, LANES)
        _project_lanes(images.numpy(), self._cosines, self._sines, sinograms.numpy())
        return sinograms

    def _images(self, sinograms: Tensor) -> Tensor:
        """Back-project what `_views` returns."""
        images = torch.zeros(*self.image_shape, LANES)
        _back_project_lanes(sinograms.numpy(), self._cosines, self._sines, images.numpy())
        return images


def _are_few(values: Tensor) -> bool:
    """Tell whether there are too few images for it to pay to interleave them."""
    return math.prod(values.shape[:-2]) < WORTH_LANES


@contextmanager
def _threads_of_torch() -> Iterator[None]:
    """Let kernels use as many threads as PyTorch does."""
    threads = torch.get_num_threads()
    # Numba makes the names of its configuration when it is loaded; none is declared.
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(threads, most))
    yield
    # Numba's threads, when they start, change how many PyTorch uses.
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _interleave(values: Tensor, margin: int = 0) -> Tensor:
    """Return (count, rows, columns) as (rows, columns + margins, LANES), zeros added."""
    count, rows, columns = values.shape
    lanes = torch.zeros(rows, columns + 2 * margin, LANES)
    lanes[:, margin : margin + columns, :count] = values.movedim(0, -1)
    return lanes


def _compiled(**options: Any) -> Any:
    """Compile a kernel on its first call; later processes read what was compiled from disk."""
    compile_kernel = functools.partial(numba.njit, fastmath=True, nogil=True, **options)

    def compiled(kernel: Callable[..., Any]) -> Any:
        try:
            return compile_kernel(cache=True)(kernel)
        except RuntimeError:  # nowhere to write: installed for all, and a home that is read-only
            return compile_kernel()(kernel)

    return compiled


@_compiled(inline="always")
def _footprints(
    cosine: float, sine: float, start: float, detector: int, first: Any, left: Any, right: Any
) -> None:
    """Compute where a row's pixels lie, and their shares in the first and third of three bins.

    `start` is the centre of the first pixel in bins. The trapezoid is flat up to `flat` from its
    centre and falls to zero over another `slope`. First bins are counted from the margin's start;
    pixels that miss the detector end up in the margins.
    """
    wide, narrow = max(abs(cosine), abs(sine)), min(abs(cosine), abs(sine))
    half = (wide + narrow) / 2
    flat, slope = np.float32((wide - narrow) / 2), np.float32(narrow)
    height = np.float32(1 / wide)
    bend = np.float32(0.5 / narrow if narrow > 1e-7 else 0.0)
    for column in range(len(first)):
        begin = start + column * cosine - half + 0.5
        index = math.floor(begin)
        # From the pixel's centre to the edge between its first and second bin.
        edge = np.float32(index - begin) + np.float32(1 - half)
        inside = min(max(np.int32(index), np.int32(-MARGIN)), np.int32(detector))
        first[column] = np.uint32(inside + np.int32(MARGIN))
        left[column] = HALF + _integral(edge, flat, slope, height, bend)
        right[column] = HALF - _integral(edge + ONE, flat, slope, height, bend)


@_compiled(inline="always")
def _integral(edge: Any, flat: Any, slope: Any, height: Any, bend: Any) -> Any:
    """Integrate the trapezoid from its centre to an edge."""
    level = min(max(edge, -flat), flat)
    beyond = min(max(edge - level, -slope), slope)
    return (level + beyond - beyond * abs(beyond) * bend) * height


@_compiled(inline="always")
def _first_centre(
    cosine: float, sine: float, row: int, shape: tuple[int, int], detector: int
) -> float:
    """Return where the centre of a row's first pixel lies on the detector, in bins."""
    return ((shape[0] - 1) / 2 - row) * sine + (detector - 1) / 2 - (shape[1] - 1) / 2 * cosine


@_compiled(parallel=True)
def _project(
    images: NDArray[np.float32],
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    sinograms: NDArray[np.float32],
) -> None:
    """Add up each view's shares; (images, rows, columns) to (images, views, detector)."""
    count, rows, columns = images.shape
    views, detector = sinograms.shape[1:]
    for view in numba.prange(views):
        first = np.empty((TOGETHER, columns), np.uint32)
        left = np.empty((TOGETHER, columns), np.float32)
        right = np.empty((TOGETHER, columns), np.float32)
        bins = np.zeros((count, TOGETHER, detector + 2 * MARGIN), np.float32)
        for above in range(0, rows, TOGETHER):
            together = min(TOGETHER, rows - above)
            for one in range(together):
                start = _first_centre(
                    cosines[view], sines[view], above + one, (rows, columns), detector
                )
                _footprints(
                    cosines[view], sines[view], start, detector, first[one], left[one], right[one]
                )
            for index in range(count):
                image, shares = images[index], bins[index]
                # Both loops are the same; of the first the compiler knows the number of rows.
                if together == TOGETHER:
                    for column in range(columns):
                        for one in range(TOGETHER):
                            value = image[above + one, column]
                            _add(shares, one, first, left, right, column, value)
                else:
                    for column in range(columns):
                        for one in range(together):
                            value = image[above + one, column]
                            _add(shares, one, first, left, right, column, value)
        for index in range(count):
            for bin_ in range(detector):
                total = np.float32(0)
                for one in range(TOGETHER):
                    total += bins[index, one, bin_ + MARGIN]
                sinograms[index, view, bin_] = total


@_compiled(inline="always")
def _add(shares: Any, row: int, first: Any, left: Any, right: Any, column: int, value: Any) -> None:
    """Add a pixel to its three bins."""
    at = np.uint64(first[row, column])
    outer, other = left[row, column], right[row, column]
    shares[row, at] += outer * value
    shares[row, at + np.uint64(1)] += (ONE - outer - other) * value
    shares[row, at + np.uint64(2)] += other * value


@_compiled(parallel=True)
def _back_project(
    sinograms: NDArray[np.float32],
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    images: NDArray[np.float32],
) -> None:
    """Add up what each pixel got; (images, views, detector) to (images, rows, columns)."""
    count, rows, columns = images.shape
    views, detector = sinograms.shape[1:]
    bins = np.zeros((count, views, detector + 2 * MARGIN), np.float32)
    bins[:, :, MARGIN : detector + MARGIN] = sinograms
    for row in numba.prange(rows):
        first = np.empty(columns, np.uint32)
        left = np.empty(columns, np.float32)
        right = np.empty(columns, np.float32)
        images[:, row] = 0
        for view in range(views):
            start = _first_centre(cosines[view], sines[view], row, (rows, columns), detector)
            _footprints(cosines[view], sines[view], start, detector, first, left, right)
            for index in range(count):
                for column in range(columns):
                    at = np.uint64(first[column])
                    outer, other = left[column], right[column]
                    images[index, row, column] += (
                        outer * bins[index, view, at]
                        + (ONE - outer - other) * bins[index, view, at + np.uint64(1)]
                        + other * bins[index, view, at + np.uint64(2)]
                    )


def _lanes_instruction(
    typing: Any, target: Any, to: Any, weight: Any, source: Any, at: Any
) -> tuple[Any, Any]:
    """Compile target[to : to + LANES] += weight · source[at : at + LANES] to vector instructions.

    A loop over lanes would be unrolled before the compiler looks for vectors, and stay scalar. Both
    arrays are flat float32; nobody checks the indices.
    """
    vector = ir.VectorType(ir.FloatType(), LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def pointer(array: int) -> Any:
            structure: Any = cgutils.create_struct_proxy
            data = structure(signature.args[array])(context, builder, arguments[array]).data
            return builder.bitcast(builder.gep(data, [arguments[array + 1]]), vector.as_pointer())

        goal = pointer(0)
        values = builder.load(pointer(3), align=4)
        single = builder.insert_element(undefined, arguments[2], ir.Constant(ir.IntType(32), 0))
        weights = builder.shuffle_vector(single, undefined, zeros)
        products = builder.fmul(weights, values, flags=("fast",))
        total = builder.fadd(builder.load(goal, align=4), products, flags=("fast",))
        builder.store(total, goal, align=4)
        return context.get_dummy_value()

    return numba.void(target, to, weight, source, at), generate


_add_lanes: Any = intrinsic(_lanes_instruction)


@_compiled(parallel=True)
def _project_lanes(
    images: NDArray[np.float32],
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    sinograms: NDArray[np.float32],
) -> None:
    """Do as `_project`; (rows, columns, LANES) to zeros (views, detector + margins, LANES)."""
    rows, columns = images.shape[:2]
    views, padded = sinograms.shape[:2]
    detector = padded - 2 * MARGIN
    for view in numba.prange(views):
        first = np.empty((TOGETHER, columns), np.uint32)
        left = np.empty((TOGETHER, columns), np.float32)
        right = np.empty((TOGETHER, columns), np.float32)
        size = padded * LANES
        bins = np.zeros(TOGETHER * size, np.float32)
        pixels, totals = images.reshape(-1), sinograms.reshape(-1)
        for above in range(0, rows, TOGETHER):
            together = min(TOGETHER, rows - above)
            for one in range(together):
                start = _first_centre(
                    cosines[view], sines[view], above + one, (rows, columns), detector
                )
                _footprints(
                    cosines[view], sines[view], start, detector, first[one], left[one], right[one]
                )
            for column in range(columns):
                for one in range(together):
                    at = ((above + one) * columns + column) * LANES
                    to = one * size + np.int64(first[one, column]) * LANES
                    outer, other = left[one, column], right[one, column]
                    _add_lanes(bins, to, outer, pixels, at)
                    _add_lanes(bins, to + LANES, ONE - outer - other, pixels, at)
                    _add_lanes(bins, to + 2 * LANES, other, pixels, at)
        for one in range(TOGETHER):
            for bin_ in range(MARGIN, MARGIN + detector):
                to = (view * padded + bin_) * LANES
                _add_lanes(totals, to, ONE, bins, one * size + bin_ * LANES)


@_compiled(parallel=True)
def _back_project_lanes(
    sinograms: NDArray[np.float32],
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    images: NDArray[np.float32],
) -> None:
    """Do as `_back_project`; (views, detector + margins, LANES) to images of zeros."""
    rows, columns = images.shape[:2]
    views, padded = sinograms.shape[:2]
    detector = padded - 2 * MARGIN
    for row in numba.prange(rows):
        first = np.empty(columns, np.uint32)
        left = np.empty(columns, np.float32)
        right = np.empty(columns, np.float32)
        bins, totals = sinograms.reshape(-1), images.reshape(-1)
        for view in range(views):
            start = _first_centre(cosines[view], sines[view], row, (rows, columns), detector)
            _footprints(cosines[view], sines[view], start, detector, first, left, right)
            for column in range(columns):
                to = (row * columns + column) * LANES
                at = (view * padded + np.int64(first[column])) * LANES
                outer, other = left[column], right[column]
                _add_lanes(totals, to, outer, bins, at)
                _add_lanes(totals, to, ONE - outer - other, bins, at + LANES)
                _add_lanes(totals, to, other, bins, at + 2 * LANES)
