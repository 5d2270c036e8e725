from dataclasses import replace

import torch

from ddgm.config import architecture_of
from ddgm.console import session, show_progress
from ddgm.denoiser import DenoiserCard, save_denoiser
from ddgm.devices import allotted_cores
from ddgm.node_tasks import run_on_nodes
from ddgm.patches import PatchSet
from ddgm.statistics import load_statistics
from ddgm.training import (
    collect_losses,
    discard_checkpoints,
    first_process,
    train,
)
from ddgm.training_settings import TrainingSettings
from ddgm.volume import open_volume


def main():
    torch.set_num_threads(allotted_cores(snakemake.threads))
    params, normalisation = snakemake.params, load_statistics(snakemake.input.statistics)
    card = DenoiserCard(
        architecture_of(params.network),
        normalisation,
        params.network["sigma_min"],
        params.network["sigma_max"],
        voxel_size=open_volume(snakemake.input.volume).pixel_size,
        about=snakemake.config["network"]["about"],
    )
    network = train(
        snakemake.input.volume,
        card,
        settings,
        params.directory,
        validation=PatchSet.load(snakemake.input.validation).normalised(normalisation),
        progress=show_progress(),
    )
    if first_process():
        save_denoiser(network, card, snakemake.output.network)
        collect_losses(params.directory).to_csv(snakemake.output.losses, index=False)
        discard_checkpoints(params.directory)


settings = TrainingSettings(**snakemake.config["training"])
if settings.nodes > 1:
    settings = replace(settings, devices=settings.processes)  # what the job has asked for
# For each further device Lightning runs this file again, for each further node SLURM does.
with session(snakemake.log[0] if first_process() else None):
    if not run_on_nodes(settings.nodes, settings.devices, snakemake.resources.cpus_per_task):
        main()
