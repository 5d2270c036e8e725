from pathlib import Path

from ddgm.console import session
from ddgm.evaluation import evaluate
from ddgm.patches import PatchSet
from ddgm.reconstruction import Reconstruction
from ddgm.statistics import load_statistics
from ddgm.viewer import Shown, viewer

with session(snakemake.log[0]):
    params, shown = snakemake.params, slice(snakemake.params.images)
    patches = PatchSet.load(snakemake.input.patches)
    truth = patches.normalised(load_statistics(snakemake.input.statistics))
    methods = []
    for label, path in zip(params.labels, snakemake.input.reconstructions, strict=True):
        made = Reconstruction.load(path)
        metrics = evaluate(made, truth)[shown]
        measures = {"MSE": metrics["mse"].to_numpy(), "SSIM": metrics["ssim"].to_numpy()}
        methods.append(Shown(label, made.images[shown].numpy(), measures))
    page = viewer(truth[shown].numpy(), methods, voxel_size=patches.voxel_size, title=params.title)
    Path(snakemake.output[0]).write_text(page, encoding="utf-8")
