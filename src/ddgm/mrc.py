"""Tilt series and volumes as MRC files, which is what microscopes and IMOD write.

A stack of tilt views is an array (view, row, column). With the tilt axis along the columns of an
image, IMOD's convention after alignment, a row of all views is the sinogram of one section. Files
are mapped, not read, so that memory is bounded whatever their size.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ddgm.archive import replacing
from ddgm.contrast import view_gain
from ddgm.denoiser import Normalisation
from ddgm.engine import make_operator
from ddgm.errors import DdgmError, SettingError
from ddgm.geometry import TiltGeometry
from ddgm.tilt_series import TiltSeries, create_tilt_series, open_tilt_series
from ddgm.volume import Volume
from ddgm.workplace import Workplace

SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".preali", ".rec", ".map")
TILT_AXES = ("y", "x")
VALUES = ("relative", "intensity", "grey")
ANGSTROM = 0.1  # nm
_CHUNK = 8  # sections of a chunk of the tilt series
_BLOCK_BYTES = 128 * 2**20
_SECTIONS_FOR_GAIN = 8 * _CHUNK


@dataclass(frozen=True)
class MrcFile:
    """What an MRC file holds.

    Attributes
    ----------
    path : Path
        The file.
    data : memmap
        Three axes, the slowest one first: (sections or views, rows, columns), z, y, x of the file.
    pixel_size : (float, float, float) or None
        Of the columns, rows and sections in nanometres, x, y, z of the file; None where the header
        does not know (0, or the 1 Å that programs write that do not know either).
    """

    path: Path
    data: NDArray[Any]
    pixel_size: tuple[float, float, float] | None


@dataclass(frozen=True)
class Import:
    """How the views of a stack become line integrals of grey values.

    Attributes
    ----------
    depth : int
        Thickness of the slab to reconstruct, in (binned) pixels.
    pixel_size : float or None
        Of the stack in nanometres; that of its header if None.
    tilt_axis : {"y", "x"}
        Along which axis of an image the tilt axis runs: y, from row to row, as IMOD has it, or x.
    binning : int
        Pixels a side of which the mean is taken.
    values : {"relative", "intensity", "grey"}
        What the pixels are: linear in what the beam went through, with gain and offset unknown;
        transmitted intensities, of which the logarithm is that; or line integrals in the network's
        grey values × pixels, which are taken as they are.
    gain : float or None
        Grey values × pixels a unit of the pixels, after the logarithm if any; found from the views
        (`ddgm.contrast`) if None.
    invert : bool
        Whether what is dark in the network's images is bright in the views.
    width : int or None
        Lateral extent of the slab, in (binned) pixels. None: all that any ray crosses, since a
        tilted view shows tissue beyond the field of view at no tilt; of grey values, as wide as the
        detector.
    sections : (int, int) or None
        First section and one past the last one along the tilt axis, in binned pixels; all if None.
    """

    depth: int
    pixel_size: float | None = None
    tilt_axis: str = "y"
    binning: int = 1
    values: str = "relative"
    gain: float | None = None
    invert: bool = False
    width: int | None = None
    sections: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise SettingError("depth", self.depth, "must be at least 1 pixel")
        if self.width is not None and self.width < 1:
            raise SettingError("width", self.width, "must be at least 1 pixel")
        if self.binning < 1:
            raise SettingError("bin", self.binning, "must be at least 1 pixel")
        if self.pixel_size is not None and not 0 < self.pixel_size < math.inf:
            raise SettingError("pixel_size", self.pixel_size, "must be positive, in nanometres")
        if self.tilt_axis not in TILT_AXES:
            raise SettingError("tilt_axis", self.tilt_axis, "must be x or y")
        if self.values not in VALUES:
            raise SettingError("values", self.values, f"must be one of {', '.join(VALUES)}")
        if self.gain is not None and not 0 < self.gain < math.inf:
            raise SettingError("gain", self.gain, "must be positive")


def is_mrc(path: Path | str) -> bool:
    """Tell whether a file's name is that of an MRC file."""
    return Path(path).suffix.lower() in SUFFIXES


