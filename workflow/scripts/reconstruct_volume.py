import json
from pathlib import Path

from ddgm.cluster import connect
from ddgm.config import cluster_settings
from ddgm.console import session, show_progress
from ddgm.devices import allotted_cores
from ddgm.methods import make_method
from ddgm.statistics import load_statistics
from ddgm.tilt_series import open_tilt_series
from ddgm.volume_reconstruction import Blending, reconstruct_volume


def main():
    params, settings = snakemake.params, snakemake.config["reconstruction"]
    method = dict(params.method)
    if snakemake.input.settings:  # what the sweeps have decided
        choice = json.loads(Path(str(snakemake.input.settings)).read_text(encoding="utf-8"))
        method |= choice["settings"]
    with connect(
        cluster_settings(snakemake.config),
        device=settings["device"],
        cores=allotted_cores(snakemake.threads),
        folder=Path(snakemake.output[0]).parent,
    ) as workers:
        reconstruct_volume(
            open_tilt_series(snakemake.input.series),
            snakemake.output[0],
            make_method(method.pop("method"), method),
            workers.client,
            load_statistics(snakemake.input.statistics),
            network=str(snakemake.input.network) or None,  # empty for a method without a prior
            half=params.precision == "bf16-mixed",
            blending=Blending(**params.blending),
            seed=params.seed,
            batch=params.batch,
            dtype=params.dtype,
            device=settings["device"],
            threads=workers.threads,
            code=params.library,
            progress=show_progress(),
        )


# Workers are processes that load this file as well.
if __name__ == "__main__":
    with session(snakemake.log[0]):
        main()
