"""The workers that share a large reconstruction: processes here, or those of a cluster (Dask)."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddgm.devices import pick_device
from ddgm.errors import DdgmError, SettingError
from ddgm.slurm_jobs import NAME

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

KINDS = ("local", "slurm", "address")
_KINDS_OF = {
    "workers": ("local", "slurm"),
    "memory": ("local", "slurm"),
    "host": ("local", "slurm"),
    "interface": ("slurm",),
    "queue": ("slurm",),
    "account": ("slurm",),
    "walltime": ("slurm",),
    "directives": ("slurm",),
    "tls_ca": ("address",),
    "tls_cert": ("address",),
    "tls_key": ("address",),
}
# A terminal sends Ctrl-C to workers as well; they end with the process that started them.
_DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
_CORES_A_WORKER = 4  # a network's layers keep that many busy; each worker holds a network
_SECONDS_FOR_SCHEDULER = 30
# What workers are told that are started here, whatever the user's configuration of Dask says.
_WORKER_OPTIONS = {
    # To sample the stacks of other threads can stop a process for good on Python before 3.11.9
    # (github.com/python/cpython/issues/106883).
    "distributed.worker.profile.enabled": False,
    # Tasks leave nothing with Dask that a worker at rest could spill: it would rest for ever. Above
    # 95 % of its memory it is restarted all the same.
    "distributed.worker.memory.pause": False,
}
_START = "5 minutes"  # that a worker process may take to load all it needs, on a busy machine


@dataclass(frozen=True)
class ClusterSettings:
    """Where workers run, and how many.

    Attributes
    ----------
    kind : str
        "local": processes on this machine. "slurm": jobs of SLURM, through dask-jobqueue.
        "address": the workers of a scheduler that runs already.
    workers : int or None
        How many, for "local" and "slurm". None: on this machine one a GPU or, without one, one for
        each four cores; of SLURM one.
    threads : int or None
        Threads a worker computes with. None: its share of this machine's cores; of SLURM four.
    memory : str or None
        Memory of a worker, such as "8GiB", above which Dask restarts it. None: its share of this
        machine's; of SLURM 8GiB.
    address : str or None
        Of the scheduler, for "address": ``tcp://…`` or ``tls://…``.
    tls_ca, tls_cert, tls_key : str or None
        Files of certificates and key for a ``tls://`` address.
    host : str or None
        Address of this machine that scheduler and dashboard listen on; loopback if None, or for
        "slurm" the address that other nodes reach. Any but loopback is encrypted, with a
        certificate that is made for the run; without it nobody can use the workers. The dashboard
        can be looked at by whoever reaches it.
    interface : str or None
        Network interface to listen on instead, for "slurm", such as "ib0".
    dashboard_port : int
        Of the dashboard; 0 takes any that is free.
    queue, account, walltime : str or None
        Of SLURM jobs: partition, account and time limit.
    directives : tuple of str
        Further options for sbatch, such as "--gres=gpu:1".
    """

    kind: str = "local"
    workers: int | None = None
    threads: int | None = None
    memory: str | None = None
    address: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    host: str | None = None
    interface: str | None = None
    dashboard_port: int = 0
    queue: str | None = None
    account: str | None = None
    walltime: str | None = None
    directives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError("kind", self.kind, f"must be one of {', '.join(KINDS)}")
        if (self.kind == "address") != (self.address is not None):
            raise SettingError(
                "address", self.address, 'goes with the kind "address", and with no other'
            )
        for name, kinds in _KINDS_OF.items():
            if getattr(self, name) and self.kind not in kinds:
                raise SettingError(
                    name, getattr(self, name), f"has no meaning for the kind {self.kind!r}"
                )
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(name, value, "must be at least 1")
        if self.memory is not None:
            from dask.utils import parse_bytes

            try:
                parse_bytes(self.memory)
            except ValueError:
                raise SettingError(
                    "memory", self.memory, 'is no amount of memory; write "8GiB"'
                ) from None


@dataclass(frozen=True)
class Workers:
    """Workers at hand.

    Attributes
    ----------
    client : distributed.Client
        Of their scheduler.
    threads : int or None
        Threads that each computes with; None leaves it to the worker.
    """

    client: Client
    threads: int | None


@contextmanager
def connect(
    settings: ClusterSettings,
    *,
    device: str = "auto",
    cores: int | None = None,
    folder: Path | str = ".",
) -> Iterator[Workers]:
    """Start workers, or connect to those that run already; they end with the context.

    Each worker computes one task at a time, so that a GPU has one process. Where the dashboard is
    goes to the log.

    Parameters
    ----------
    settings : ClusterSettings
        Where they run.
    device : str
        "auto", "cpu" or "cuda": on what they are to compute.
    cores : int, optional
        Cores of this machine to use; all unless given.
    folder : path-like
        A folder that cluster nodes see too; SLURM jobs find their certificates there.

    Raises
    ------
    DdgmError
        If the scheduler cannot be reached or started.
    """
    if settings.kind == "address":
        opened = _existing(settings)
    elif settings.kind == "slurm":
        opened = _slurm(settings, Path(folder))
    else:
        opened = _local(settings, device, cores or len(os.sched_getaffinity(0)))
    with opened as workers:
        logger.info("dashboard: %s", workers.client.dashboard_link)
        yield workers


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_own(host: str) -> bool:
    """Tell whether an address is one of this machine's."""
    try:
        with socket.create_server((host, 0)):
            return True
    except OSError:
        return False


