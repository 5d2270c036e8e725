from pathlib import Path

import torch

from ddgm.console import session, show_progress
from ddgm.denoiser import load_denoiser
from ddgm.devices import allotted_cores, pick_device
from ddgm.engine import make_operator
from ddgm.held_out import HeldOutViews
from ddgm.patches import PatchSet
from ddgm.sinograms import SinogramSet
from ddgm.statistics import load_statistics
from ddgm.sweep_points import Candidate, SweepInputs, fingerprint, run_points

with session(snakemake.log[0]):
    torch.set_num_threads(allotted_cores(snakemake.threads))
    params, settings = snakemake.params, snakemake.config["reconstruction"]
    device = pick_device(settings["device"])
    measured = SinogramSet.load(snakemake.input.sinograms)
    eigenbasis = str(snakemake.input.eigenbasis)  # empty for images too large for one
    network = str(snakemake.input.network)  # empty for a method without a prior
    operator = make_operator(measured.geometry, device, cache=Path(eigenbasis).parent)
    inputs = SweepInputs(
        operator,
        measured.sinograms[: params.images],
        PatchSet.load(snakemake.input.patches).normalised(
            load_statistics(snakemake.input.statistics)
        ),
        load_denoiser(network, device, half=params.precision == "bf16-mixed") if network else None,
        measured.noise_std,
        seed=params.seed,
        batch=settings["batch"],
        held_out=params.blind
        and HeldOutViews.divide(
            operator,
            measured.geometry,
            params.blind["views"],
            cache=Path(str(snakemake.input.held_out)).parent,
        ),
        blind_images=params.blind["images"] if params.blind else 0,
    )
    candidates = [
        Candidate(params.sweep, params.method, point["settings"], point["swept"])
        for point in params.points
    ]
    # The eigenbases follow from the geometry, which lies with the sinograms, and from the code.
    files = [snakemake.input.sinograms, snakemake.input.patches, snakemake.input.statistics]
    shared = (params.images, params.blind, params.precision, params.seed, params.library)
    key = fingerprint([*files, *filter(None, [network])], *shared)
    rows = run_points(candidates, inputs, params.directory, key=key, progress=show_progress())
    rows.to_parquet(snakemake.output.parquet, index=False)
    rows.to_csv(snakemake.output.csv, index=False)
