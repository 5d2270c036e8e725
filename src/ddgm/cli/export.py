"""``ddgm export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddgm.cli.common import running
from ddgm.console import show_progress
from ddgm.errors import DdgmError

if TYPE_CHECKING:
    from ddgm.volume import Volume


def export(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A Zarr volume, or a tilt series (to .mrc).")
    ],
    output: Annotated[
        Path,
        typer.Argument(
            help="Where to: .mrc (a tilt series' angles go to a .tlt beside it), .ome.zarr or "
            ".precomputed (Neuroglancer)."
        ),
    ],
) -> None:
    """Write a volume or a tilt series for other programs, with its voxel size."""
    with running():
        from ddgm.mrc import export_stack
        from ddgm.tilt_series import DIMENSIONS, open_tilt_series
        from ddgm.volume import open_array, open_volume

        check_format(output)
        array = open_array(source, "volume or tilt series", "r")
        if getattr(array.metadata, "dimension_names", None) == DIMENSIONS:
            if output.suffix not in (".mrc", ".st", ".ali"):
                raise DdgmError(f"{output}: a tilt series is written as .mrc, .st or .ali")
            export_stack(open_tilt_series(source), output, progress=show_progress())
        else:
            export_to(open_volume(source), output)
        print(output)


def check_format(path: Path) -> None:
    """Refuse a name that stands for no format, or one that is taken."""
    from ddgm.mrc import is_mrc

    if not (is_mrc(path) or path.name.endswith((".ome.zarr", ".precomputed"))):
        raise DdgmError(f"{path}: export to .mrc, .ome.zarr or .precomputed")
    if path.exists():
        raise DdgmError(f"{path} exists already; remove it, or choose another name")


def export_to(volume: Volume, path: Path) -> None:
    """Write a volume in the format that a name stands for."""
    from ddgm.export import export_ome_zarr, export_precomputed
    from ddgm.mrc import export_volume, is_mrc

    if is_mrc(path):
        export_volume(volume, path, progress=show_progress())
    elif path.name.endswith(".ome.zarr"):
        export_ome_zarr(volume, path, progress=show_progress())
    else:
        export_precomputed(volume, path, progress=show_progress())
