"""Choosing settings without the truth, from the measured tilt views alone."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ddgm.denoiser import Denoiser
from ddgm.engine import make_operator
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry, divide_views
from ddgm.methods import Method
from ddgm.operator import LinearOperator
from ddgm.reconstruction import reconstruct
from ddgm.selection import IDENTITY, finished_points, lowest

# Singular values between which A passes hardly any of an image of unit variance, and float32 still
# resolves what it passes.
_BLIND = (0.1, 0.5)


def estimate_noise_std(operator: LinearOperator, data: Tensor) -> float:
    """Estimate the standard deviation σ_y of the noise of tilt views.

    With the eigenbasis of AᵀA, from the components of y along left singular vectors whose singular
    values s are so small that s times an image of unit variance is far below the noise: what is
    seen there is noise. Without, from second differences along views and detector at once, to which
    a smooth sinogram adds little (Immerkær 1996); it comes out a few per cent high.

    Parameters
    ----------
    operator : LinearOperator
        The forward operator A.
    data : Tensor
        (count, views, detector) float32, tilt views of normalised images.

    Returns
    -------
    float
        Estimate of σ_y.

    Raises
    ------
    DdgmError
        If there are fewer than 3 views or detector bins, and no eigenbasis.
    """
    basis = operator.eigenbasis
    if basis is not None:
        s = basis.singular_values
        unseen = (s > _BLIND[0]) & (s < _BLIND[1])
        if int(unseen.sum()) * len(data) >= 1000:
            # Uᵀy = Σ⁻¹ VᵀAᵀy.
            coefficients = operator.right_side(data).double()[:, unseen] / s[unseen]
            return float(coefficients.square().mean().sqrt())
    if min(data.shape[1:]) < 3:
        raise DdgmError(
            f"noise level: {data.shape[1]} views of {data.shape[2]} detector bins are too few; "
            "at least 3 of both are needed"
        )
    rows = data[:, 2:] - 2 * data[:, 1:-1] + data[:, :-2]
    differences = rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2]
    return float(differences.abs().mean()) * math.sqrt(math.pi / 2) / 6


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
        gradient of fewer views is as much shorter.
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
        method = dataclasses.replace(method, step_size=longer)  # type: ignore[type-var]
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


@dataclass(frozen=True)
class BlindChoice:
    """The settings that a rule picks without the truth, and what the truth says of them.

    Attributes
    ----------
    rule : str
        "held-out views" or "discrepancy".
    settings : str
        All settings, as JSON.
    score : float
        What the rule minimises, at these settings.
    mse : float
        Mean squared error there.
    best_settings : str
        Those of the lowest error.
    best_mse : float
        That error.
    """

    rule: str
    settings: str
    score: float
    mse: float
    best_settings: str
    best_mse: float


def scores(rows: pd.DataFrame, noise_std: float) -> pd.DataFrame:
    """Score the points of a sweep by each rule; the lower the better.

    Parameters
    ----------
    rows : DataFrame
        One row an image and point, as `ddgm.sweep_points.evaluate_point` returns them.
    noise_std : float
        σ_y, known or from `estimate_noise_std`.

    Returns
    -------
    DataFrame
        One row a point: the columns of `IDENTITY`, mse, and a column for each rule:

        held-out views
            Mean of (Ax − y)² over views that the reconstruction has not seen.
        discrepancy
            How far the mean of (Ax − y)² over the views that it has seen is from σ_y² (Morozov
            1966), relative to it.
    """
    points = finished_points(rows).groupby(IDENTITY, sort=False)
    means = points[["mse", "data_error", "held_out_error"]].mean().reset_index()
    distance = (means["data_error"] / noise_std**2 - 1).abs()
    return means.rename(columns={"held_out_error": "held-out views"}).assign(discrepancy=distance)


RULES = ("held-out views", "discrepancy")


def choose(rows: pd.DataFrame, noise_std: float) -> list[BlindChoice]:
    """Choose among the points of a sweep by each rule, and compare with the best.

    Parameters
    ----------
    rows, noise_std
        As `scores` takes them.
    """
    table = scores(rows, noise_std)
    best = lowest(table, "mse")
    found = []
    for rule in RULES:
        pick = lowest(table, rule)
        found.append(
            BlindChoice(
                rule,
                pick["settings"],
                float(pick[rule]),
                float(pick["mse"]),
                best["settings"],
                float(best["mse"]),
            )
        )
    return found
