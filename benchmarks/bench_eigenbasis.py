"""Computing the eigenbasis of the paper's operator, and reading it back, in processes of their own.

The file's name puts it before the benchmarks that read the basis which it leaves in the cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from ddgm.engine import cached_path
from ddgm.geometry import TiltGeometry

SCRIPT = Path(__file__).with_name("eigenbasis_process.py")


@pytest.fixture
def in_process(cache: Path, device: torch.device) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        # Standard error is not captured: it has the progress bar.
        command = [sys.executable, str(SCRIPT), str(cache), device.type]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        return json.loads(output)

    return run


def test_compute(benchmark: Any, in_process: Callable, device: torch.device) -> None:
    result = benchmark.pedantic(in_process, rounds=1)
    benchmark.extra_info |= {"device": device.type, **result}


@pytest.mark.parametrize("evicted", [False, True], ids=["warm", "evicted"])
def test_load(
    benchmark: Any,
    in_process: Callable,
    device: torch.device,
    geometry: TiltGeometry,
    cache: Path,
    pytestconfig: pytest.Config,
    evicted: bool,
) -> None:
    path = cached_path(geometry, cache)
    if not path.exists():
        pytest.skip("test_compute has to run before: it leaves the file to load")
    if evicted and not hasattr(os, "posix_fadvise"):
        pytest.skip("this system cannot be told to forget a file that it has read")
    rounds = pytestconfig.getoption("rounds")
    results = []

    def forget() -> None:
        if evicted:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    with tqdm(total=rounds, desc="load", unit="process", leave=False) as bar:

        def load() -> None:
            results.append(in_process())
            bar.update()

        benchmark.pedantic(load, setup=forget, rounds=rounds)
    benchmark.extra_info |= {
        "device": device.type,
        "evicted": evicted,
        **{key: [result[key] for result in results] for key in results[0]},
    }
