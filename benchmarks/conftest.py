"""Fixtures of the benchmarks: what is timed, and how candidates are timed against each other.

Only ratios within one run mean anything on a shared machine. A round therefore times the rivals and
then the subject, and rounds alternate, so that whatever slows the machine hits all of them.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from ddgm.denoiser import Denoiser, DenoiserCard, Normalisation
from ddgm.geometry import TiltGeometry
from ddgm.network import Architecture, UNet


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=5, help="rounds (default: 5)")


@pytest.fixture(scope="session", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def geometry() -> TiltGeometry:
    """The paper's: 128 × 128 pixels, 128 tilts over ±60°."""
    return TiltGeometry.limited_angle((128, 128))


@pytest.fixture(scope="session")
def cache(device: torch.device) -> Iterator[Path]:
    """A folder for eigenbases that is empty at first, so that computing them is measured too."""
    with tempfile.TemporaryDirectory(prefix="ddgm-bench-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def denoiser(device: torch.device) -> Denoiser:
    """The full-size network, untrained: how long it takes does not depend on its weights."""
    torch.manual_seed(0)
    network = UNet(Architecture()).to(device).eval().requires_grad_(False)
    return Denoiser(network, DenoiserCard(network.architecture, Normalisation(0, 1), 0.03, 30, 16))


@pytest.fixture
def race(benchmark: Any, device: torch.device, request: pytest.FixtureRequest) -> Callable:
    """A function that times a subject against its rivals, one after the other in every round.

    pytest-benchmark times the subject; the rivals run in its untimed setup of each round. The first
    round warms up and does not count. Rivals' seconds go to ``extra_info``, one a round; those of a
    rival in `scale` are of a part, and the whole takes so many times as long.
    """

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def run(
        subject: Callable,
        rivals: dict[str, Callable],
        scale: dict[str, float] | None = None,
        **facts: object,
    ) -> None:
        scale = scale or {}
        rounds = request.config.getoption("rounds")
        seconds: dict[str, list[float]] = {name: [] for name in rivals}
        bar = tqdm(total=rounds + 1, desc=request.node.name, unit="round", leave=False)

        def time_rivals() -> None:
            for name, rival in rivals.items():
                synchronise()
                start = time.perf_counter()
                rival()
                synchronise()
                seconds[name].append(scale.get(name, 1) * (time.perf_counter() - start))

        def timed() -> None:
            subject()
            synchronise()

        def next_round() -> None:
            bar.update()

        benchmark.extra_info |= {"device": device.type, **facts}
        benchmark.pedantic(
            timed, setup=time_rivals, teardown=next_round, rounds=rounds, warmup_rounds=1
        )
        bar.close()
        benchmark.extra_info["rivals"] = {name: times[1:] for name, times in seconds.items()}

    return run


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Keep what a reader of the results needs; no names of machines, people or folders."""
    cpu = output_json["machine_info"].get("cpu", {})
    output_json["machine_info"] = {
        "cpu": cpu.get("brand_raw", "unknown"),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "amx": "amx_tile" in cpu.get("flags", []),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    output_json["commit_info"] = {
        key: output_json["commit_info"].get(key) for key in ("id", "dirty")
    }
    output_json["benchmarks"] = [
        {
            "name": entry["name"],
            "extra_info": _rounded(entry["extra_info"]),
            "stats": {"unit": "s", "data": _rounded(entry["stats"]["data"])},
        }
        for entry in output_json["benchmarks"]
    ]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
