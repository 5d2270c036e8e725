from ddgm.console import session
from ddgm.patches import extract_patches
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    params = snakemake.params
    extract_patches(
        open_volume(snakemake.input.volume),
        name=snakemake.wildcards.set,
        size=params.size,
        count=params.images,
        gap=params.gap,
        seed=params.seed,
    ).save(snakemake.output[0])
