from ddgm.console import session
from ddgm.disagreement import by_ambiguity, local_deviation, marking_level
from ddgm.figures import save_figure, several_runs
from ddgm.patches import PatchSet
from ddgm.posterior import Posterior
from ddgm.reconstruction import Reconstruction
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    made = Posterior.load(snakemake.input.posterior)
    patches = PatchSet.load(snakemake.input.patches)
    truth = patches.normalised(load_statistics(snakemake.input.statistics))
    local = local_deviation(made.std.numpy())
    order = by_ambiguity(local)
    shown = [int(order[0]), int(order[-1])]  # the clearest image and the most ambiguous one
    figure = several_runs(
        truth[shown].numpy(),
        Reconstruction.load(snakemake.input.algebraic).images[shown].numpy(),
        made.runs[shown].numpy(),
        local[shown],
        marking_level(local),
        voxel_size=patches.voxel_size,
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
