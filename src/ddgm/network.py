"""The noise-prediction network ε_θ: a blind U-Net and the family it belongs to."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddgm.errors import DdgmError, SettingError

NORMALISE = ("convolution", "residual")


@dataclass(frozen=True)
class Architecture:
    """Shape of the U-Net; the defaults are the paper's.

    What makes a network cheaper at equal quality is arithmetic moved from the finest level, where
    each weight is used on every pixel, to the coarse ones: widths that grow with depth, fewer
    convolutions at the finest levels, and `packing`.

    Attributes
    ----------
    widths : tuple of int
        Feature maps at each level of resolution, finest first; each level halves the resolution.
    convolutions : int or tuple of int
        3×3 convolutions in a block: of every level, or of each (kept as a tuple).
    groups : int
        Groups of the group normalisation; divides every width.
    packing : int
        Pixels a side that become the channels of one position of the finest level (space to
        depth), and are unpacked at the end: with 2 the finest level has a quarter of the positions.
    normalise : {"convolution", "residual"}
        Group normalisation before every convolution, or once in each residual branch of two.
    """

    widths: tuple[int, ...] = (128, 128, 128, 128, 128)
    convolutions: int | tuple[int, ...] = 6
    groups: int = 8
    packing: int = 1
    normalise: str = "convolution"

    def __post_init__(self) -> None:
        # Frozen, but lists of a configuration or a file become what the annotations say.
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "convolutions", self.blocks)
        if self.groups < 1:
            raise SettingError("groups", self.groups, "must be at least 1")
        if not self.widths or any(width < 1 or width % self.groups for width in self.widths):
            raise SettingError(
                "widths", self.widths, f"must be multiples of groups = {self.groups}"
            )
        if len(self.blocks) != len(self.widths):
            raise SettingError(
                "convolutions", self.blocks, f"must be one number, or one for each of {self.widths}"
            )
        if min(self.blocks) < 1:
            raise SettingError("convolutions", self.blocks, "must be at least 1 a block")
        if self.packing < 1:
            raise SettingError("packing", self.packing, "must be at least 1")
        if self.normalise not in NORMALISE:
            raise SettingError(
                "normalise", self.normalise, f"must be one of {', '.join(NORMALISE)}"
            )

    @property
    def blocks(self) -> tuple[int, ...]:
        """Convolutions in a block of each level."""
        if isinstance(self.convolutions, int):
            return (self.convolutions,) * len(self.widths)
        return tuple(self.convolutions)

    @property
    def stride(self) -> int:
        """Image sizes have to be multiples of this."""
        return self.packing << (len(self.widths) - 1)


class Residual(nn.Module):
    """x + up to two convolutions of x, each after activation and, as wished, normalisation."""

    def __init__(self, width: int, convolutions: int, architecture: Architecture) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(convolutions):
            if index == 0 or architecture.normalise == "convolution":
                layers.append(nn.GroupNorm(architecture.groups, width))
            layers += [nn.SiLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        # Starting each branch at zero makes a deep stack train from the first step.
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to its input."""
        result: Tensor = features + self.layers(features)
        return result


def block(level: int, architecture: Architecture) -> nn.Sequential:
    """Return a level's block of 3×3 convolutions, in residual pairs (an odd one stands alone)."""
    width, convolutions = architecture.widths[level], architecture.blocks[level]
    pairs, rest = divmod(convolutions, 2)
    return nn.Sequential(
        *(Residual(width, 2, architecture) for _ in range(pairs)),
        *(Residual(width, 1, architecture) for _ in range(rest)),
    )


class UNet(nn.Module):
    """Blind noise-prediction U-Net (Sec. 3, "Training the denoising network").

    It is not told the noise level. Its input is divided by its own root-mean-square, so that one
    network spans σ from 0.03 to 30 without exploding activations. The paper's network is
    ``UNet(Architecture())``: 128 maps at 5 levels, 6 convolutions a block, 8 million parameters.

    Parameters
    ----------
    architecture : Architecture
        Its shape.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths, pixels = architecture.widths, architecture.packing**2
        self.inlet = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(block(level, architecture) for level in range(len(widths)))
        self.narrow = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in itertools.pairwise(widths)
        )
        self.widen = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(block(level, architecture) for level in range(len(widths) - 1))
        self.outlet = nn.Sequential(
            nn.GroupNorm(architecture.groups, widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], pixels, 3, padding=1),
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
        packing = self.architecture.packing
        rms = image.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-6)
        packed = functional.pixel_unshuffle((image / rms).unsqueeze(1), packing)
        # Half precision would round an image by a good part of the smallest noise level, 0.03; the
        # many maps of the inlet do not lose it.
        with torch.autocast(image.device.type, enabled=False):
            features = self.inlet(packed.contiguous(memory_format=torch.channels_last))
        if torch.is_autocast_enabled(image.device.type):
            features = features.to(torch.get_autocast_dtype(image.device.type))
        skips = []
        for level, narrow in enumerate(self.narrow):
            features = self.down[level](features)
            skips.append(features)
            features = narrow(features)
        features = self.down[-1](features)
        for level in reversed(range(len(self.up))):
            features = functional.interpolate(self.widen[level](features), scale_factor=2.0)
            features = self.up[level](features + skips[level])
        noise: Tensor = functional.pixel_shuffle(self.outlet(features), packing)
        return noise.squeeze(1)
