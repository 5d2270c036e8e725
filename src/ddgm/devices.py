"""Where to compute."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ddgm.errors import DdgmError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one.

    Raises
    ------
    DdgmError
        If a GPU is asked for and there is none.
    """
    import torch  # seconds, which jobs that only count cores need not wait

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DdgmError("reconstruction: device is cuda, but PyTorch sees no GPU; use auto or cpu")
    return torch.device(name)


def allotted_cores(threads: int) -> int:
    """Return how many cores a job may compute with.

    Snakemake caps the threads of a job by the cores of the machine that it runs on itself; what
    SLURM has given counts.

    Parameters
    ----------
    threads : int
        What Snakemake says, which holds where there is no SLURM.
    """
    granted = int(os.environ.get("SLURM_CPUS_PER_TASK", threads))
    return min(granted, len(os.sched_getaffinity(0)))
