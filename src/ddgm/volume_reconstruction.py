"""Reconstruction of a slab larger than memory: its sections in batches, by the workers of Dask.

A section is a two-dimensional problem of its own, so that batches of sections are all that has to
be divided; docs/volumes.md says why a section is not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ddgm.blending import BlendedDenoiser
from ddgm.denoiser import Normalisation, load_denoiser
from ddgm.devices import pick_device
from ddgm.engine import make_operator
from ddgm.errors import DdgmError, SettingError
from ddgm.methods import METHODS, Evaluations, Method, Problem, check_noise_levels
from ddgm.noise import ImageNoise
from ddgm.noise_level import estimate_noise_std
from ddgm.operator import LinearOperator
from ddgm.pretrained import network_path
from ddgm.reconstruction import data_error
from ddgm.sinograms import normalise_measurement
from ddgm.tilt_series import TiltSeries, open_tilt_series
from ddgm.volume import Volume, create_volume, open_volume
from ddgm.workplace import Workplace

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

DTYPES = ("uint8", "float32")
TOPIC = "ddgm-progress"
_SECTIONS_FOR_NOISE = 8
_PATIENCE = 300.0  # seconds without a worker at work, until something is said or done
_GLANCE = 0.1  # seconds from one look at what is finished to the next


@dataclass(frozen=True)
class Blending:
    """How a slab is divided into the network's patches (Eq. 7).

    Attributes
    ----------
    patch, stride : int
        Pixels of a patch, and from one to the next.
    batch : int
        Patches that go through the network at a time.
    """

    patch: int = 128
    stride: int = 96
    batch: int = 16


@dataclass(frozen=True)
class Job:
    """All that a worker has to know to reconstruct some sections.

    Attributes
    ----------
    series : Path
        The tilt series.
    series_identity : str
        `TiltSeries.identity`: a worker may have read another one of that name before.
    workplace : Workplace
        Of the volume.
    method : Method
        The method with its settings.
    network : Path or None
        File of the network.
    network_digest : str or None
        Of the file's content.
    half : bool
        Whether the network computes in bfloat16.
    blending : Blending
        Of the network's patches.
    normalisation : Normalisation
        Of grey values.
    noise_std : float or None
        σ_y of normalised images.
    seed : int
        Of the method's noise.
    device : str
        "auto", "cpu" or "cuda".
    threads : int or None
        Of a worker; those that PyTorch takes by itself if None.
    """

    series: Path
    series_identity: str
    workplace: Workplace
    method: Method
    network: Path | None
    network_digest: str | None
    half: bool
    blending: Blending
    normalisation: Normalisation
    noise_std: float | None
    seed: int
    device: str
    threads: int | None


def reconstruct_volume(
    series: TiltSeries,
    path: Path | str,
    method: Method,
    client: Client,
    normalisation: Normalisation,
    *,
    network: Path | str | None = None,
    half: bool = False,
    blending: Blending | None = None,
    noise_std: float | None = None,
    seed: int = 0,
    batch: int = 8,
    dtype: str = "uint8",
    device: str = "auto",
    threads: int | None = None,
    code: str | None = None,
    progress: bool = False,
) -> Volume:
    """Reconstruct a slab from its tilt series; goes on where it was interrupted.

    Workers read and write their sections themselves, so that they need the same paths as this
    process. The result does not depend on which worker does what, nor on interruptions: on a CPU to
    the bit, and on `batch` only by rounding.

    Parameters
    ----------
    series : TiltSeries
        Line integrals of grey values.
    path : path-like
        Folder of the volume; it appears when it is complete. Until then it is made beside it, in
        ``<path>.partial``.
    method : Method
        The method with its settings.
    client : distributed.Client
        Of the scheduler whose workers are to do it.
    normalisation : Normalisation
        Of grey values: that of the network.
    network : path-like, optional
        File or name of the network, where the method needs one.
    half : bool
        Let the network compute in bfloat16.
    blending : Blending, optional
        Of the network's patches.
    noise_std : float, optional
        Standard deviation of the noise in grey values × pixels; by default that which the series
        states or, if it states none, an estimate from its first sections.
    seed : int
        Of the method's noise, which is a function of it, of iteration, section, row and column.
    batch : int
        Sections at a time in a worker.
    dtype : str
        "uint8", rounded and clipped to 0 to 255, or "float32".
    device : str
        "auto", "cpu" or "cuda".
    threads : int, optional
        Threads of a worker.
    code : str, optional
        What identifies the code that does it; unfinished work of other code is not gone on with.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Volume
        (tilt axis, depth, lateral) in grey values; its attribute "reconstruction" holds settings
        and work, and of each section wall time and data error.

    Raises
    ------
    DdgmError
        If settings do not suit series or network, the series is damaged, the path is taken, the
        disk is full, or workers die again and again.
    """
    if batch < 1:
        raise SettingError("batch", batch, "of sections must be at least 1")
    if dtype not in DTYPES:
        raise SettingError("dtype", dtype, f"must be one of {', '.join(DTYPES)}")
    file = None if network is None or not method.needs_network else network_path(network).absolute()
    if file is None and method.needs_network:
        raise DdgmError("reconstruct_volume: the method needs a denoising network; none was given")
    job = Job(
        series=series.path.absolute(),
        series_identity=series.identity,
        workplace=Workplace(Path(path).absolute()),
        method=method,
        network=file,
        network_digest=None if file is None else _digest(file),
        half=half,
        blending=blending or Blending(),
        normalisation=normalisation,
        noise_std=_noise_std(series, method, noise_std, normalisation),
        seed=seed,
        device=device,
        threads=threads,
    )
    _check(job, series)
    workplace = _open_workplace(job, series, batch, dtype, code)
    job = replace(job, workplace=workplace)
    with workplace.held():
        _reconstruct(job, series, client, batch, dtype, progress)
        with workplace.writing("the volume"):
            _describe(job)
            workplace.close()
    return open_volume(path)


def _reconstruct(
    job: Job, series: TiltSeries, client: Client, batch: int, dtype: str, progress: bool
) -> None:
    """Have workers reconstruct what is not finished."""
    workplace, sections = job.workplace, series.sections
    remaining = workplace.remaining(sections, batch)
    left = sum(map(len, remaining))
    plane = np.dtype(dtype).itemsize * series.geometry.height * series.geometry.width
    workplace.check_space(left * plane)
    futures = {
        client.submit(reconstruct_sections, job, part.start, part.stop, pure=False): len(part)
        for part in remaining
    }
    with tqdm(
        total=sections, initial=sections - left, unit="section", desc="volume", disable=not progress
    ) as bar:
        _wait(client, futures, bar)
    if workplace.remaining(sections, batch):
        raise DdgmError(
            f"reconstruct_volume: workers do not find {workplace.folder}; they need the same paths "
            "as the process that asks them"
        )


def reconstruct_sections(job: Job, first: int, stop: int) -> None:
    """Reconstruct some sections and write them; what a worker does.

    Parameters
    ----------
    job : Job
        What to do.
    first, stop : int
        Sections, the last one excluded; those of one chunk of the volume.
    """
    # Another worker may have taken it over, or the run may have ended, while this one was cut off.
    if not job.workplace.is_current() or job.workplace.is_finished(first):
        return
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    # One at a time stays in memory; all that a worker does is the same job.
    series, operator, denoiser = _tools(
        job.series,
        job.series_identity,
        job.network,
        job.network_digest,
        job.half,
        job.blending,
        _own_device(job.device),
    )
    started = time.perf_counter()
    with torch.no_grad():
        data = torch.from_numpy(series.read(first, stop)).to(operator.device)
        data = normalise_measurement(operator, data, job.normalisation)
        identities = range(first, stop)
        noise = ImageNoise(job.seed, identities, operator.image_shape, operator.device)
        watch = _reporter(f"sections {first} to {stop - 1}", len(job.method.schedule()))
        problem = Problem(operator, data, denoiser, noise, job.noise_std, watch)
        solution = job.method.solve(problem)
        errors = data_error(operator, solution, data)
    if not job.workplace.is_current():
        return
    volume = open_volume(job.workplace.array, mode="r+")
    grey = solution.cpu().numpy() * job.normalisation.std + job.normalisation.mean
    with job.workplace.writing_sections(first, stop):
        volume.array[first:stop] = _as_dtype(grey, volume.dtype)
    record = {
        "sections": stop - first,
        "seconds": time.perf_counter() - started,
        "data_error": errors.tolist(),
        "evaluations": asdict(problem.evaluations),
    }
    with job.workplace.writing("a record"):
        job.workplace.finish(first, record)


def _check(job: Job, series: TiltSeries) -> None:
    """Refuse settings that do not suit the geometry or the network, before any work."""
    method = job.method
    if method.needs_svd:
        name = next(key for key, kind in METHODS.items() if kind is type(method))
        raise DdgmError(
            f"reconstruct_volume: {name} needs the eigenbasis of the projector, which a slab is "
            "too large for; take algebraic, ddgm, dps or proximal"
        )
    # The largest step takes a power iteration: once here rather than in each worker.
    method.check(make_operator(series.geometry, fused=False))
    if job.network is not None:
        denoiser = load_denoiser(job.network)
        check_noise_levels(method, denoiser.card.sigma_min, denoiser.card.sigma_max)
        BlendedDenoiser.of(denoiser, **asdict(job.blending))


def _noise_std(
    series: TiltSeries, method: Method, given: float | None, normalisation: Normalisation
) -> float | None:
    """Return σ_y in the units of normalised images, for methods that need it."""
    if not method.needs_noise_std:
        return None
    if given is None:
        given = series.noise_std
    if given is not None:
        return given / normalisation.std
    operator = make_operator(series.geometry, fused=False)
    data = torch.from_numpy(series.read(0, min(_SECTIONS_FOR_NOISE, series.sections)))
    return estimate_noise_std(operator, normalise_measurement(operator, data, normalisation))


def _open_workplace(
    job: Job, series: TiltSeries, batch: int, dtype: str, code: str | None
) -> Workplace:
    settings = {
        "series": [str(job.series), job.series_identity],
        "geometry": series.geometry.as_dict(),
        "method": _settings_of(job.method),
        "network": None if job.network is None else [str(job.network), job.network_digest],
        "half": job.half,
        "blending": asdict(job.blending),
        "normalisation": asdict(job.normalisation),
        "noise_std": job.noise_std,
        "seed": job.seed,
        "batch": batch,
        "dtype": dtype,
        "code": code,
    }
    workplace = Workplace.open(job.workplace.target, settings)
    if not workplace.array.exists():
        height, width = series.geometry.image_shape
        with workplace.writing("the volume"):
            create_volume(
                workplace.array,
                series.volume_shape,
                dtype,
                axes=series.axes,
                voxel_size=series.voxel_size,
                origin=series.origin,
                chunks=(batch, height, min(width, 512)),
                attributes={"reconstruction": settings},
            )
            workplace.sync_array()
    return workplace


def _settings_of(method: Method) -> dict[str, Any]:
    name = next(key for key, kind in METHODS.items() if kind is type(method))
    return {"name": name, **asdict(method)}


def _describe(job: Job) -> None:
    """Write into the volume what it took and how well it explains the data."""
    records = list(job.workplace.finished().values())
    evaluations = functools.reduce(
        Evaluations.most, (Evaluations(**record["evaluations"]) for record in records)
    )
    array = open_volume(job.workplace.array, mode="r+").array
    settings: dict[str, Any] = dict(array.attrs["reconstruction"])  # type: ignore[arg-type]
    each = [record["seconds"] / record["sections"] for record in records]
    array.attrs["reconstruction"] = {
        **settings,
        "evaluations": asdict(evaluations),
        "data_error": [error for record in records for error in record["data_error"]],
        "seconds": [
            round(seconds, 3)
            for seconds, record in zip(each, records, strict=True)
            for _ in range(record["sections"])
        ],
    }


def _wait(client: Client, futures: Mapping[Future[None], int], bar: tqdm[Any]) -> None:
    """Wait for all batches; end with the first error, and leave nothing running."""
    from distributed import CancelledError, as_completed
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    def show(event: Any) -> None:
        bar.set_postfix_str(str(event[1]), refresh=True)

    if not bar.disable:
        client.subscribe_topic(TOPIC, show)
    try:
        completed = as_completed(list(futures), loop=client.loop)
        looked = seen = time.monotonic()
        while not completed.is_empty():
            for future in completed.next_batch(block=False):
                # A worker may have died with its result since: what counts is written.
                if future.status in ("error", "cancelled"):
                    future.result()
                bar.update(futures[future])
            now = time.monotonic()
            if now - looked > _PATIENCE / 10:
                looked = now
                if _has_workers(client):
                    seen = now
                elif now - seen > _PATIENCE:
                    seen = now
                    _miss_workers(client)
            time.sleep(_GLANCE)
    except KilledWorker as error:
        raise DdgmError(
            "reconstruct_volume: the workers that took on one batch died one after the other, for "
            "want of memory most likely; give them more memory, or take fewer sections (batch) or "
            "patches (blending) at a time"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise DdgmError(
            "reconstruct_volume: the scheduler is gone; start it and run again: what is finished "
            "is kept"
        ) from error
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be what has failed
            if not bar.disable:
                client.unsubscribe_topic(TOPIC)
            client.cancel(list(futures), force=True)


def _has_workers(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(each["status"] == "running" for each in workers)


def _miss_workers(client: Client) -> None:
    """End a run whose workers do not come back; say it of those that may."""
    from distributed import LocalCluster

    if isinstance(client.cluster, LocalCluster):
        raise DdgmError(
            "reconstruct_volume: this machine's worker processes are gone and do not start again; "
            "run again: what is finished is kept"
        )
    logger.warning("dask: no worker has been at work for %.0f s; still waiting", _PATIENCE)


def _reporter(what: str, levels: int) -> Callable[[Evaluations], None] | None:
    """Return what tells the driver, once a second, how far a batch is."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # not within a worker
        return None
    last = time.monotonic()

    def watch(spent: Evaluations) -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            last = time.monotonic()
            worker.log_event(TOPIC, f"{what}: network evaluation {spent.network} of {levels}")

    return watch


