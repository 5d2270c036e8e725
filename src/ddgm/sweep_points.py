"""The points of a sweep, evaluated one after the other on a set of tilt series."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
from torch import Tensor

from ddgm.archive import replacing
from ddgm.denoiser import Denoiser
from ddgm.errors import DdgmError, DivergenceError
from ddgm.evaluation import evaluate
from ddgm.held_out import HeldOutViews, held_out_error
from ddgm.methods import make_method
from ddgm.noise_level import estimate_noise_std
from ddgm.noise_splitting import split_error
from ddgm.operator import LinearOperator
from ddgm.reconstruction import reconstruct
from ddgm.selection import failed_points
from ddgm.sweep_tables import describe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A method with all its settings, at a point of a sweep.

    Attributes
    ----------
    sweep : str
        Name of the sweep.
    method : str
        Name in `ddgm.methods.METHODS`.
    settings : mapping
        All settings of the method that are not its defaults.
    swept : mapping
        Those among them that the sweep varies.
    """

    sweep: str
    method: str
    settings: Mapping[str, Any]
    swept: Mapping[str, Any]


@dataclass(frozen=True)
class SweepInputs:
    """What all points of a job share: loaded once.

    Attributes
    ----------
    operator : LinearOperator
        The forward operator.
    data : Tensor
        (count, views, detector) float32.
    truth : Tensor or None
        (at least count, rows, columns) float32, where it is known.
    denoiser : Denoiser or None
        The prior.
    noise_std : float
        σ_y of the data.
    seed, batch : int
        As `ddgm.reconstruction.reconstruct` takes them.
    held_out : HeldOutViews, optional
        Views to predict from the others, for choosing without the truth.
    blind_images : int
        Images to do that for, and to split the noise of; the first ones.
    """

    operator: LinearOperator
    data: Tensor
    truth: Tensor | None
    denoiser: Denoiser | None
    noise_std: float
    seed: int = 0
    batch: int = 32
    held_out: HeldOutViews | None = None
    blind_images: int = 0

    @functools.cached_property
    def blind_noise_std(self) -> float:
        """σ_y as those images themselves tell it."""
        return estimate_noise_std(self.operator, self.data[: self.blind_images])


def evaluate_point(
    candidate: Candidate, inputs: SweepInputs, *, progress: bool = False
) -> pd.DataFrame:
    """Reconstruct the set with one candidate, and compare it with data and truth.

    Parameters
    ----------
    candidate : Candidate
        Method and settings.
    inputs : SweepInputs
        Data, operator, network and, where it is known, the truth.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row an image: sweep, method, settings (all of them, as JSON), a column for each swept
        parameter, failure (empty), try_again (False), the columns of `ddgm.evaluation.evaluate`,
        and, with views to hold out, held_out_error, the mean of (Ax − y)² over them, and
        split_error, that of `ddgm.noise_splitting`, for both of which σ_y is estimated from the
        data. If the method diverges, one row without image, with the reason as failure: that is a
        result too.

    Raises
    ------
    DdgmError
        If the settings do not suit operator or network.
    """
    method = make_method(candidate.method, dict(candidate.settings))
    try:
        result = reconstruct(
            method,
            inputs.operator,
            inputs.data,
            inputs.denoiser,
            noise_std=inputs.noise_std,
            seed=inputs.seed,
            batch=inputs.batch,
            progress=progress,
        )
    except DivergenceError as error:
        return _labelled(candidate, pd.DataFrame({"image": [pd.NA], "failure": [str(error)]}))
    rows = evaluate(result, inputs.truth)
    if inputs.held_out is not None:
        data = inputs.data[: inputs.blind_images]
        shared: _Shared = {
            "denoiser": inputs.denoiser,
            "noise_std": inputs.blind_noise_std,
            "seed": inputs.seed,
            "batch": inputs.batch,
        }
        held_out, operator = inputs.held_out, inputs.operator
        measures = {"held_out_error": lambda: held_out_error(method, held_out, data, **shared)}
        if operator.eigenbasis is not None:
            measures["split_error"] = lambda: split_error(method, operator, data, **shared)
        for name, measure in measures.items():
            rows[name] = _unless_diverging(measure, name, len(data))
    return _labelled(candidate, rows)


