"""The full-size network, used and trained, against the machine's own matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddgm.denoiser import Denoiser
from ddgm.network import Architecture, UNet

GEMM = 4096


def product(device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that multiplies two large matrices."""
    left, right = (torch.randn(GEMM, GEMM, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        # PyTorch's convolutions of float32 use TF32 on a GPU, so the product may as well.
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
        torch.mm(left, right)
        torch.set_float32_matmul_precision(before)

    return multiply


def operations(network: UNet, image: torch.Tensor) -> int:
    """Return the operations of a forward pass of one image, (rows, columns)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image[None])
    return counter.get_total_flops()


def training_step(network: UNet, images: torch.Tensor, half: bool) -> Callable[[], None]:
    """Return a function that takes a step of Eq. 1 with Adam, with noise that is in memory."""
    optimizer = torch.optim.Adam(network.parameters())
    noise = torch.randn_like(images)

    @torch.enable_grad()
    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            predicted = network(images + noise)
        loss = (predicted.float() - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("batch", [4, 16])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_network(
    race: Callable, denoiser: Denoiser, device: torch.device, half: bool, batch: int
) -> None:
    denoiser = replace(denoiser, half=half)
    images = torch.randn(batch, 128, 128, device=device)
    dtype = torch.bfloat16 if half else torch.float32
    race(
        lambda: denoiser(images),
        {"gemm": product(device, dtype)},
        half=half,
        batch=batch,
        flops=batch * operations(denoiser.network, images[0]),
        gemm_flops=2 * GEMM**3,
    )


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_training_step(race: Callable, device: torch.device, half: bool) -> None:
    """A step of Eq. 1 with Adam, of patches that are in memory; the loader has a benchmark too."""
    batch = 4 if device.type == "cpu" else 64
    torch.manual_seed(0)
    network = UNet(Architecture()).to(device)
    images = torch.randn(batch, 128, 128, device=device)
    dtype = torch.bfloat16 if half else torch.float32
    race(
        training_step(network, images, half),
        {"gemm": product(device, dtype)},
        half=half,
        batch=batch,
        # Backward passes to the features and to the weights cost one forward pass each.
        flops=3 * batch * operations(network, images[0]),
        gemm_flops=2 * GEMM**3,
    )
