import torch

from ddgm.console import session, show_progress
from ddgm.denoiser import Architecture, DenoiserCard, save_denoiser
from ddgm.patches import PatchSet
from ddgm.statistics import load_statistics
from ddgm.training import TrainingSettings, collect_losses, train
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    params, normalisation = snakemake.params, load_statistics(snakemake.input.statistics)
    card = DenoiserCard(
        Architecture(tuple(params.network["widths"]), params.network["convolutions"]),
        normalisation,
        params.network["sigma_min"],
        params.network["sigma_max"],
        voxel_size=open_volume(snakemake.input.volume).voxel_size[1],
    )
    network = train(
        snakemake.input.volume,
        card,
        TrainingSettings(**params.training),
        params.directory,
        validation=PatchSet.load(snakemake.input.validation).normalised(normalisation),
        progress=show_progress(),
    )
    collect_losses(params.directory).to_csv(snakemake.output.losses, index=False)
    save_denoiser(network, card, snakemake.output.network)
