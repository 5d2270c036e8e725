import numpy as np

from ddgm.console import session
from ddgm.figures import save_figure, slab
from ddgm.statistics import load_statistics
from ddgm.tilt_series import open_tilt_series
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    section, normalisation = snakemake.params.section, load_statistics(snakemake.input.statistics)
    series = open_tilt_series(snakemake.input.series)

    def image(path):
        grey = np.asarray(open_volume(path).array[section], dtype=np.float32)
        return (grey - normalisation.mean) / normalisation.std

    figure = slab(
        series.read(section, section + 1)[0],
        list(zip(snakemake.params.labels, map(image, snakemake.input.volumes), strict=True)),
        truth=image(str(snakemake.input.truth)) if snakemake.input.truth else None,
        voxel_size=series.pixel_size,
        tilts=(series.geometry.angles[0], series.geometry.angles[-1]),
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
