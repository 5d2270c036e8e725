from pathlib import Path

import torch

from ddgm.console import session, show_progress
from ddgm.devices import allotted_cores, pick_device
from ddgm.engine import cached_eigenbasis
from ddgm.geometry import TiltGeometry

with session(snakemake.log[0]):
    torch.set_num_threads(allotted_cores(snakemake.threads))
    cached_eigenbasis(
        TiltGeometry.from_dict(snakemake.params.geometry),
        Path(snakemake.output[0]).parent,
        device=pick_device(snakemake.config["reconstruction"]["device"]),
        progress=show_progress(),
    )