@contextmanager
def _local(settings: ClusterSettings, device: str, cores: int) -> Iterator[Workers]:
    import dask
    from distributed import Client, LocalCluster

    workers = settings.workers or _fitting_workers(device, cores)
    threads = settings.threads or max(1, cores // workers)
    host = settings.host or "127.0.0.1"
    # A process that has died is started again where it was; Dask gives it 15 s, and then up.
    options = {**_WORKER_OPTIONS, "distributed.deploy.lost-worker-timeout": _START}
    with dask.config.set(options), _encrypted(not is_loopback(host)) as security:
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                death_timeout=_START,
                silence_logs=logging.CRITICAL,  # an error of a task comes back with its result
                host=host,
                protocol="tls://" if security else "tcp://",
                security=security,
                dashboard_address=f"{host}:{settings.dashboard_port}",
                preload=_DEAF,
                # Without it, the machine's memory is divided among them.
                **({} if settings.memory is None else {"memory_limit": settings.memory}),
            )
        except (OSError, RuntimeError) as error:
            if _is_own(host):
                raise DdgmError(
                    f"dask: worker processes do not start ({error}); they load the script that "
                    "asks for them: what it does must stand under `if __name__ == "
                    '"__main__":`'
                ) from error
            raise DdgmError(
                f"dask: no workers could be started at host {host} ({error}); give an address of "
                "this machine"
            ) from error
        with cluster, Client(cluster) as client:
            yield Workers(client, threads)


def _fitting_workers(device: str, cores: int) -> int:
    if pick_device(device).type == "cuda":
        import torch

        return torch.cuda.device_count()
    return max(1, cores // _CORES_A_WORKER)


@contextmanager
def _existing(settings: ClusterSettings) -> Iterator[Workers]:
    from distributed import Client
    from distributed.security import Security

    security = None
    for name in ("tls_ca", "tls_cert", "tls_key"):
        file = getattr(settings, name)
        if file is not None and not Path(file).is_file():
            raise SettingError(name, file, "is no file")
    if settings.tls_ca is not None:
        security = Security(
            tls_ca_file=settings.tls_ca,
            tls_client_cert=settings.tls_cert,
            tls_client_key=settings.tls_key,
            require_encryption=True,
        )
    try:
        client = Client(
            settings.address,
            security=security,
            timeout=_SECONDS_FOR_SCHEDULER,
            set_as_default=False,
        )
    except (OSError, TypeError, ValueError) as error:
        raise DdgmError(
            f"dask: no scheduler answers at {settings.address} ({error}); start one with `dask "
            "scheduler`, or take local workers"
        ) from error
    with client:
        found = client.scheduler_info(n_workers=-1)["workers"]
        if not found:
            logger.warning("dask: %s has no workers yet; waiting for one", settings.address)
        threads = max((each["nthreads"] for each in found.values()), default=1)
        if threads != 1:
            raise DdgmError(
                f"dask: {settings.address} has workers that take {threads} tasks at a time; start "
                "them with --nthreads 1 (slab.cluster.threads says how many threads a task has)"
            )
        yield Workers(client, settings.threads)


@contextmanager
def _slurm(settings: ClusterSettings, folder: Path) -> Iterator[Workers]:
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise DdgmError(
            "dask: the kind slurm needs dask-jobqueue; install ddgm with the extra `cluster`"
        ) from error
    from distributed import Client
    from distributed.utils import get_ip, get_ip_interface

    workers, threads = settings.workers or 1, settings.threads or 4
    if settings.interface is not None:
        host = get_ip_interface(settings.interface)
    else:
        host = settings.host or get_ip()
    with _encrypted(not is_loopback(host)) as security:
        try:
            cluster = SLURMCluster(
                cores=1,
                processes=1,
                job_cpu=threads,
                memory=settings.memory or "8GiB",
                walltime=settings.walltime,
                job_name=f"{NAME}_dask",
                queue=settings.queue,
                account=settings.account,
                interface=settings.interface,
                job_extra_directives=list(settings.directives),
                # Each worker would serve a page of its own, to everybody and in plain text.
                worker_extra_args=["--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
                job_script_prologue=[
                    f"export DASK_{key.replace('.', '__').upper()}={value}"
                    for key, value in _WORKER_OPTIONS.items()
                ],
                scheduler_options={
                    "host": host,
                    "dashboard_address": f"{host}:{settings.dashboard_port}",
                },
                security=security,
                shared_temp_directory=str(folder) if security else None,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise DdgmError(f"dask: no SLURM workers could be asked for ({error})") from error
        with cluster, Client(cluster) as client:
            _check_job(cluster)
            logger.info("dask: asking SLURM for %d workers", workers)
            # Unlike `scale`, this replaces workers whose job has ended.
            cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
            yield Workers(client, threads)


def _check_job(cluster: Any) -> None:
    """Have SLURM look at a job before any is submitted, which happens unseen."""
    script = cluster.job_script()
    try:
        answer = subprocess.run(
            ["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise DdgmError("dask: there is no sbatch here; the kind slurm needs SLURM") from error
    if answer.returncode != 0:
        raise DdgmError(f"dask: SLURM takes no such jobs: {' '.join(answer.stderr.split())}")


@contextmanager
def _encrypted(wanted: bool) -> Iterator[Any]:
    """Make a certificate for this run, for scheduler, workers and dashboard."""
    if not wanted:
        yield None
        return
    import dask
    from distributed.security import Security

    security = Security.temporary()
    with tempfile.TemporaryDirectory(prefix="ddgm-tls-") as folder:
        files = {}
        for name, content in (
            ("cert", security.tls_scheduler_cert),
            ("key", security.tls_scheduler_key),
        ):
            path = Path(folder) / f"{name}.pem"
            path.touch(mode=0o600)
            path.write_text(content, encoding="ascii")
            files[f"distributed.scheduler.dashboard.tls.{name}"] = str(path)
        with dask.config.set(files):
            yield security