def open_mrc(path: Path | str) -> MrcFile:
    """Map an MRC file of three axes.

    Parameters
    ----------
    path : path-like
        The file. Headers that are not quite as they should be are put up with.

    Raises
    ------
    DdgmError
        If there is none, or it is not an MRC file of three axes of real numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DdgmError(f"{path}: no such file")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            file = mrcfile.mmap(path, permissive=True)
        except (ValueError, OSError) as error:
            raise DdgmError(f"{path}: not an MRC file ({' '.join(str(error).split())})") from error
    if file.data is None:
        reason = " ".join(str(caught[-1].message).split()) if caught else "it has no data"
        raise DdgmError(f"{path}: not an MRC file, or a damaged one ({reason})")
    data = file.data
    if data.ndim != 3 or data.dtype.kind not in "iuf":
        raise DdgmError(
            f"{path}: it holds {data.dtype} of shape {data.shape}; a stack has three axes (views, "
            "rows, columns) of real numbers"
        )
    size = [float(file.voxel_size[axis]) * ANGSTROM for axis in "xyz"]
    unknown = any(not 0 < edge < math.inf or math.isclose(edge, ANGSTROM) for edge in size[:2])
    return MrcFile(path, data, None if unknown else (size[0], size[1], size[2]))


def read_angles(path: Path | str) -> tuple[float, ...]:
    """Read tilts in degrees, one a line, as in IMOD's ``.tlt`` and ``.rawtlt``.

    Raises
    ------
    DdgmError
        If there is no such file, or a line is not one number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DdgmError(f"angles {path}: cannot be read ({error})") from error
    angles = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            angles.append(float(line))
        except ValueError:
            raise DdgmError(
                f"angles {path}: line {number} is {line.strip()!r}; one angle in degrees a line is "
                "needed"
            ) from None
    return tuple(angles)


def import_stack(
    stack: MrcFile,
    path: Path | str,
    angles: Sequence[float],
    settings: Import,
    normalisation: Normalisation,
    *,
    progress: bool = False,
) -> TiltSeries:
    """Make the tilt series of a stack of views; goes on where it was interrupted.

    Views of unknown gain and offset are brought to grey values by what holds for a slab of tissue:
    the mean of a view is that of the slab's mean grey value, and structure is as strong in all
    views together as in those of other such tissue (`ddgm.contrast.view_gain`).

    Parameters
    ----------
    stack : MrcFile
        The views, aligned: (view, row, column).
    path : path-like
        Folder of the tilt series. A finished one of the same stack and settings is taken as it is.
    angles : sequence of float
        Tilt of each view in degrees. What moves towards the end of the detector as the tilt grows
        lies at the beginning of the depth; with the angles' signs turned, the volume comes out
        mirrored in depth.
    settings : Import
        How.
    normalisation : Normalisation
        Of the network's grey values.
    progress : bool
        Show a progress bar.

    Returns
    -------
    TiltSeries
        Of sections along the tilt axis; its attribute ``source`` says how it was made.

    Raises
    ------
    DdgmError
        If angles and views differ in number, the pixel size is not known, intensities are not
        positive, a view holds values that are not finite, or something else is at `path`.
    """
    views = _Views(stack, settings)
    if len(angles) != views.count:
        raise DdgmError(
            f"{stack.path} has {views.count} views, and there are {len(angles)} angles: one for "
            "each is needed"
        )
    width = settings.width
    if width is None:
        of_detector = settings.values == "grey"
        width = views.detector if of_detector else _crossed(settings.depth, views.detector, angles)
    geometry = TiltGeometry(settings.depth, width, tuple(angles), views.detector)
    stat = stack.path.stat()
    source = {
        "file": str(stack.path.absolute()),
        "written": [stat.st_size, stat.st_mtime_ns],
        "settings": {**asdict(settings), "sections": [views.first, views.stop]},
        "normalisation": asdict(normalisation),
    }
    wanted = {"source": source, "geometry": geometry.as_dict()}
    if Path(path).exists():
        return _finished(Path(path), wanted)
    workplace = Workplace.open(path, wanted)
    with workplace.held():
        _import(workplace, views, geometry, source, normalisation, progress)
        with workplace.writing("the series"):
            workplace.close()
    return open_tilt_series(path)


