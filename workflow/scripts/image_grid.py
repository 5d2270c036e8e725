from ddgm.console import session
from ddgm.figures import grey_limits, image_grid, save_figure
from ddgm.patches import PatchSet
from ddgm.reconstruction import Reconstruction
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    patches = PatchSet.load(snakemake.input.patches)
    truth = patches.normalised(load_statistics(snakemake.input.statistics)).numpy()
    images = truth
    if snakemake.input.get("images"):
        images = Reconstruction.load(snakemake.input.images).images.numpy()
    figure = image_grid(
        images[slice(*snakemake.params.shown)],
        limits=grey_limits(truth),
        voxel_size=patches.voxel_size,
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
