from ddgm.console import session
from ddgm.synthetic import make_volume, write_precomputed

with session(snakemake.log[0]):
    settings = snakemake.params.synthetic
    volume = make_volume(tuple(settings["size"]), seed=settings["seed"])
    write_precomputed(volume, snakemake.output[0])
