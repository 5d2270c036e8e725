"""Train the paper's network, and the efficient one with at most its time and operations.

Both get the same patches, noise, schedule and precision. What is compared is the loss at each noise
level and the error of DDGM, on validation images. A run that was interrupted goes on.

Usage: compare_networks.py results/RUN MINUTES TABLE.json [CONFIG.yaml ...]

RUN is a run of the workflow with a training volume, patches and sinograms; the configurations (by
default config/config.yaml and config/fib25.yaml) say how to train, and the last one's network is
the efficient one. MINUTES is the time that the paper's network gets.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from bench_network import operations, training_step
from snakemake.utils import update_config
from torch import Tensor
from tqdm import tqdm

from ddgm.config import architecture_of
from ddgm.denoiser import Denoiser, DenoiserCard, load_denoiser, save_denoiser
from ddgm.engine import make_operator
from ddgm.evaluation import evaluate
from ddgm.methods import make_method
from ddgm.network import Architecture, UNet
from ddgm.noise import ImageNoise, Purpose
from ddgm.patches import PatchSet
from ddgm.reconstruction import reconstruct
from ddgm.sinograms import SinogramSet
from ddgm.statistics import load_statistics
from ddgm.training import collect_losses, train
from ddgm.training_settings import TrainingSettings
from ddgm.volume import open_volume

LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
IMAGES = 32  # validation images for the losses
RECONSTRUCTED = 16  # of them, for DDGM


@dataclass(frozen=True)
class Candidate:
    """A network, and what a step of training it costs."""

    architecture: Architecture
    parameters: int
    operations: float  # a pixel, forward
    seconds: float  # a training step


def read_config(paths: list[str]) -> dict[str, Any]:
    """Merge configurations as Snakemake does."""
    merged: dict[str, Any] = {}
    for path in paths:
        update_config(merged, yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    return merged


def measure(architecture: Architecture, settings: TrainingSettings) -> Candidate:
    """Count operations and time a training step, on one process."""
    torch.manual_seed(0)
    network = UNet(architecture)
    images = torch.randn(settings.batch, settings.patch_size, settings.patch_size)
    step = training_step(network, images, settings.precision == "bf16-mixed")
    times = []
    for _ in range(4):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return Candidate(
        architecture,
        sum(parameter.numel() for parameter in network.parameters()),
        operations(network, images[0]) / images[0].numel(),
        statistics.median(times[1:]),
    )


@torch.no_grad()
def losses_by_level(denoiser: Denoiser, images: Tensor) -> dict[str, float]:
    """Return the mean of (ε − ε_θ)² at each noise level, with the same noise for every network."""
    shape = (images.shape[1], images.shape[2])
    noise = ImageNoise(0, range(len(images)), shape, purpose=Purpose.VALIDATION_LOSS).draw()
    losses = {}
    for sigma in LEVELS:
        parts = [
            (denoiser(image + sigma * field) - field).square().mean()
            for image, field in zip(images.split(8), noise.split(8), strict=True)
        ]
        losses[f"{sigma:g}"] = float(torch.stack(parts).mean())
    return losses


def main() -> None:
    run, minutes, target = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    config = read_config(sys.argv[4:] or ["config/config.yaml", "config/fib25.yaml"])
    paper = read_config(["config/config.yaml"])["network"]
    settings = replace(
        TrainingSettings(**config["training"]), accelerator="cpu", devices=1, samples=0
    )
    normalisation = load_statistics(run / "statistics.json")
    images = PatchSet.load(run / "patches" / "validation.npz").normalised(normalisation)
    measured = SinogramSet.load(run / "sinograms" / "validation.npz")
    operator = make_operator(measured.geometry, progress=True)
    ddgm = dict(config["methods"]["ddgm_50"])
    method = make_method(ddgm.pop("method"), {k: v for k, v in ddgm.items() if k != "label"})

    # Kept, since another timing would give other steps, which are another training.
    timings = target.with_suffix(".timings.json")
    if not timings.exists():
        timings.parent.mkdir(parents=True, exist_ok=True)
        found = [measure(architecture_of(each), settings) for each in (paper, config["network"])]
        timings.write_text(json.dumps([asdict(each) for each in found]))
    full, small = (
        Candidate(**{**each, "architecture": Architecture(**each["architecture"])})
        for each in json.loads(timings.read_text())
    )
    steps = max(1, round(60 * minutes / full.seconds))
    # Better with no more of either is better at equal time and at equal operations.
    fewer = min(full.seconds / small.seconds, full.operations / small.operations)
    trainings = {"paper": (full, steps), "efficient": (small, round(steps * fewer))}
    rows = []
    for name, (candidate, count) in tqdm(trainings.items(), unit="network"):
        folder = target.with_suffix("") / name
        card = DenoiserCard(
            candidate.architecture,
            normalisation,
            config["network"]["sigma_min"],
            config["network"]["sigma_max"],
            open_volume(run / "volumes" / "train.zarr").pixel_size,
        )
        network = train(
            run / "volumes" / "train.zarr",
            card,
            replace(
                settings,
                steps=count,
                warmup=min(settings.warmup, count // 10),
                # An average over a tenth of the training, where that is shorter.
                ema_decay=min(settings.ema_decay, 1 - 10 / max(count, 20)),
                validate_every=max(1, count // 8),
            ),
            folder,
            validation=images[:IMAGES],
        )
        save_denoiser(network, card, folder / "denoiser.safetensors")
        denoiser = load_denoiser(folder / "denoiser.safetensors", half=True)
        result = reconstruct(
            method,
            operator,
            measured.sinograms[:RECONSTRUCTED],
            denoiser,
            noise_std=measured.noise_std,
            seed=config["reconstruction"]["seed"],
            progress=True,
        )
        rows.append(
            {
                "network": name,
                "parameters": candidate.parameters,
                "operations_a_pixel": candidate.operations,
                "steps": count,
                "seconds": count * candidate.seconds,
                "operations": 3
                * candidate.operations
                * count
                * settings.batch
                * settings.patch_size**2,
                "loss": losses_by_level(denoiser, images[:IMAGES]),
                "validation_loss": float(collect_losses(folder)["val_loss"].dropna().iloc[-1]),
                "ddgm_mse": float(evaluate(result, images)["mse"].mean()),
            }
        )
        target.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
