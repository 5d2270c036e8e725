from ddgm.console import session
from ddgm.denoiser import read_card
from ddgm.patches import PatchSet
from ddgm.statistics import check_normalised, save_statistics

with session(snakemake.log[0]):
    normalisation = read_card(snakemake.input.network).normalisation
    check_normalised(PatchSet.load(snakemake.input.patches).normalised(normalisation))
    save_statistics(normalisation, snakemake.output[0])
