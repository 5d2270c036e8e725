from ddgm.console import session
from ddgm.denoiser import load_denoiser
from ddgm.statistics import save_statistics

with session(snakemake.log[0]):
    save_statistics(load_denoiser(snakemake.input.network).card.normalisation, snakemake.output[0])
