"""How a network is trained; loads without PyTorch, so that the workflow can ask."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

BANDS = 6  # of noise levels, of which each has a validation loss of its own

# Settings that decide where and how fast a network is trained, not what comes out but for rounding.
INCIDENTAL = frozenset(
    {
        "accelerator",
        "devices",
        "nodes",
        "workers",
        "checkpoint_every",
        "validate_every",
        "log_every",
        "samples",
        "compile",
    }
)


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; the defaults are the paper's.

    Attributes
    ----------
    patch_size : int
        Rows and columns of a training patch.
    batch : int
        Patches a step, over all devices.
    steps : int
        Optimiser steps.
    learning_rate : float
        Of Adam; the highest one of the schedule.
    schedule : {"constant", "cosine"}
        Learning rate after the warm-up: kept, or lowered to zero along a half cosine.
    warmup : int
        Steps over which the learning rate rises from zero.
    ema_decay : float
        Decay a step of the running average of the weights, which is what is kept; 0 for none. It
        rises to this over the first 10/(1 − ema_decay) steps.
    gradient_clip : float
        Largest norm of the gradient; 0 for no limit.
    sigma_min, sigma_max : float
        Noise levels are log-uniform between them.
    precision : str
        Lightning's name of it, such as "32-true" or "bf16-mixed".
    accelerator : str
        "auto", "cpu" or "gpu".
    devices : int or "auto"
        Devices a node.
    nodes : int
        Number of nodes.
    workers : int
        Processes that read patches, a device; 0 reads in the training process.
    checkpoint_every, validate_every, log_every : int
        In steps.
    samples : int
        Images drawn from the prior into TensorBoard whenever the validation loss is computed.
    compile : bool
        Compile the network (`torch.compile`) for the training steps: a minute or two at the start
        for faster steps; rounds differently.
    seed : int
        Of initial weights, patches and noise.
    """

    patch_size: int = 128
    batch: int = 64
    steps: int = 380_000
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: int = 0
    ema_decay: float = 0.0
    gradient_clip: float = 0.0
    sigma_min: float = 0.03
    sigma_max: float = 30.0
    precision: str = "bf16-mixed"
    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    workers: int = 4
    checkpoint_every: int = 1000
    validate_every: int = 5000
    log_every: int = 50
    samples: int = 8
    compile: bool = False
    seed: int = 0

    @property
    def processes(self) -> int:
        """Processes that a cluster is asked to make room for on a node, one a device."""
        return 1 if isinstance(self.devices, str) else self.devices

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide the result; a checkpoint of others is of another run."""
        return {name: value for name, value in asdict(self).items() if name not in INCIDENTAL}


def band_names(low: float, high: float) -> list[str]:
    """Return the columns of the validation losses of bands of noise levels, lowest first.

    Parameters
    ----------
    low, high : float
        Lowest and highest noise level; the bands are equal in log σ.
    """
    edges = [low * (high / low) ** (band / BANDS) for band in range(BANDS + 1)]
    return [f"val_loss_{a:.5g}_to_{b:.5g}" for a, b in itertools.pairwise(edges)]


def band_edges(name: str) -> tuple[float, float]:
    """Return the lowest and the highest noise level of a column that `band_names` named."""
    low, high = name.removeprefix("val_loss_").split("_to_")
    return float(low), float(high)
