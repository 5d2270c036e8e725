"""Tilt views predicted from a reconstruction of the others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddgm.denoiser import Denoiser
from ddgm.engine import make_operator
from ddgm.geometry import TiltGeometry, divide_views
from ddgm.methods import Method
from ddgm.operator import LinearOperator
from ddgm.reconstruction import reconstruct


@dataclass(frozen=True)
class HeldOutViews:
    """A tilt series divided into views to reconstruct from and views to predict.

    Attributes
    ----------
    whole : LinearOperator
        Of all views.
    kept_operator : LinearOperator
        Of the views to reconstruct from.
    kept, held : tuple of int
        Indices of the views, ascending.
    """

    whole: LinearOperator
    kept_operator: LinearOperator
    kept: tuple[int, ...]
    held: tuple[int, ...]

    @classmethod
    def divide(
        cls,
        whole: LinearOperator,
        geometry: TiltGeometry,
        views: int,
        *,
        cache: Path | str | None = None,
        progress: bool = False,
    ) -> HeldOutViews:
        """Hold out views of a geometry, evenly spread.

        Parameters
        ----------
        whole : LinearOperator
            Of all views of the geometry.
        geometry : TiltGeometry
            Image, tilts and detector.
        views : int
            How many to hold out.
        cache, progress
            As `ddgm.engine.make_operator` takes them, for the operator of the views kept.
        """
        kept, held = divide_views(geometry.views, views)
        operator = make_operator(
            geometry.of_views(kept), whole.device, cache=cache, progress=progress
        )
        return cls(whole, operator, kept, held)


def held_out_error(
    method: Method,
    views: HeldOutViews,
    data: Tensor,
    denoiser: Denoiser | None = None,
    *,
    noise_std: float | None = None,
    seed: int = 0,
    batch: int = 32,
) -> Tensor:
    """Predict held-out views from a reconstruction of the others (cross-validation, Stone 1974).

    Noise of different views is independent, so that the expected error is σ_y² and what the
    reconstruction lacks or invents in the directions that the views see.

    Parameters
    ----------
    method : Method
        The method with its settings. A step size is lengthened by views / kept views, since the
        gradient of fewer views is as much shorter; other settings stay as they are.
    views : HeldOutViews
        How the views are divided.
    data : Tensor
        (count, views, detector) float32, all views.
    denoiser, noise_std, seed, batch
        As `ddgm.reconstruction.reconstruct` takes them.

    Returns
    -------
    Tensor
        (count,) float32, the mean of (Ax − y)² over the views held out.
    """
    step_size = getattr(method, "step_size", None)
    if step_size is not None:
        longer = step_size * data.shape[1] / len(views.kept)
        method = dataclasses.replace(method, step_size=longer)
    result = reconstruct(
        method,
        views.kept_operator,
        data[:, list(views.kept)],
        denoiser,
        noise_std=noise_std,
        seed=seed,
        batch=batch,
    )
    device = views.whole.device
    errors = []
    for images, measured in zip(
        torch.split(result.images, batch), torch.split(data, batch), strict=True
    ):
        residual = views.whole.forward(images.to(device)).cpu() - measured
        errors.append(residual[:, list(views.held)].square().mean(dim=(1, 2)))
    return torch.cat(errors)
