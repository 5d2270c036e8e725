"""``ddgm evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddgm.cli.common import DEFAULT_NETWORK, Network, reading, running
from ddgm.errors import DdgmError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "mse": ("MSE ↓", 4),
    "psnr": ("PSNR ↑ dB", 2),
    "ssim": ("SSIM ↑", 3),
    "data_error": ("data error", 2),
}


def evaluate(
    truth: Annotated[
        Path, typer.Argument(help="The true volume (.zarr), or the true images (.npz).")
    ],
    reconstructions: Annotated[
        list[Path],
        typer.Argument(
            help="Reconstructions to compare with it, of the same shape, .zarr or .npz."
        ),
    ],
    csv: Annotated[
        Path | None, typer.Option(help="Write one row a section or image and reconstruction here.")
    ] = None,
    network: Network = DEFAULT_NETWORK,
) -> None:
    """Compare reconstructions with the truth: mean and standard error over sections or images.

    Errors are in units of the standard deviation of the network's grey values, as in the paper's
    Table 1. PSNR and SSIM are of the range of the truth. The data error is the mean of (Ax − y)²
    over the views; without the noise's share, σ_y², it would be nothing.
    """
    with running():
        import pandas as pd
        from rich import box
        from rich.console import Console
        from rich.table import Table

        frames = {str(path): _metrics(truth, path, network) for path in reconstructions}
        if csv is not None:
            csv.parent.mkdir(parents=True, exist_ok=True)
            whole = pd.concat(frames, names=["reconstruction"]).reset_index("reconstruction")
            whole.to_csv(csv, index=False)
        table = Table(box=box.SIMPLE)
        table.add_column("", overflow="fold", min_width=14)
        for title, _ in COLUMNS.values():
            table.add_column(title, justify="right", no_wrap=True)
        for name, frame in frames.items():
            cells = [_cell(frame[column], digits) for column, (_, digits) in COLUMNS.items()]
            table.add_row(name, *cells)
        Console().print(table)
        count = max(map(len, frames.values()))
        what = "images" if truth.suffix == ".npz" else "sections"
        print(f"mean ± standard error of {count} {what}")
        if csv is not None:
            print(f"{csv}: one row for each of them")


def _cell(values: pd.Series[float], digits: int) -> str:
    numbers = values.to_numpy(dtype=float)
    mean = f"{numbers.mean():.{digits}f}"
    if len(numbers) == 1:
        return mean
    return f"{mean} ± {numbers.std(ddof=1) / math.sqrt(len(numbers)):.{digits}f}"


def _metrics(truth: Path, path: Path, network: str) -> pd.DataFrame:
    from ddgm.denoiser import Normalisation, read_card
    from ddgm.evaluation import evaluate as evaluate_images
    from ddgm.evaluation import evaluate_volume
    from ddgm.patches import PatchSet
    from ddgm.reconstruction import Reconstruction
    from ddgm.volume import open_volume

    if (truth.suffix == ".npz") != (path.suffix == ".npz"):
        raise DdgmError(f"{path} and {truth} are of different kinds: .zarr and .zarr, or both .npz")
    if path.suffix == ".npz":
        with reading(truth, "set of images"):
            images = PatchSet.load(truth).normalised(read_card(network).normalisation)
        with reading(path, "reconstruction"):
            result = Reconstruction.load(path)
        return evaluate_images(result, images)
    volume = open_volume(path)
    made = volume.array.attrs.get("reconstruction")
    if not isinstance(made, dict):
        raise DdgmError(f"{path} is no reconstruction: it does not say how it was made")
    normalisation = Normalisation(**made["normalisation"])
    return evaluate_volume(volume, open_volume(truth), normalisation)
