from pathlib import Path

from ddgm.console import session
from ddgm.figures import prior_samples, save_figure
from ddgm.image_statistics import compare_statistics
from ddgm.pages import page_of_tables
from ddgm.patches import PatchSet
from ddgm.reconstruction import Reconstruction
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    normalisation = load_statistics(snakemake.input.statistics)
    patches = PatchSet.load(snakemake.input.patches)
    real = patches.normalised(normalisation).numpy()
    sets = {
        "generated": Reconstruction.load(snakemake.input.samples).images.numpy(),
        "test": PatchSet.load(snakemake.input.others).normalised(normalisation).numpy(),
        "validation": real,
    }
    statistics = compare_statistics(sets, real)
    statistics.to_csv(snakemake.output.csv, index=False)
    Path(snakemake.output.html).write_text(
        page_of_tables({"": statistics}, "Prior"), encoding="utf-8"
    )
    figure = prior_samples(
        [("real images", real), ("generated images", sets["generated"])],
        voxel_size=patches.voxel_size,
        count=snakemake.params.images,
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
