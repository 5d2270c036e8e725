from ddgm.console import session
from ddgm.metrics import image_metrics
from ddgm.patches import PatchSet
from ddgm.reconstruction import Reconstruction
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    truth = PatchSet.load(snakemake.input.patches).normalised(
        load_statistics(snakemake.input.statistics)
    )
    result = Reconstruction.load(snakemake.input.reconstruction)
    metrics = image_metrics(result.images, truth)
    metrics.insert(0, "method", snakemake.wildcards.method)
    metrics["gradient_evals"] = result.evaluations.gradient
    metrics["network_evals"] = result.evaluations.network
    metrics.to_csv(snakemake.output[0], index=False)
