import torch

from ddgm.console import session, show_progress
from ddgm.devices import allotted_cores
from ddgm.slab_simulation import simulate_series
from ddgm.statistics import load_statistics
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    torch.set_num_threads(allotted_cores(snakemake.threads))
    params = snakemake.params
    simulate_series(
        open_volume(str(snakemake.input.volume)),
        snakemake.output[0],
        load_statistics(snakemake.input.statistics),
        **params.geometry,
        noise_std=params.noise_std,
        seed=params.seed,
        batch=params.batch,
        code=params.library,
        progress=show_progress(),
    )
