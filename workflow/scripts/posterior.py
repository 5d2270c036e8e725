import json
from pathlib import Path

import torch

from ddgm.console import session, show_progress
from ddgm.denoiser import load_denoiser
from ddgm.devices import allotted_cores, pick_device
from ddgm.engine import make_operator
from ddgm.methods import make_method
from ddgm.posterior import draw_posterior
from ddgm.sinograms import SinogramSet

with session(snakemake.log[0]):
    torch.set_num_threads(allotted_cores(snakemake.threads))
    params, settings = snakemake.params, snakemake.config["reconstruction"]
    device = pick_device(settings["device"])
    measured = SinogramSet.load(snakemake.input.sinograms)
    eigenbasis = str(snakemake.input.eigenbasis)  # empty for images too large for one
    half = params.precision == "bf16-mixed"
    method = dict(params.method)
    if snakemake.input.settings:  # what the sweeps have decided
        choice = json.loads(Path(str(snakemake.input.settings)).read_text(encoding="utf-8"))
        method |= choice["settings"]
    draw_posterior(
        make_method(method.pop("method"), method),
        make_operator(measured.geometry, device, cache=Path(eigenbasis).parent),
        measured.sinograms[: params.images],
        load_denoiser(str(snakemake.input.network), device, half=half),
        noise_std=measured.noise_std,
        samples=params.samples,
        kept=params.kept,
        seed=params.seed,
        batch=settings["batch"],
        progress=show_progress(),
    ).save(snakemake.output[0])