def _own_device(name: str) -> str:
    """Return the device of this worker: of several on one machine each takes a GPU of its own."""
    device = pick_device(name)
    if device.type == "cpu":
        return "cpu"
    from distributed import get_worker

    try:
        number = get_worker().name
    except ValueError:
        number = 0
    # Workers of a batch system have names, and are given GPUs that nobody else sees.
    index = number % torch.cuda.device_count() if isinstance(number, int) else 0
    return f"cuda:{index}"


@functools.lru_cache(maxsize=1)
def _tools(
    path: Path,
    identity: str,
    network: Path | None,
    digest: str | None,
    half: bool,
    blending: Blending,
    device: str,
) -> tuple[TiltSeries, LinearOperator, BlendedDenoiser | None]:
    series = open_tilt_series(path)
    if series.identity != identity or (network is not None and _digest(network) != digest):
        raise DdgmError(f"{path} or {network} has changed since the run began; run again")
    operator = make_operator(series.geometry, device, fused=False)
    denoiser = None
    if network is not None:
        denoiser = BlendedDenoiser.of(load_denoiser(network, device, half=half), **asdict(blending))
    return series, operator, denoiser


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except FileNotFoundError as error:
        raise DdgmError(f"network {path}: no such file") from error


def _as_dtype(grey: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        return grey.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(grey), limits.min, limits.max).astype(dtype)
    return rounded
