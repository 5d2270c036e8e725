"""Jobs of SLURM that a run of the workflow has left behind, found and cancelled.

`python -m ddgm.slurm_jobs` cancels those of the working folder.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ddgm.errors import DdgmError

NAME = "ddgm"  # that the profile slurm gives to jobs
_SECONDS = 120  # that jobs may take to end


@dataclass(frozen=True)
class SlurmJob:
    """A job that waits, runs or is about to end.

    Attributes
    ----------
    number : str
        SLURM's job number.
    state : str
        SLURM's name of its state, such as "RUNNING".
    what : str
        Rule and wildcards, or what else its comment says.
    """

    number: str
    state: str
    what: str

    def __str__(self) -> str:
        return f"{self.number} {self.state} {self.what}"


def jobs_of(folder: Path | str) -> list[SlurmJob]:
    """Return the user's jobs of this workflow that were submitted in a folder and are not over.

    Parameters
    ----------
    folder : path-like
        Where Snakemake was started.

    Returns
    -------
    list of SlurmJob
        None where there is no SLURM.

    Raises
    ------
    DdgmError
        If SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return []
    listed = _run("squeue", "--me", "--noheader", "--format=%i|%T|%j|%k|%Z")
    jobs = [line.split("|", 4) for line in listed.splitlines()]
    here = Path(folder).resolve()
    return [
        SlurmJob(number, state, name if comment == "(null)" else comment)
        for number, state, name, comment, place in jobs
        if name.startswith(f"{NAME}_") and Path(place).resolve() == here
    ]


def cancel_jobs(folder: Path | str, seconds: float = _SECONDS) -> list[SlurmJob]:
    """Cancel the jobs of a folder and wait until they have ended.

    Parameters
    ----------
    folder : path-like
        Where Snakemake was started; it must no longer run.
    seconds : float
        How long to wait.

    Returns
    -------
    list of SlurmJob
        What was cancelled.

    Raises
    ------
    DdgmError
        If SLURM does not answer, or jobs do not end.
    """
    jobs = jobs_of(folder)
    if jobs:
        _run("scancel", *(job.number for job in jobs))
    end = time.monotonic() + seconds
    while remaining := jobs_of(folder):
        if time.monotonic() > end:
            raise DdgmError(
                f"slurm: {_listed(remaining)} did not end within {seconds:.0f} s of being "
                "cancelled; start nothing here before they have"
            )
        time.sleep(0.5)
    return jobs


def refuse_leftovers(folder: Path | str) -> None:
    """Raise if jobs of an earlier run could write what a new one writes.

    Those that are about to end are waited for.

    Raises
    ------
    DdgmError
        Naming them, and the way out.
    """
    end = time.monotonic() + _SECONDS
    while jobs := jobs_of(folder):
        if time.monotonic() < end and all(job.state == "COMPLETING" for job in jobs):
            time.sleep(0.5)
            continue
        raise DdgmError(
            f"slurm: jobs of this folder are still there ({_listed(jobs)}). If the Snakemake that "
            "submitted them is gone, `make recover` cancels them; if it runs, wait for it"
        )


def _listed(jobs: list[SlurmJob]) -> str:
    shown = ", ".join(map(str, jobs[:3]))
    return shown if len(jobs) <= 3 else f"{shown} and {len(jobs) - 3} more"


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise DdgmError(f"slurm: {command[0]} failed: {' '.join(result.stderr.split())}")
    return result.stdout


def main() -> None:
    """Cancel the jobs of the working folder, or list them."""
    parser = argparse.ArgumentParser(
        prog="python -m ddgm.slurm_jobs",
        description="Cancel the jobs that a run of the workflow in this folder has left behind.",
    )
    parser.add_argument("--list", action="store_true", help="show them and cancel nothing")
    arguments = parser.parse_args()
    try:
        jobs = jobs_of(".") if arguments.list else cancel_jobs(".")
    except DdgmError as error:
        sys.exit(str(error))
    for job in jobs:
        print(job if arguments.list else f"cancelled {job}")
    if not jobs:
        print("no jobs of this folder")


if __name__ == "__main__":
    main()
