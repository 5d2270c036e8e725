from pathlib import Path

import numpy as np

from ddgm.calibration import Scored
from ddgm.console import session
from ddgm.evaluation import evaluate
from ddgm.patches import PatchSet
from ddgm.posterior import Posterior
from ddgm.reconstruction import Reconstruction
from ddgm.statistics import load_statistics
from ddgm.viewer import Shown, viewer

with session(snakemake.log[0]):
    params, first = snakemake.params, slice(snakemake.params.images)
    patches = PatchSet.load(snakemake.input.patches)
    truth = patches.normalised(load_statistics(snakemake.input.statistics))

    def shown(label, made, **overlays):
        metrics = evaluate(made, truth)[first]
        measures = {"MSE": metrics["mse"].to_numpy(), "SSIM": metrics["ssim"].to_numpy()}
        maps = {name: np.asarray(each[first]) for name, each in overlays.items()}
        return Shown(label, made.images[first].numpy(), measures, maps)

    methods = [
        shown(label, Reconstruction.load(path))
        for label, path in zip(params.labels, snakemake.input.reconstructions, strict=True)
    ]
    for label, path in zip(params.sampled, snakemake.input.posteriors, strict=True):
        runs = Posterior.load(path)
        mean = Reconstruction(runs.mean, runs.data_error, runs.seconds, runs.evaluations)
        label = f"{label}, mean of {runs.samples}"
        known = truth[: len(runs.mean)].numpy()
        scored = Scored.of(runs.mean.numpy(), runs.std.numpy(), known, runs.samples)
        methods.append(shown(label, mean, uncertainty=scored.predicted))
    page = viewer(truth[first].numpy(), methods, voxel_size=patches.voxel_size, title=params.title)
    Path(snakemake.output[0]).write_text(page, encoding="utf-8")
