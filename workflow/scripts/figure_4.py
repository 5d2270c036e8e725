from ddgm.console import session
from ddgm.figures import comparison, save_figure
from ddgm.patches import PatchSet
from ddgm.reconstruction import Reconstruction
from ddgm.sinograms import SinogramSet
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    params, shown = snakemake.params, slice(snakemake.params.images)
    patches = PatchSet.load(snakemake.input.patches)
    measured = SinogramSet.load(snakemake.input.sinograms)
    columns = [
        (label, Reconstruction.load(path).images[shown].numpy())
        for label, path in zip(params.labels, snakemake.input.reconstructions, strict=True)
    ]
    figure = comparison(
        patches.normalised(load_statistics(snakemake.input.statistics))[shown].numpy(),
        measured.sinograms[shown].numpy(),
        columns,
        voxel_size=patches.voxel_size,
        max_tilt=max(measured.geometry.angles),
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
