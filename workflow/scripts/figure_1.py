import numpy as np

from ddgm.console import session
from ddgm.figures import save_figure, slab
from ddgm.statistics import load_statistics
from ddgm.tilt_series import open_tilt_series
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    section, normalisation = snakemake.params.section, load_statistics(snakemake.input.statistics)
    series = open_tilt_series(snakemake.input.series)
    paths = [*snakemake.input.volumes, *snakemake.input.truth]
    labels = [*snakemake.params.labels, *["truth" for _ in snakemake.input.truth]]
    images = [np.asarray(open_volume(path).array[section], dtype=np.float32) for path in paths]
    figure = slab(
        series.read(section, section + 1)[0],
        [
            (label, (image - normalisation.mean) / normalisation.std)
            for label, image in zip(labels, images, strict=True)
        ],
        voxel_size=series.voxel_size[2],
        max_tilt=max(series.geometry.angles),
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
