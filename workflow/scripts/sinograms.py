import torch

from ddgm.console import session
from ddgm.devices import allotted_cores
from ddgm.geometry import TiltGeometry
from ddgm.noise import Purpose
from ddgm.patches import PatchSet
from ddgm.projector import Projector
from ddgm.sinograms import SinogramSet, simulate
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    torch.set_num_threads(allotted_cores(snakemake.threads))
    params = snakemake.params
    images = PatchSet.load(snakemake.input.patches).normalised(
        load_statistics(snakemake.input.statistics)
    )
    geometry = TiltGeometry.from_dict(params.geometry)
    sinograms = simulate(
        Projector(geometry),
        images,
        noise_std=params.noise_std,
        seed=params.seed,
        purpose=Purpose[f"{snakemake.wildcards.set.upper()}_MEASUREMENT"],
    )
    SinogramSet(sinograms, geometry, params.noise_std).save(snakemake.output[0])
