"""Get the eigenbasis of the paper's operator, use it once, and say what that took, as JSON.

Usage: eigenbasis_process.py CACHE DEVICE. What is not in the folder CACHE is computed.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from ddgm.engine import cached_eigenbasis, cached_path
from ddgm.geometry import TiltGeometry


def peak_memory() -> int:
    """Return the most bytes of memory that this process ever held.

    ``ru_maxrss`` starts at what the parent held when it forked; the kernel's own mark does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    cache, device = sys.argv[1:]
    geometry = TiltGeometry.limited_angle((128, 128))
    images = torch.randn(16, *geometry.image_shape).to(device)  # and the GPU has woken up

    start = time.perf_counter()
    basis = cached_eigenbasis(geometry, cache, device=device, progress=True)
    ready = time.perf_counter()
    again = basis.synthesise(basis.analyse(images))
    error = float((again - images).norm() / images.norm())  # waits for the GPU
    used = time.perf_counter()
    peak = peak_memory()
    assert error < 1e-4, error

    path = cached_path(geometry, cache)
    start_plain = time.perf_counter()
    path.read_bytes()
    plain = time.perf_counter() - start_plain
    gpu = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    print(
        json.dumps(
            {
                "ready": ready - start,
                "used": used - start,
                "plain_read": plain,
                "peak_bytes": peak,
                "peak_gpu_bytes": gpu,
                "file_bytes": path.stat().st_size,
            }
        )
    )


if __name__ == "__main__":
    main()
