from ddgm.console import session
from ddgm.denoiser import load_denoiser
from ddgm.patches import PatchSet
from ddgm.statistics import check_normalised, save_statistics

with session(snakemake.log[0]):
    normalisation = load_denoiser(snakemake.input.network).card.normalisation
    check_normalised(PatchSet.load(snakemake.input.patches).normalised(normalisation))
    save_statistics(normalisation, snakemake.output[0])
