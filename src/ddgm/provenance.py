"""Where a run's results come from: its configuration, versions, machine and run times."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

# What decides numbers or how fast they come.
PACKAGES = ("torch", "astra-toolbox", "numpy", "scipy", "numba", "zarr", "torchmetrics")


def configuration(config: Mapping[str, Any]) -> pd.DataFrame:
    """List a configuration, one row a setting.

    Parameters
    ----------
    config : mapping
        Nested mappings; lists count as values.

    Returns
    -------
    DataFrame
        Columns key, the names joined by dots, and value, as YAML writes it.
    """
    return pd.DataFrame(_settings(config), columns=["key", "value"])


def _settings(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{above}{name}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
            yield f"{above}{name}", text.removesuffix("...\n").strip()


def versions(checkout: Path | str, **others: str) -> pd.DataFrame:
    """List the versions of what computes here, and the machine that it computes on.

    Parameters
    ----------
    checkout : path-like
        A folder of the repository, asked for its commit.
    **others : str
        Further names and their versions.

    Returns
    -------
    DataFrame
        Columns what and value, one row an entry.
    """
    found = {
        "ddgm": _version("ddgm"),
        "commit": _commit(Path(checkout)),
        "Python": platform.python_version(),
        **others,
        **{name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "GPU": ", ".join(_gpus()) or "none",
    }
    return pd.DataFrame(found.items(), columns=["what", "value"])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown: no git checkout"
    return result.stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus() -> list[str]:
    import torch  # seconds, which a page of run times need not wait

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


_MEASURED = {"s": "seconds", "max_rss": "max_rss_mb", "cpu_time": "cpu_seconds"}


def run_times(directory: Path | str) -> pd.DataFrame:
    """Gather what Snakemake measured of the jobs of a run.

    Parameters
    ----------
    directory : path-like
        The run's benchmark files, in folders below it.

    Returns
    -------
    DataFrame
        One row a job, ordered by its name: job, the file's path below the folder without its
        suffix; seconds, wall time; cpu_seconds; max_rss_mb, the most memory at a time (MB). What
        could not be measured, as of jobs that are over at once, is NaN.
    """
    folder = Path(directory)
    frames = [
        pd.read_csv(path, sep="\t", na_values=["-", "NA"])[list(_MEASURED)]
        .rename(columns=_MEASURED)
        .assign(job=path.relative_to(folder).with_suffix("").as_posix())
        for path in sorted(folder.rglob("*.tsv"))
    ]
    columns = ["job", "seconds", "cpu_seconds", "max_rss_mb"]
    return (
        pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    )


def times_of_steps(jobs: pd.DataFrame) -> pd.DataFrame:
    """Sum up the run times of jobs that do the same, those that took longest first.

    Parameters
    ----------
    jobs : DataFrame
        What `run_times` returned.

    Returns
    -------
    DataFrame
        One row a step, the first two parts of the jobs' names: step, jobs, seconds and cpu_seconds
        in all, longest, the seconds of the slowest job, and max_rss_mb; the last row is the whole.
    """
    steps = jobs.assign(step=["/".join(name.split("/")[:2]) for name in jobs["job"]])
    kept: dict[str, tuple[str, str]] = {
        "jobs": ("job", "size"),
        "seconds": ("seconds", "sum"),
        "cpu_seconds": ("cpu_seconds", "sum"),
        "longest": ("seconds", "max"),
        "max_rss_mb": ("max_rss_mb", "max"),
    }
    table = steps.groupby("step", as_index=False).agg(**kept)
    whole = steps.assign(step="all").groupby("step", as_index=False).agg(**kept)
    ordered = table.sort_values("seconds", ascending=False, kind="stable")
    return pd.concat([ordered, whole], ignore_index=True)


def times_of_images(metrics: pd.DataFrame, labels: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Say how long the methods took an image.

    Parameters
    ----------
    metrics : DataFrame
        One row an image and method: method, seconds.
    labels : sequence of (str, str)
        Name and label of each method, in the order wanted.

    Returns
    -------
    DataFrame
        One row a method: method (the label), images, seconds, the mean wall time an image.
    """
    times = metrics.groupby("method")["seconds"]
    return pd.DataFrame(
        {
            "method": label,
            "images": int(times.size()[name]),
            "seconds": float(times.mean()[name]),
        }
        for name, label in labels
    )
