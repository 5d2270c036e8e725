import torch

from ddgm.console import session, show_progress
from ddgm.devices import pick_device
from ddgm.evaluation import algebraic_curve
from ddgm.figures import save_figure, steps_curve
from ddgm.patches import PatchSet
from ddgm.projector import Projector
from ddgm.sinograms import SinogramSet
from ddgm.statistics import load_statistics

with session(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    params, settings = snakemake.params, snakemake.config["reconstruction"]
    measured = SinogramSet.load(snakemake.input.sinograms)
    curve = algebraic_curve(
        params.steps,
        params.step_size,
        Projector(measured.geometry, pick_device(settings["device"])),
        measured.sinograms,
        PatchSet.load(snakemake.input.patches).normalised(
            load_statistics(snakemake.input.statistics)
        ),
        batch=settings["batch"],
        progress=show_progress(),
    )
    curve.to_csv(snakemake.output.csv, index=False)
    save_figure(steps_curve(curve), snakemake.output.pdf, snakemake.output.png)
