"""``ddgm reconstruct``."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ddgm.cli.common import (
    DEFAULT_NETWORK,
    WARNING,
    Device,
    Network,
    NoiseStd,
    Seed,
    elapsed,
    parse_settings,
    read_range,
    reading,
    running,
)
from ddgm.console import show_progress
from ddgm.errors import DdgmError
from ddgm.methods import METHODS

if TYPE_CHECKING:
    from ddgm.denoiser import DenoiserCard
    from ddgm.methods import Method
    from ddgm.tilt_series import TiltSeries

STACK = "An MRC stack"
LARGE = "How it is computed"


def _settings_of_methods() -> str:
    return "; ".join(
        f"{name}: "
        + ", ".join(f"{each.name}={each.default}" for each in dataclasses.fields(METHODS[name]))
        for name in METHODS
        if name != "generation"
    )


def reconstruct(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="VIEWS",
            help="Tilt series (.zarr), sinogram set (.npz), or a stack of aligned views "
            "(.mrc, .st, .ali …) with its angles.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="What to make: the folder of a Zarr volume; of a sinogram set, an .npz archive.",
        ),
    ],
    method: Annotated[
        str, typer.Option(help=f"One of {', '.join(n for n in METHODS if n != 'generation')}.")
    ] = "proximal",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help=f"A setting of the method; may be repeated. {_settings_of_methods()}.",
        ),
    ] = None,
    network: Network = DEFAULT_NETWORK,
    noise_std: NoiseStd = None,
    seed: Seed = 0,
    export: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write the volume for other programs as well: .mrc, .ome.zarr or .precomputed "
            "(Neuroglancer); may be repeated."
        ),
    ] = None,
    angles: Annotated[
        Path | None,
        typer.Option(
            help="File of tilts in degrees, one a line (.tlt, .rawtlt).",
            show_default="the stack's name with .tlt or .rawtlt",
            rich_help_panel=STACK,
        ),
    ] = None,
    depth: Annotated[
        float | None,
        typer.Option(
            min=0, help="Thickness of the slab, nm; needed.", rich_help_panel=STACK, metavar="NM"
        ),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Lateral extent to reconstruct, nm.",
            show_default="all that any ray crosses; of values grey, the detector's",
            rich_help_panel=STACK,
            metavar="NM",
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Pixel size of the stack, nm.",
            show_default="that of its header",
            rich_help_panel=STACK,
            metavar="NM",
        ),
    ] = None,
    binning: Annotated[
        int,
        typer.Option(
            "--bin",
            min=1,
            help="Take the mean of so many pixels a side, to come to the network's pixel size.",
            rich_help_panel=STACK,
        ),
    ] = 1,
    tilt_axis: Annotated[
        Literal["y", "x"],
        typer.Option(
            help="Image axis along which the tilt axis runs: y (from row to row, as IMOD aligns) "
            "or x.",
            rich_help_panel=STACK,
        ),
    ] = "y",
    values: Annotated[
        Literal["relative", "intensity", "grey"],
        typer.Option(
            help="What a pixel is: relative (linear in what the beam went through, of any gain and "
            "offset), intensity (transmitted, of which the logarithm is taken) or grey (line "
            "integrals of the network's grey values × pixels).",
            rich_help_panel=STACK,
        ),
    ] = "relative",
    gain: Annotated[
        float | None,
        typer.Option(
            help="Grey values × pixels a unit of the views.",
            show_default="found by the views' contrast",
            rich_help_panel=STACK,
        ),
    ] = None,
    invert: Annotated[
        bool,
        typer.Option(
            "--invert",
            help="Stain is bright in the views, and dark in the network's images.",
            rich_help_panel=STACK,
        ),
    ] = False,
    sections: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:STOP",
            help="Only these, along the tilt axis, counted from 0 in binned pixels.",
            show_default="all",
            rich_help_panel=STACK,
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Worker processes.",
            show_default="one a GPU, or one for each four cores",
            rich_help_panel=LARGE,
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Sections or images at a time.", rich_help_panel=LARGE)
    ] = 8,
    patch: Annotated[
        int,
        typer.Option(min=1, help="Pixels of the network's patches.", rich_help_panel=LARGE),
    ] = 128,
    stride: Annotated[
        int,
        typer.Option(min=1, help="Pixels from one patch to the next.", rich_help_panel=LARGE),
    ] = 96,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="Let the network compute in bfloat16: faster on GPUs and on CPUs with AMX.",
            rich_help_panel=LARGE,
        ),
    ] = False,
    dtype: Annotated[
        Literal["uint8", "float32"],
        typer.Option(help="Voxels of the volume.", rich_help_panel=LARGE),
    ] = "uint8",
) -> None:
    """Reconstruct images from tilt views. Interrupted, the same command goes on.

    The defaults take the proximal method with 20 evaluations of the network. A network knows images
    of one pixel size and kind of tissue: fib25-16nm, in the box, fly neuropil at 16 nm.
    """
    with running():
        from ddgm.denoiser import read_card
        from ddgm.methods import make_method

        if method == "generation":
            raise DdgmError("--method generation looks at no data; it reconstructs nothing")
        chosen = make_method(method, parse_settings(settings or []))
        card = read_card(network)
        options: dict[str, Any] = {
            "noise_std": noise_std,
            "seed": seed,
            "batch": batch,
            "half": half,
            "device": device,
            "network": network,
        }
        if source.suffix == ".npz":
            if export:
                raise DdgmError("--export goes with volumes; a sinogram set gives an .npz archive")
            _of_sinograms(source, output, method, chosen, patch, stride, **options)
            return
        series = _tilt_series(
            source,
            output,
            card,
            angles,
            {
                "depth": depth,
                "width": width,
                "pixel_size": pixel_size,
                "binning": binning,
                "tilt_axis": tilt_axis,
                "values": values,
                "gain": gain,
                "invert": invert,
                "sections": read_range(sections, "--sections"),
            },
        )
        _of_series(
            series,
            output,
            method,
            chosen,
            card,
            exports=export or [],
            blending={"patch": patch, "stride": stride},
            dtype=dtype,
            workers=workers,
            **options,
        )


def _tilt_series(
    source: Path, output: Path, card: DenoiserCard, angles: Path | None, settings: dict[str, Any]
) -> TiltSeries:
    """Open a tilt series, or make it of a stack."""
    from ddgm.contrast import check_contrast
    from ddgm.mrc import Import, import_stack, is_mrc, open_mrc, read_angles
    from ddgm.tilt_series import open_tilt_series

    if not is_mrc(source):
        defaults = {each.name: each.default for each in dataclasses.fields(Import)}
        for name, value in settings.items():
            if value is not None and value != defaults[name]:
                option = {"binning": "bin"}.get(name, name).replace("_", "-")
                raise DdgmError(f"--{option} goes with an MRC stack, not with {source}")
        series = open_tilt_series(source)
        _check_pixel_size(series.pixel_size, card, str(source))
    else:
        stack = open_mrc(source)
        found = angles or next(
            (each for each in map(source.with_suffix, (".tlt", ".rawtlt")) if each.exists()), None
        )
        if found is None:
            raise DdgmError(f"{source}: give its tilts with --angles, a file of one angle a line")
        if settings["depth"] is None:
            raise DdgmError(f"{source}: give the thickness of the slab with --depth, in nanometres")
        size = settings["pixel_size"] or (stack.pixel_size or [None])[0]
        in_pixels = {"depth": 1}  # without a size, the import says what is missing
        if size is not None:
            pixel = size * settings["binning"]
            _check_pixel_size(pixel, card, str(source), size)
            in_pixels = {
                name: max(1, round(settings[name] / pixel))
                for name in ("depth", "width")
                if settings[name] is not None
            }
        series = import_stack(
            stack,
            output.with_name(output.name.removesuffix(".zarr") + ".series.zarr"),
            read_angles(found),
            Import(**{**settings, **in_pixels}),
            card.normalisation,
            progress=show_progress(),
        )
    check_contrast(series, card.normalisation)
    return series


def _check_pixel_size(
    size: float, card: DenoiserCard, what: str, of_stack: float | None = None
) -> None:
    """Refuse views of a pixel size that the network does not know."""
    off = abs(size - card.voxel_size) / card.voxel_size
    if off > 0.1:
        binning = round(card.voxel_size / (of_stack or size))
        fits = of_stack and binning and abs(binning * of_stack / card.voxel_size - 1) <= 0.1
        advice = f"--bin {binning}" if fits else "resample the views, or train a network on such"
        raise DdgmError(
            f"{what} has pixels of {size:g} nm, and the network knows images of "
            f"{card.voxel_size:g} nm: {advice}"
        )
    if off > 0.01:
        logging.getLogger("ddgm").warning(
            "pixels are %g nm, and the network knows images of %g nm", size, card.voxel_size
        )


def _of_sinograms(
    source: Path,
    output: Path,
    name: str,
    method: Method,
    patch: int,
    stride: int,
    *,
    noise_std: float | None,
    network: str,
    device: str,
    half: bool,
    seed: int,
    batch: int,
) -> None:
    from ddgm.blending import BlendedDenoiser
    from ddgm.denoiser import Denoiser, load_denoiser
    from ddgm.devices import pick_device
    from ddgm.engine import make_operator
    from ddgm.noise_level import estimate_noise_std
    from ddgm.reconstruction import reconstruct as reconstruct_images
    from ddgm.sinograms import SinogramSet

    if output.suffix != ".npz":
        raise DdgmError(f"--output {output}: of a sinogram set an .npz archive is made")
    if output.exists():
        raise DdgmError(f"{output} exists already; remove it, or choose another name")
    started, where = time.monotonic(), pick_device(device)
    with reading(source, "sinogram set"):
        measured = SinogramSet.load(source)
    operator = make_operator(measured.geometry, where, progress=show_progress())
    denoiser: Denoiser | BlendedDenoiser | None = None
    if method.needs_network:
        denoiser = loaded = load_denoiser(network, where, half=half)
        rows, columns = measured.geometry.image_shape
        unit = loaded.card.architecture.stride
        if max(rows, columns) > patch or rows % unit or columns % unit:
            denoiser = BlendedDenoiser.of(loaded, patch=patch, stride=stride)
    if noise_std is None:
        noise_std = measured.noise_std or estimate_noise_std(operator, measured.sinograms)
    result = reconstruct_images(
        method,
        operator,
        measured.sinograms,
        denoiser,
        noise_std=noise_std,
        seed=seed,
        batch=batch,
        progress=show_progress(),
    )
    result.save(output)
    count, rows, columns = result.images.shape
    print(f"{output}: {count} images of {rows} × {columns} pixels, in the network's units")
    _say(name, method, result.evaluations.network, float(result.data_error.mean()), started)
    print(f"σ_y = {noise_std:.4g}")


def _of_series(
    series: TiltSeries,
    output: Path,
    name: str,
    method: Method,
    card: DenoiserCard,
    *,
    exports: list[Path],
    blending: dict[str, int],
    workers: int | None,
    dtype: str,
    device: str,
    network: str,
    **options: Any,
) -> None:
    from ddgm.cli.export import check_format, export_to
    from ddgm.cluster import ClusterSettings, connect
    from ddgm.volume_reconstruction import Blending, reconstruct_volume

    for path in exports:
        check_format(path)
    if output.exists():
        raise DdgmError(f"{output} exists already; remove it, or choose another name")
    started = time.monotonic()
    output.parent.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    with connect(ClusterSettings(workers=workers), device=device, cores=cores) as found:
        volume = reconstruct_volume(
            series,
            output,
            method,
            found.client,
            card.normalisation,
            network=network if method.needs_network else None,
            blending=Blending(**blending),
            dtype=dtype,
            device=device,
            threads=found.threads,
            progress=show_progress(),
            **options,
        )
    for path in exports:
        export_to(volume, path)
    made: Any = volume.array.attrs["reconstruction"]
    sections, rows, columns = volume.shape
    print(
        f"{output}: {sections} × {rows} × {columns} voxels (tilt axis, depth, lateral) of "
        f"{volume.pixel_size:g} nm, {volume.dtype}"
    )
    for path in exports:
        print(f"{path}: the same, exported")
    error = sum(made["data_error"]) / len(made["data_error"])
    _say(name, method, made["evaluations"]["network"], error, started)


def _say(name: str, method: Method, evaluations: int, error: float, started: float) -> None:
    settings = ", ".join(f"{key}={value:g}" for key, value in vars(method).items())
    print(
        f"{name} ({settings}), {evaluations} evaluations of the network; mean squared data error "
        f"{error:.4g}; took {elapsed(started)}"
    )
    if method.needs_network:
        print(WARNING)
