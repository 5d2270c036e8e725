import torch

from ddgm.console import session, show_progress
from ddgm.denoiser import load_denoiser
from ddgm.methods import make_method
from ddgm.projector import Projector
from ddgm.reconstruction import pick_device, reconstruct
from ddgm.sinograms import SinogramSet

with session(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    params = snakemake.params
    settings = snakemake.config["reconstruction"]
    device = pick_device(settings["device"])
    measured = SinogramSet.load(snakemake.input.sinograms)
    network = str(snakemake.input.network)  # empty for a method without a prior
    method = dict(params.method)
    reconstruct(
        make_method(method.pop("method"), method),
        Projector(measured.geometry, device),
        measured.sinograms,
        load_denoiser(network, device) if network else None,
        seed=params.seed,
        batch=settings["batch"],
        progress=show_progress(),
    ).save(snakemake.output[0])