class _Shared(TypedDict):
    denoiser: Denoiser | None
    noise_std: float
    seed: int
    batch: int


def _unless_diverging(measure: Callable[[], Tensor], name: str, count: int) -> pd.Series[float]:
    """Return a value an image; none where only this measure, not the method as such, diverges."""
    try:
        return pd.Series(measure().numpy())
    except DivergenceError as error:
        logger.warning("%s: %s", name, error)
        return pd.Series([math.nan] * count)


def _labelled(candidate: Candidate, rows: pd.DataFrame, *, try_again: bool = False) -> pd.DataFrame:
    """Put what a point is in front of its results."""
    labels = {
        "sweep": candidate.sweep,
        "method": candidate.method,
        "settings": json.dumps(dict(candidate.settings)),
        **candidate.swept,
        "failure": "",
        "try_again": try_again,
    }
    given = {name: value for name, value in labels.items() if name not in rows}
    rows = rows.assign(**given)
    # Whole numbers stay whole beside points that have none.
    counts = [name for name in rows if name == "image" or str(name).endswith("_evals")]
    rows = rows.astype(dict.fromkeys(counts, "Int64"))
    return rows[[*labels, *(name for name in rows if name not in labels)]]


def run_points(
    candidates: Sequence[Candidate],
    inputs: SweepInputs,
    directory: Path | str,
    *,
    key: str = "",
    progress: bool = False,
) -> pd.DataFrame:
    """Evaluate the points of a job, of which `directory` keeps each as soon as it is done.

    Points that are there already are not computed again: after an interruption, or where they
    belonged to another job. A point that fails leaves the others alone; unless it diverged, it is
    not kept.

    Parameters
    ----------
    candidates : sequence of Candidate
        The points.
    inputs : SweepInputs
        What they share.
    directory : path-like
        Where finished points are kept.
    key : str
        What else the results depend on (data, network, code): points kept under another key are not
        taken.
    progress : bool
        Show progress bars.

    Returns
    -------
    DataFrame
        The rows of all points, as `evaluate_point` returns them. One that failed other than by
        divergence has one row without image, with the reason as failure and try_again set.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    for candidate in candidates:
        where = f"sweep {candidate.sweep}, {describe(candidate.swept)}"
        path = directory / f"{_digest(candidate, key)}.parquet"
        if path.exists():
            logger.info("%s: done before", where)
            found.append(pd.read_parquet(path))
            continue
        try:
            rows = evaluate_point(candidate, inputs, progress=progress)
        except Exception as error:  # whatever it is, the other points have nothing to do with it
            logger.error("%s: %s", where, error, exc_info=not isinstance(error, DdgmError))
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            rows = pd.DataFrame({"image": [pd.NA], "failure": [reason]})
            found.append(_labelled(candidate, rows, try_again=True))
            continue
        logger.info("%s: %s", where, _outcome(rows))
        with replacing(path) as partial:
            rows.to_parquet(partial, index=False)
        found.append(rows)
    return pd.concat(found, ignore_index=True)


def fingerprint(paths: Iterable[Path | str], *values: Any) -> str:
    """Return a digest of files' contents and of plain values."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for path in paths:
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _digest(candidate: Candidate, key: str) -> str:
    values = [candidate.sweep, candidate.method, dict(candidate.settings), key]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def _outcome(rows: pd.DataFrame) -> str:
    failures = failed_points(rows)
    if failures:
        return failures[0][1]
    measure, name = ("MSE", "mse") if "mse" in rows else ("data error", "data_error")
    mean = rows[name].to_numpy(dtype=float).mean()
    return f"{measure} {mean:.4f} on {len(rows)} images, {rows['seconds'].sum():.1f} s"
