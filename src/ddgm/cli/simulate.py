"""``ddgm simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddgm.cli.common import (
    DEFAULT_NETWORK,
    VOLUME,
    Axes,
    Mip,
    Network,
    Part,
    Seed,
    fetch_volume,
    reading,
    running,
    whole_numbers,
)
from ddgm.console import show_progress
from ddgm.errors import DdgmError

if TYPE_CHECKING:
    from ddgm.denoiser import Normalisation

SYNTHETIC = "synthetic"


def simulate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VOLUME",
            help="A Zarr volume; the address of a precomputed one (gs://, s3://, https://, "
            "file://); a set of images (.npz); or the word synthetic, for tissue made up from the "
            "seed.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="What to make: the folder of a tilt series (.zarr); an MRC stack (.mrc) with its "
            "angles; of images, a sinogram set (.npz).",
        ),
    ],
    views: Annotated[int, typer.Option(min=1, help="Number of tilt views.")] = 128,
    max_tilt: Annotated[
        float, typer.Option(min=0, max=90, help="Views are from minus to plus this tilt, degrees.")
    ] = 60.0,
    detector: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Detector bins, each as wide as a voxel.",
            show_default="as many as the volume has voxels there",
        ),
    ] = None,
    noise_std: Annotated[
        float,
        typer.Option(
            min=0, help="σ_y, standard deviation of the noise for images of unit variance."
        ),
    ] = 4.1,
    seed: Seed = 0,
    network: Network = DEFAULT_NETWORK,
    mip: Mip = 0,
    box: Part = None,
    axes: Axes = "yzx",
    size: Annotated[
        str,
        typer.Option(
            metavar="X,Y,Z", help="Voxels of synthetic tissue, of 16 nm.", rich_help_panel=VOLUME
        ),
    ] = "256,16,128",
) -> None:
    """Simulate the tilt series of a volume: what a reconstruction can be compared with.

    Values are line integrals of grey values; the network says what unit variance is. A volume that
    is not on this disk, and a synthetic one, is kept beside the output as NAME.volume.zarr: the
    truth, for ddgm evaluate.
    """
    with running():
        from ddgm.denoiser import read_card
        from ddgm.mrc import export_stack
        from ddgm.slab_simulation import simulate_series

        card = read_card(network)
        if output.suffix == ".npz" or source.endswith(".npz"):
            normalisation = card.normalisation
            _of_images(source, output, normalisation, noise_std, seed, views, max_tilt, detector)
            return
        if output.suffix not in (".zarr", ".mrc", ".st"):
            raise DdgmError(f"--output {output}: a name ending with .zarr or .mrc is needed")
        output.parent.mkdir(parents=True, exist_ok=True)
        truth = output.with_suffix(".volume.zarr")
        if source == SYNTHETIC:
            source, axes = _synthetic(size, seed, output), "yzx"
        volume = fetch_volume(source, truth, mip=mip, box=box, axes=axes, progress=show_progress())
        stack = output if output.suffix != ".zarr" else None
        if stack is not None and stack.exists():
            raise DdgmError(f"{stack} exists already; remove it, or choose another name")
        path = output if stack is None else output.with_suffix(".zarr")
        series = simulate_series(
            volume,
            path,
            card.normalisation,
            views=views,
            max_tilt=max_tilt,
            detector=detector,
            noise_std=noise_std,
            seed=seed,
            progress=show_progress(),
        )
        sections, bins = series.sections, series.geometry.detector
        print(
            f"{path}: tilt series of {sections} sections × {views} views × {bins} detector bins of "
            f"{series.pixel_size:g} nm, tilts of −{max_tilt:g}° to {max_tilt:g}°"
        )
        if stack is not None:
            export_stack(series, stack, progress=show_progress())
            print(f"{stack}: the same as a stack; its angles are in {stack.with_suffix('.tlt')}")
        if truth.exists():
            print(f"{truth}: the volume")


def _synthetic(size: str, seed: int, output: Path) -> str:
    """Make tissue up, and return its folder."""
    from ddgm.synthetic import make_volume, write_precomputed

    folder = output.with_suffix(".precomputed")
    if not folder.exists():
        shape = whole_numbers(size, "--size")
        if isinstance(shape, int) or len(shape) != 3:
            raise DdgmError(f"--size {size}: three whole numbers are needed, x, y, z")
        write_precomputed(make_volume(shape, seed=seed), folder)
    return f"file://{folder.absolute()}"


def _of_images(
    source: str,
    output: Path,
    normalisation: Normalisation,
    noise_std: float,
    seed: int,
    views: int,
    max_tilt: float,
    detector: int | None,
) -> None:
    """Simulate the tilt views of a set of images."""
    from ddgm.geometry import TiltGeometry
    from ddgm.patches import PatchSet
    from ddgm.projector import Projector
    from ddgm.sinograms import SinogramSet
    from ddgm.sinograms import simulate as simulate_views

    if not (output.suffix == ".npz" and source.endswith(".npz")):
        raise DdgmError(
            f"{source} to {output}: a set of images (.npz) becomes a sinogram set (.npz), and a "
            "volume a tilt series (.zarr, .mrc)"
        )
    if output.exists():
        raise DdgmError(f"{output} exists already; remove it, or choose another name")
    with reading(source, "set of images"):
        images = PatchSet.load(source).normalised(normalisation)
    rows, columns = images.shape[1:]
    geometry = TiltGeometry.limited_angle(
        (rows, columns), views=views, max_tilt=max_tilt, detector=detector
    )
    sinograms = simulate_views(Projector(geometry), images, noise_std=noise_std, seed=seed)
    SinogramSet(sinograms, geometry, noise_std).save(output)
    print(
        f"{output}: sinograms of {len(images)} images of {rows} × {columns} pixels, {views} views, "
        f"tilts of −{max_tilt:g}° to {max_tilt:g}°"
    )
