"""Training patches from a Zarr volume larger than what is held of it, as the trainer gets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tqdm import tqdm

from ddgm.volume import create_volume

SCRIPT = Path(__file__).with_name("loader_process.py")
SHAPE = (256, 1024, 1024)
BATCHES = 10_000


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise over steps of grey: it compresses about as badly as an electron micrograph."""
    path = tmp_path_factory.mktemp("loader") / "volume.zarr"
    made = create_volume(
        path, SHAPE, np.uint8, axes="zyx", voxel_size=(16, 16, 16), origin=(0, 0, 0)
    )
    rng = np.random.default_rng(0)
    for first in tqdm(range(0, SHAPE[0], 64), desc="volume", unit="layer", leave=False):
        block = 120 + 30 * rng.standard_normal((64, *SHAPE[1:]), dtype=np.float32)
        made.array[first : first + 64] = block.clip(0, 255).astype(np.uint8)
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_loader(benchmark: Any, device: torch.device, volume: Path, workers: int) -> None:
    command = [sys.executable, str(SCRIPT), str(volume), str(workers), str(BATCHES)]

    def run() -> dict[str, float]:
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    result = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= {"device": device.type, "workers": workers, **result}