def export_stack(series: TiltSeries, path: Path | str, *, progress: bool = False) -> None:
    """Write a tilt series as an MRC stack of float32 views, the tilt axis along y.

    Its angles go beside it, one a line, into a file of the same name that ends with ``.tlt``.

    Parameters
    ----------
    series : TiltSeries
        The series.
    path : path-like
        The file to write.
    progress : bool
        Show a progress bar.
    """
    views, detector = series.geometry.sinogram_shape
    size = (series.voxel_size[2], series.voxel_size[0], series.voxel_size[2])
    _write(path, (views, series.sections, detector), 2, size, series, progress)
    angles = "".join(f"{angle!r}\n" for angle in series.geometry.angles)
    Path(path).with_suffix(".tlt").write_text(angles, encoding="ascii")


def export_volume(volume: Volume, path: Path | str, *, progress: bool = False) -> None:
    """Write a volume as an MRC file: x lateral, y along the tilt axis, z the depth.

    That is what IMOD has after rotating a tomogram about x (``trimvol -rx``). Voxel sizes are in Å.
    Bytes become 16-bit integers: those of MRC are signed, and some programs take them otherwise.

    Parameters
    ----------
    volume : Volume
        uint8, int16, uint16 or float32.
    path : path-like
        The file to write.
    progress : bool
        Show a progress bar.

    Raises
    ------
    DdgmError
        If the format does not have such voxels, or the file exists.
    """
    modes = {"uint8": 1, "int16": 1, "uint16": 6, "float32": 2}
    if volume.dtype.name not in modes:
        raise DdgmError(f"{path}: MRC has no voxels of {volume.dtype}; {', '.join(modes)} will do")
    sections, depth, lateral = volume.shape
    along, deep, wide = volume.voxel_size
    shape, size = (depth, sections, lateral), (wide, along, deep)
    _write(path, shape, modes[volume.dtype.name], size, volume, progress)


def _write(
    path: Path | str,
    shape: tuple[int, int, int],
    mode: int,
    voxel_size: tuple[float, float, float],
    source: TiltSeries | Volume,
    progress: bool,
) -> None:
    """Write an array (y, z, x) as an MRC file, some y at a time; it appears when it is complete."""
    path = Path(path)
    if path.exists():
        raise DdgmError(f"{path} exists already; remove it, or choose another name")
    slow, sections, fast = shape
    step = max(1, _BLOCK_BYTES // (4 * slow * fast))
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path) as partial,
            mrcfile.new_mmap(partial, shape, mode, overwrite=True) as file,
        ):
            bar = tqdm(total=sections, unit="section", desc=path.name, disable=not progress)
            with bar:
                for first in range(0, sections, step):
                    block = np.asarray(source.array[first : first + step])
                    file.data[:, first : first + step] = block.transpose(1, 0, 2)
                    low, high = min(low, float(block.min())), max(high, float(block.max()))
                    total += float(block.sum(dtype=np.float64))
                    squares += float(np.square(block, dtype=np.float64).sum())
                    bar.update(len(block))
            mean = total / math.prod(shape)
            file.voxel_size = tuple(edge / ANGSTROM for edge in voxel_size)
            file.header.dmin, file.header.dmax, file.header.dmean = low, high, mean
            file.header.rms = math.sqrt(max(0.0, squares / math.prod(shape) - mean**2))
            file.set_volume() if isinstance(source, Volume) else file.set_image_stack()
            file.add_label("ddgm")
    except OSError as error:
        raise DdgmError(f"{path}: could not be written ({error.strerror or error})") from error


