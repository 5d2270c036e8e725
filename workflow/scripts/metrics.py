import pandas as pd

from ddgm.console import session
from ddgm.evaluation import evaluate
from ddgm.patches import PatchSet
from ddgm.reconstruction import Reconstruction
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    truth = PatchSet.load(snakemake.input.patches).normalised(
        load_statistics(snakemake.input.statistics)
    )
    frames = []
    for method, path in zip(snakemake.params.methods, snakemake.input.reconstructions, strict=True):
        frame = evaluate(Reconstruction.load(path), truth)
        frame.insert(0, "method", method)
        frames.append(frame)
    pd.concat(frames).to_csv(snakemake.output[0], index=False)
