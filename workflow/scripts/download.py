from pathlib import Path

from ddgm.config import resolve_address
from ddgm.console import session, show_progress
from ddgm.download import download
from ddgm.errors import DdgmError
from ddgm.precomputed import read_info
from ddgm.volume import Box

with session(snakemake.log[0]):
    params, settings = snakemake.params, snakemake.config["download"]
    limits = {"timeout": settings["timeout"], "retries": settings["retries"]}
    if snakemake.input:  # a volume that was made here
        address = f"file://{Path(snakemake.input[0]).absolute()}"
    else:
        address = resolve_address(snakemake.config, snakemake.wildcards.volume)
    bounds = read_info(address, params.mip, **limits).bounds
    if params.size is not None and tuple(params.size) != bounds.shape:
        raise DdgmError(
            f"config: volumes.{snakemake.wildcards.volume}.size = {params.size}, but the volume at "
            f"{address} has {list(bounds.shape)} voxels at mip {params.mip}"
        )
    box = Box(**params.box) if params.box is not None else bounds
    download(
        address,
        snakemake.output[0],
        mip=params.mip,
        box=box,
        axes=params.axes,
        workers=settings["workers"],
        **limits,
        fill_missing=params.fill_missing,
        progress=show_progress(),
    )