def _crossed(depth: int, detector: int, angles: Sequence[float]) -> int:
    """Return how wide a slab is that no ray to the detector enters or leaves by its sides."""
    steepest = math.radians(max(map(abs, angles)))
    if steepest > math.radians(85):
        raise DdgmError(
            f"tilts of {math.degrees(steepest):g} degrees cross a slab of any width: give --width"
        )
    return math.ceil((detector + depth * math.sin(steepest)) / math.cos(steepest))


class _Views:
    """The views of a stack as sinograms of sections, binned; read a few sections at a time."""

    def __init__(self, stack: MrcFile, settings: Import) -> None:
        self.path, self.settings = stack.path, settings
        data = stack.data if settings.tilt_axis == "y" else stack.data.transpose(0, 2, 1)
        self._data = data
        self.count = data.shape[0]
        self.whole, self.detector = (
            data.shape[1] // settings.binning,
            data.shape[2] // settings.binning,
        )
        if not (self.whole and self.detector):
            raise SettingError(
                "bin", settings.binning, f"leaves nothing of {data.shape[1:]} pixels"
            )
        chosen: tuple[int, int] = settings.sections or (0, self.whole)
        self.first, self.stop = chosen
        if not 0 <= self.first < self.stop <= self.whole:
            raise DdgmError(
                f"{stack.path}: sections {self.first} to {self.stop} (excluded) of {self.whole} "
                "were asked for"
            )
        self.pixel_size = settings.binning * _pixel_size(stack, settings)
        # Along the tilt axis in one piece where the file allows: else each block reads all of it.
        size = data.dtype.itemsize * settings.binning * self.count * data.shape[2]
        self.block = max(1, _BLOCK_BYTES // size // _CHUNK) * _CHUNK

    def __len__(self) -> int:
        return self.stop - self.first

    def read(self, first: int, stop: int) -> NDArray[np.float32]:
        """Return sinograms (section, view, detector) of sections counted from the first wanted."""
        return self.read_anywhere(self.first + first, self.first + stop)

    def read_anywhere(self, first: int, stop: int) -> NDArray[np.float32]:
        """Return sinograms (section, view, detector) of sections of the whole stack."""
        edge = self.settings.binning
        rows = slice(first * edge, stop * edge)
        block = np.asarray(self._data[:, rows, : self.detector * edge], dtype=np.float32)
        block = block.reshape(self.count, stop - first, edge, self.detector, edge).mean(axis=(2, 4))
        if self.settings.values == "intensity":
            if not (block > 0).all():
                view = int(np.argwhere(~(block > 0))[0][0])
                raise DdgmError(
                    f"{self.path}: view {view} has intensities that are not positive, which have "
                    "no logarithm; take values relative, or add an offset to the stack"
                )
            block = np.log(block)
        if not np.isfinite(block).all():
            view = int(np.argwhere(~np.isfinite(block))[0][0])
            raise DdgmError(f"{self.path}: view {view} holds values that are not finite")
        sign = np.float32(-1 if self.settings.invert else 1)
        return np.ascontiguousarray(sign * block.transpose(1, 0, 2))


def _pixel_size(stack: MrcFile, settings: Import) -> float:
    """Return the size of a pixel of the stack in nanometres."""
    if settings.pixel_size is not None:
        return settings.pixel_size
    if stack.pixel_size is None:
        raise DdgmError(
            f"{stack.path}: its header does not know the pixel size (it says 0 or 1 Å); give "
            "--pixel-size in nanometres"
        )
    across, along = stack.pixel_size[:2]
    if abs(across - along) > 0.01 * along:
        raise DdgmError(
            f"{stack.path}: its pixels are {across:g} × {along:g} nm; square ones are needed"
        )
    return across


def _finished(path: Path, wanted: dict[str, Any]) -> TiltSeries:
    series = open_tilt_series(path)
    found: Any = dict(series.array.attrs.get("source", {}))  # type: ignore[arg-type]
    found.pop("gain_found", None)
    if {"source": found, "geometry": series.geometry.as_dict()} != _plain(wanted):
        raise DdgmError(
            f"{path} is the tilt series of another stack, or was made with other settings; remove "
            "it, or choose another output"
        )
    return series


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of it."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _import(
    workplace: Workplace,
    views: _Views,
    geometry: TiltGeometry,
    source: dict[str, Any],
    normalisation: Normalisation,
    progress: bool,
) -> None:
    """Convert what is not finished."""
    sections = len(views)
    operator = make_operator(geometry, fused=False)
    flat = operator.forward(torch.ones(geometry.image_shape)).numpy()
    scale, offset = np.float32(1), np.zeros((geometry.views, 1), np.float32)
    if views.settings.values == "grey":
        # A pixel of the binned views is as much longer a step of the line integral.
        scale = np.float32((views.settings.gain or 1) / views.settings.binning)
        flat = np.zeros_like(flat)
    else:
        offset = _means(views, progress)
        gain = views.settings.gain
        if gain is None:
            gain = _found_gain(views, geometry, normalisation)
        scale, source = np.float32(gain), {**source, "gain_found": gain}
        flat = np.float32(normalisation.mean) * flat
    if not workplace.array.exists():
        with workplace.writing("the series"):
            size = 3 * [views.pixel_size]
            made = create_tilt_series(
                workplace.array,
                sections,
                geometry,
                voxel_size=size,
                origin=(views.first, 0, 0),
                chunk=_CHUNK,
            )
            made.array.attrs["source"] = source
            workplace.sync_array()
    series = open_tilt_series(workplace.array, mode="r+")
    remaining = workplace.remaining(sections, views.block)
    left = sum(map(len, remaining))
    workplace.check_space(left * 4 * geometry.views * geometry.detector)
    bar = tqdm(
        total=sections,
        initial=sections - left,
        unit="section",
        desc="tilt series",
        disable=not progress,
    )
    with bar:
        for part in remaining:
            first, stop = part.start, part.stop
            with workplace.writing_sections(first, stop):
                block = scale * (views.read(first, stop) - offset) + flat
                series.array[first:stop] = block
            with workplace.writing("a record"):
                workplace.finish(first, {"sections": len(part)})
            bar.update(len(part))


