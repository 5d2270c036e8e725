"""Draw batches as the trainer does, and print patches a second and memory over time as JSON.

Usage: loader_process.py VOLUME WORKERS BATCHES
"""

from __future__ import annotations

import json
import sys
import time

import psutil
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from ddgm.denoiser import Normalisation
from ddgm.patches import StepSampler, TrainingPatches

BATCH = 16
SIZE = 128


def memory() -> int:
    """Return the bytes that this process and its workers hold for themselves."""
    own = psutil.Process()
    return sum(each.memory_full_info().uss for each in [own, *own.children(recursive=True)])


def main() -> None:
    path, workers, batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    patches = TrainingPatches(path, SIZE, Normalisation(120.0, 30.0), seed=0)
    loader = DataLoader(patches, batch_sampler=StepSampler(BATCH), num_workers=workers)
    feed = iter(loader)
    next(feed)
    held, started = [], time.perf_counter()
    for step in tqdm(range(1, batches + 1), desc="loader", unit="batch", mininterval=1):
        batch = next(feed)
        if step % (batches // 10) == 0:
            held.append(memory())
    seconds = time.perf_counter() - started
    assert batch.shape == (BATCH, SIZE, SIZE)
    print(json.dumps({"rate": batches * BATCH / seconds, "memory": held}))


if __name__ == "__main__":
    main()
