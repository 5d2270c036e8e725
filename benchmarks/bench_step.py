"""Steps towards the data: fused in the eigenbasis, looped, and as a user of ASTRA would loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import astra
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddgm.denoiser import Denoiser
from ddgm.engine import make_operator
from ddgm.fused import FusedOperator
from ddgm.geometry import TiltGeometry
from ddgm.projector import Projector

BATCH = 16
STEPS = 25
STEP_SIZE = 9e-5
SIGMA_Y = 4.1
ASTRA_IMAGES, ASTRA_STEPS = 2, 5  # timed; the time is proportional to both

Image = NDArray[np.float32]


class Problem(NamedTuple):
    """Operators, images to start from and what was measured."""

    fused: FusedOperator
    looped: Projector
    images: Tensor
    data: Tensor


@pytest.fixture(scope="module")
def problem(geometry: TiltGeometry, device: torch.device, cache: Path) -> Problem:
    fused = make_operator(geometry, device, cache=cache, progress=True)
    assert isinstance(fused, FusedOperator)
    looped = Projector(geometry, device)
    torch.manual_seed(0)
    rough = torch.randn(BATCH, 1, 32, 32)
    truth = torch.nn.functional.interpolate(rough, scale_factor=4, mode="bicubic")[:, 0]
    truth = truth.to(device)
    data = looped.forward(truth) + SIGMA_Y * torch.randn(BATCH, *geometry.sinogram_shape).to(device)
    return Problem(fused, looped, truth + 0.3 * torch.randn(truth.shape).to(device), data)


def difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / second.norm())


class AstraLoop:
    """Gradient steps with ASTRA's CPU projector, one image at a time.

    Projector, algorithms and data are made once, and the data is linked: ASTRA reads and writes
    these arrays, so that nothing is copied. Steps work in place.
    """

    def __init__(self, geometry: TiltGeometry) -> None:
        volume = astra.create_vol_geom(*geometry.image_shape)
        beams = astra.create_proj_geom(
            "parallel", 1.0, geometry.detector, np.deg2rad(np.asarray(geometry.angles))
        )
        self.image = np.zeros(geometry.image_shape, np.float32)
        self.views = np.zeros(geometry.sinogram_shape, np.float32)
        self.gradient = np.zeros(geometry.image_shape, np.float32)
        self._projector = astra.create_projector("strip", beams, volume)
        image = astra.data2d.link("-vol", volume, self.image)
        views = astra.data2d.link("-sino", beams, self.views)
        gradient = astra.data2d.link("-vol", volume, self.gradient)
        self._data = [image, views, gradient]
        self._forward = self._algorithm("FP", views, VolumeDataId=image)
        self._back = self._algorithm("BP", views, ReconstructionDataId=gradient)

    def _algorithm(self, name: str, views: int, **data: int) -> int:
        settings = astra.astra_dict(name)
        settings |= {"ProjectorId": self._projector, "ProjectionDataId": views, **data}
        return astra.algorithm.create(settings)

    def descend(self, image: Image, data: Image, step_size: float, steps: int) -> Image:
        """Take gradient steps on one image."""
        self.image[:] = image
        for _ in range(steps):
            astra.algorithm.run(self._forward)
            self.views -= data
            astra.algorithm.run(self._back)
            self.gradient *= step_size
            self.image -= self.gradient
        return self.image.copy()

    def close(self) -> None:
        """Give back what ASTRA holds."""
        astra.algorithm.delete([self._forward, self._back])
        astra.data2d.delete(self._data)
        astra.projector.delete(self._projector)


@pytest.fixture(scope="module")
def astra_loop(geometry: TiltGeometry) -> Iterator[AstraLoop]:
    loop = AstraLoop(geometry)
    yield loop
    loop.close()


def test_gradient_steps(
    race: Callable, problem: Problem, astra_loop: AstraLoop, denoiser: Denoiser
) -> None:
    fused, looped, images, data = problem
    right_side, coefficients = looped.right_side(data), fused.right_side(data)
    arrays = images.cpu().numpy(), data.cpu().numpy()
    # On a GPU, V is read twice; on a CPU, V and its transposed copy.
    values = torch.randn(2 * sum(v.numel() for v in fused.eigenbasis.vectors)).to(images.device)

    def loop_astra() -> Tensor:
        pairs = list(zip(*arrays, strict=True))[:ASTRA_IMAGES]
        parts = [astra_loop.descend(x, y, STEP_SIZE, ASTRA_STEPS) for x, y in pairs]
        return torch.from_numpy(np.stack(parts))

    # All candidates compute the same.
    few = looped.descend(images, right_side, STEP_SIZE, ASTRA_STEPS)
    many = looped.descend(images, right_side, STEP_SIZE, STEPS)
    assert difference(loop_astra(), few[:ASTRA_IMAGES].cpu()) < 1e-3
    assert difference(fused.descend(images, coefficients, STEP_SIZE, STEPS), many) < 1e-4
    start, cpu = time.perf_counter(), time.process_time()
    loop_astra()
    cores = (time.process_time() - cpu) / (time.perf_counter() - start)

    race(
        lambda: fused.descend(images, coefficients, STEP_SIZE, STEPS),
        {
            "astra": loop_astra,
            "looped": lambda: looped.descend(images, right_side, STEP_SIZE, STEPS),
            "network": lambda: denoiser(images),
            "read": values.sum,
        },
        scale={"astra": BATCH * STEPS / (ASTRA_IMAGES * ASTRA_STEPS)},
        batch=BATCH,
        steps=STEPS,
        bytes_read=values.nbytes,
        astra_cores=cores,
    )


@pytest.mark.parametrize("sigma", [3.0, 0.3])
def test_proximal_step(race: Callable, problem: Problem, sigma: float) -> None:
    fused, looped, images, data = problem
    right_side, coefficients = looped.right_side(data), fused.right_side(data)
    weight = SIGMA_Y**2 / sigma**2  # c = 1
    exact, _ = fused.proximal(images, coefficients, weight)
    iterated, products = looped.proximal(images, right_side, weight)

    race(
        lambda: fused.proximal(images, coefficients, weight),
        {
            "conjugate_gradients": lambda: looped.proximal(images, right_side, weight),
            "steps": lambda: fused.descend(images, coefficients, STEP_SIZE, STEPS),
        },
        batch=BATCH,
        sigma=sigma,
        products=products,
        difference=difference(iterated, exact),
    )
