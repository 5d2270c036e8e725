import pytest
import torch

from ddgm.geometry import TiltGeometry
from ddgm.projector import Projector


@pytest.fixture(scope="session")
def projector():
    """A limited-angle projector of 16 × 16 images, quick to apply."""
    return Projector(TiltGeometry.limited_angle((16, 16), views=12))


@pytest.fixture
def images():
    """Five smooth images of 16 × 16 pixels, each of zero mean and unit variance."""
    noise = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(7))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1).squeeze(1)
    smooth = smooth - smooth.mean(dim=(1, 2), keepdim=True)
    return smooth / smooth.std(dim=(1, 2), keepdim=True)
