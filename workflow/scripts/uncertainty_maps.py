import numpy as np

from ddgm.calibration import Scored
from ddgm.console import session
from ddgm.disagreement import by_ambiguity, local_deviation
from ddgm.figures import save_figure, uncertainty_maps
from ddgm.patches import PatchSet
from ddgm.posterior import Posterior
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    made = Posterior.load(snakemake.input.posterior)
    patches = PatchSet.load(snakemake.input.patches)
    truth = patches.normalised(load_statistics(snakemake.input.statistics))[: len(made.mean)]
    # From the clearest image to the most ambiguous one, evenly.
    order = by_ambiguity(local_deviation(made.std.numpy()))
    places = np.linspace(0, len(order) - 1, snakemake.params.images).round().astype(int)
    shown = order[places].tolist()
    scored = Scored.of(made.mean.numpy(), made.std.numpy(), truth.numpy(), made.samples)
    figure = uncertainty_maps(
        truth[shown].numpy(),
        made.mean[shown].numpy(),
        scored.predicted[shown],
        made.consistency[shown].numpy(),
        samples=made.samples,
        voxel_size=patches.voxel_size,
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