def _means(views: _Views, progress: bool) -> NDArray[np.float32]:
    """Return the mean of each view, (views, 1): of all of it, whatever sections are wanted."""
    sums = np.zeros(views.count)
    starts = range(0, views.whole, views.block)
    for first in tqdm(starts, desc="means of the views", unit="block", disable=not progress):
        block = views.read_anywhere(first, min(first + views.block, views.whole))
        sums += block.sum(axis=(0, 2), dtype=np.float64)
    mean: NDArray[np.float32] = (sums / (views.whole * views.detector)).astype(np.float32)[:, None]
    return mean


def _found_gain(views: _Views, geometry: TiltGeometry, normalisation: Normalisation) -> float:
    """Return the gain from some sections of the whole stack, spread evenly."""
    count = min(views.whole, _SECTIONS_FOR_GAIN)
    parts = -(-count // _CHUNK)
    starts = np.linspace(0, max(0, views.whole - _CHUNK), parts).astype(int).tolist()
    sample = np.concatenate(
        [views.read_anywhere(first, min(first + _CHUNK, views.whole)) for first in starts]
    )
    gain = view_gain(torch.from_numpy(sample), geometry, views.pixel_size)
    # To few digits, so that a run that goes on finds the same.
    return float(f"{gain * normalisation.std:.6g}")
