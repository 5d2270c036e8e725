"""The forward pass of the full-size network against the machine's own matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddgm.denoiser import Denoiser

GEMM = 4096


@pytest.mark.parametrize("batch", [4, 16])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_network(
    race: Callable, denoiser: Denoiser, device: torch.device, half: bool, batch: int
) -> None:
    denoiser = replace(denoiser, half=half)
    images = torch.randn(batch, 128, 128, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        denoiser(images[:1])
    dtype = torch.bfloat16 if half else torch.float32
    left, right = (torch.randn(GEMM, GEMM, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        # PyTorch's convolutions of float32 use TF32 on a GPU, so the product may as well.
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
        torch.mm(left, right)
        torch.set_float32_matmul_precision(before)

    race(
        lambda: denoiser(images),
        {"gemm": multiply},
        half=half,
        batch=batch,
        flops=batch * counter.get_total_flops(),
        gemm_flops=2 * GEMM**3,
    )
