"""The points of a sweep, evaluated one after the other on a set of tilt series."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ddgm.blind import HeldOutViews, held_out_error
from ddgm.denoiser import Denoiser
from ddgm.errors import DdgmError, DivergenceError
from ddgm.evaluation import evaluate
from ddgm.methods import make_method
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
    truth : Tensor
        (at least count, rows, columns) float32.
    denoiser : Denoiser or None
        The prior.
    noise_std : float
        σ_y of the data.
    seed, batch : int
        As `ddgm.reconstruction.reconstruct` takes them.
    held_out : HeldOutViews, optional
        Views to predict from the others, for choosing without the truth.
    held_out_images : int
        Images to do that for, the first ones.
    """

    operator: LinearOperator
    data: Tensor
    truth: Tensor
    denoiser: Denoiser | None
    noise_std: float
    seed: int = 0
    batch: int = 32
    held_out: HeldOutViews | None = None
    held_out_images: int = 0


def evaluate_point(
    candidate: Candidate, inputs: SweepInputs, *, progress: bool = False
) -> pd.DataFrame:
    """Reconstruct the set with one candidate, and compare it with the truth.

    Parameters
    ----------
    candidate : Candidate
        Method and settings.
    inputs : SweepInputs
        Data, operator, network and truth.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row an image: sweep, method, settings (all of them, as JSON), a column for each swept
        parameter, failure (empty), the columns of `ddgm.evaluation.evaluate`, and
        held_out_error, the mean of (Ax − y)² over the views held out, where asked for. If the
        method diverges, one row without image, with the reason as failure: that is a result too.

    Raises
    ------
    DdgmError
        If the settings do not suit operator or network.
    """
    method = make_method(candidate.method, dict(candidate.settings))
    identity = {
        "sweep": candidate.sweep,
        "method": candidate.method,
        "settings": json.dumps(dict(candidate.settings)),
        **candidate.swept,
    }
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
        rows = evaluate(result, inputs.truth).assign(failure="")
        if inputs.held_out is not None:
            errors = held_out_error(
                method,
                inputs.held_out,
                inputs.data[: inputs.held_out_images],
                inputs.denoiser,
                noise_std=inputs.noise_std,
                seed=inputs.seed,
                batch=inputs.batch,
            )
            rows["held_out_error"] = pd.Series(errors.numpy())
    except DivergenceError as error:
        rows = pd.DataFrame({"failure": [str(error)]})
    for at, (name, value) in enumerate(identity.items()):
        rows.insert(at, name, value)
    return rows


def run_points(
    candidates: Sequence[Candidate],
    inputs: SweepInputs,
    directory: Path | str,
    *,
    key: str = "",
    progress: bool = False,
) -> pd.DataFrame:
    """Evaluate the points of a job; after an interruption, only those that are not yet done.

    What is done lies in `directory` until all is. A point that fails leaves the others alone: they
    are finished first.

    Parameters
    ----------
    candidates : sequence of Candidate
        The points.
    inputs : SweepInputs
        What they share.
    directory : path-like
        Where finished points wait for the others.
    key : str
        What else the results depend on (data, network, code): finished points under another key are
        not taken.
    progress : bool
        Show progress bars.

    Returns
    -------
    DataFrame
        The rows of all points.

    Raises
    ------
    DdgmError
        If points failed other than by divergence; the message names the settings of each.
    """
    directory = Path(directory)
    paths = [directory / f"{_digest(candidate, key)}.parquet" for candidate in candidates]
    failures: list[str] = []
    for candidate, path in zip(candidates, paths, strict=True):
        where = f"sweep {candidate.sweep}, {describe(candidate.swept)}"
        if path.exists():
            logger.info("%s: done before", where)
            continue
        try:
            rows = evaluate_point(candidate, inputs, progress=progress)
        except Exception as error:  # whatever it is, the other points have nothing to do with it
            if not isinstance(error, DdgmError):
                logger.exception("%s failed", where)
            failures.append(f"{where}: {type(error).__name__}: {error}".splitlines()[0])
            continue
        logger.info("%s: %s", where, _outcome(rows))
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        rows.to_parquet(partial, index=False)
        os.replace(partial, path)
    if failures:
        raise DdgmError("; ".join(failures))
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def forget_points(candidates: Sequence[Candidate], directory: Path | str, *, key: str = "") -> None:
    """Remove what `run_points` kept of finished points, once their rows are in safety."""
    for candidate in candidates:
        (Path(directory) / f"{_digest(candidate, key)}.parquet").unlink(missing_ok=True)


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
    mse = rows["mse"].to_numpy(dtype=float)
    return f"MSE {mse.mean():.4f} on {len(mse)} images, {rows['seconds'].sum():.1f} s"
