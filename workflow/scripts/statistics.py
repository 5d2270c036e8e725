from ddgm.console import session, show_progress
from ddgm.statistics import save_statistics, volume_statistics
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    volume = open_volume(snakemake.input.volume)
    save_statistics(volume_statistics(volume, progress=show_progress()), snakemake.output[0])
