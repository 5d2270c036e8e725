from ddgm.console import session, show_progress
from ddgm.devices import allotted_cores
from ddgm.export import export_ome_zarr, export_precomputed
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    volume, output = open_volume(snakemake.input[0]), snakemake.output
    settings = {"workers": allotted_cores(snakemake.threads), "progress": show_progress()}
    if output.get("ome_zarr"):
        export_ome_zarr(volume, output.ome_zarr, name=snakemake.params.label, **settings)
    if output.get("precomputed"):
        export_precomputed(volume, output.precomputed, **settings)
