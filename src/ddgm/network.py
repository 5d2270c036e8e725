"""The noise-prediction network ε_θ: a blind U-Net and the family it belongs to."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddgm.errors import DdgmError


@dataclass(frozen=True)
class Architecture:
    """Shape of the U-Net.

    Attributes
    ----------
    widths : tuple of int
        Feature maps at each level of resolution, finest first; each level halves the resolution.
    convolutions : int
        3×3 convolutions in a block.
    groups : int
        Groups of the group normalisation; divides every width.
    """

    widths: tuple[int, ...] = (128, 128, 128, 128, 128)
    convolutions: int = 6
    groups: int = 8

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 or width % self.groups for width in self.widths):
            raise DdgmError(
                f"network: widths {list(self.widths)} must be multiples of groups = {self.groups}"
            )
        if self.convolutions < 1:
            raise DdgmError(f"network: convolutions is {self.convolutions}; it must be at least 1")

    @property
    def stride(self) -> int:
        """Image sizes have to be multiples of this."""
        return 1 << (len(self.widths) - 1)


class Residual(nn.Module):
    """x + up to two convolutions of x, each after normalisation and activation."""

    def __init__(self, width: int, convolutions: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convolutions):
            layers += [
                nn.GroupNorm(groups, width),
                nn.SiLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1),
            ]
        self.layers = nn.Sequential(*layers)
        # Starting each branch at zero makes a deep stack train from the first step.
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to its input."""
        result: Tensor = features + self.layers(features)
        return result


def block(width: int, convolutions: int, groups: int) -> nn.Sequential:
    """Return a block of 3×3 convolutions, in residual pairs (a last odd one stands alone)."""
    pairs, rest = divmod(convolutions, 2)
    return nn.Sequential(
        *(Residual(width, 2, groups) for _ in range(pairs)),
        *(Residual(width, 1, groups) for _ in range(rest)),
    )


class UNet(nn.Module):
    """Blind noise-prediction U-Net (Sec. 3, "Training the denoising network").

    It is not told the noise level. Its input is divided by its own root-mean-square, so that one
    network spans σ from 0.03 to 30 without exploding activations. The paper's network is
    ``UNet(Architecture())``: 128 maps at 5 levels, 6 convolutions a block, 8 million parameters.

    Parameters
    ----------
    architecture : Architecture
        Widths and depth.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths, groups = architecture.widths, architecture.groups
        convolutions = architecture.convolutions
        self.inlet = nn.Conv2d(1, widths[0], 3, padding=1)
        self.down = nn.ModuleList(block(width, convolutions, groups) for width in widths)
        self.narrow = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in itertools.pairwise(widths)
        )
        self.widen = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(block(width, convolutions, groups) for width in widths[:-1])
        self.outlet = nn.Sequential(
            nn.GroupNorm(groups, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 1, 3, padding=1)
        )
        # Convolutions on CPUs and tensor cores are faster with the maps innermost.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Predict the noise of images.

        Parameters
        ----------
        image : Tensor
            (batch, rows, columns), x + σ ε with x normalised to zero mean and unit variance;
            rows and columns multiples of ``architecture.stride``.

        Returns
        -------
        Tensor
            (batch, rows, columns), the prediction of ε.
        """
        stride = self.architecture.stride
        if image.ndim != 3 or image.shape[-2] % stride or image.shape[-1] % stride:
            raise DdgmError(
                f"network: input is {tuple(image.shape)}; it takes (batch, rows, columns) with "
                f"rows and columns multiples of {stride}"
            )
        features = image.unsqueeze(1)
        rms = features.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        # Half precision would round an image by a good part of the smallest noise level, 0.03.
        with torch.autocast(image.device.type, enabled=False):
            features = self.inlet(features / rms.clamp_min(1e-6))
        skips = []
        for level, narrow in enumerate(self.narrow):
            features = self.down[level](features)
            skips.append(features)
            features = narrow(features)
        features = self.down[-1](features)
        for level in reversed(range(len(self.up))):
            features = functional.interpolate(self.widen[level](features), scale_factor=2.0)
            features = self.up[level](features + skips[level])
        noise: Tensor = self.outlet(features)
        return noise.squeeze(1)
