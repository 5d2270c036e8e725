"""Jobs of SLURM that a run of the workflow has left behind, found and cancelled.

`python -m ddgm.slurm_jobs` cancels those of the working folder.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ddgm.errors import DdgmError

NAME = "ddgm"  # that the profile slurm gives to jobs
NOTE = Path(".snakemake/ddgm-running.json")
_SECONDS = 120  # that jobs may take to end
_PATIENCE = 30  # seconds, with a SLURM that does not answer


class LeftoverError(DdgmError):
    """Jobs of an earlier run could write what a new one writes."""


@dataclass(frozen=True)
class SlurmJob:
    """A job that waits, runs or is about to end.

    Attributes
    ----------
    number : str
        SLURM's job number.
    user : str
        Whose it is.
    state : str
        SLURM's name of its state, such as "RUNNING".
    what : str
        Rule and wildcards, or what else its comment says.
    """

    number: str
    user: str
    state: str
    what: str

    def __str__(self) -> str:
        return f"{self.number} {self.state} {self.what}"


def jobs_of(folder: Path | str) -> list[SlurmJob]:
    """Return the jobs of this workflow, of all users, that were submitted in a folder.

    Jobs that are over do not count, nor does the one that asks.

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
    # What people write freely comes last; a line break in it makes lines that are none of ours.
    listed = _run("squeue", "--noheader", "--format=%i|%u|%T|%j|%Z|%k").splitlines()
    fields = [line.split("|", 5) for line in listed if line.count("|") >= 5]
    return [
        SlurmJob(number, user, state, name if comment == "(null)" else comment)
        for number, user, state, name, place, comment in fields
        if name.startswith(f"{NAME}_")
        and number != os.environ.get("SLURM_JOB_ID")
        and _same(place, folder)
    ]


def _same(place: str, folder: Path | str) -> bool:
    try:
        return os.path.samefile(place, folder)
    except OSError:
        return False


def cancel_jobs(folder: Path | str, seconds: float = _SECONDS) -> list[SlurmJob]:
    """Cancel the user's jobs of a folder and wait until they have ended.

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
        If SLURM does not answer, jobs do not end, or some are another user's.
    """
    cancelled: dict[str, SlurmJob] = {}
    end = time.monotonic() + seconds
    while remaining := jobs_of(folder):
        others = [job for job in remaining if job.user != getpass.getuser()]
        if others:
            owners = ", ".join(sorted({job.user for job in others}))
            raise DdgmError(f"slurm: {_listed(others)}: jobs of {owners}, who has to cancel them")
        # A job that is about to end may have asked for workers after the last look.
        new = [job for job in remaining if job.number not in cancelled]
        if new:
            _run("scancel", *(job.number for job in new))
            cancelled |= {job.number: job for job in new}
        if time.monotonic() > end:
            raise DdgmError(
                f"slurm: {_listed(remaining)} did not end within {seconds:.0f} s of being "
                "cancelled; start nothing here before they have"
            )
        time.sleep(0.5)
    return list(cancelled.values())


def refuse_leftovers(folder: Path | str) -> None:
    """Raise if jobs of an earlier run could write what a new one writes.

    Those that are about to end are waited for.

    Raises
    ------
    LeftoverError
        Naming them, and the way out.
    DdgmError
        If SLURM does not answer.
    """
    end = time.monotonic() + _SECONDS
    while jobs := jobs_of(folder):
        if time.monotonic() < end and all(job.state == "COMPLETING" for job in jobs):
            time.sleep(0.5)
            continue
        raise LeftoverError(
            f"slurm: jobs of this folder are still there ({_listed(jobs)}). If the Snakemake that "
            "submitted them is gone, `make recover` cancels them; if it runs, wait for it"
        )


def refuse_short_memory(age: int | None, interval: int) -> None:
    """Raise if SLURM forgets ended jobs before Snakemake has looked at them.

    Its plugin asks `squeue` from time to time, and waits for ever for a job that has gone in
    between. A look may be late: three of them, and a minute at least, have to fit.

    Parameters
    ----------
    age : int or None
        Seconds that SLURM knows an ended job (MinJobAge); None if it does not say.
    interval : int
        Seconds between two looks.

    Raises
    ------
    DdgmError
        Saying what to do instead.
    """
    if age is None:
        raise DdgmError("slurm: scontrol does not say MinJobAge; is the controller away?")
    if age < max(60, 3 * interval):
        raise DdgmError(
            f"slurm: this cluster forgets jobs {age} s after their end (MinJobAge), too soon for "
            "the profile's squeue; add --slurm-status-command sacct"
        )


def note_start() -> None:
    """Write down that this process runs the workflow in the working folder."""
    NOTE.parent.mkdir(exist_ok=True)
    NOTE.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))


def note_end() -> None:
    """Take the note of `note_start` away."""
    NOTE.unlink(missing_ok=True)


def refuse_living(note: Path = NOTE) -> None:
    """Raise if the Snakemake that was last started here may still run.

    Raises
    ------
    DdgmError
        Saying which, and how to be sure.
    """
    if not note.exists():
        return
    running = json.loads(note.read_text())
    host, process = running["host"], running["process"]
    if host != socket.gethostname():
        raise DdgmError(
            f"slurm: Snakemake was started on {host} (process {process}); see there that it is "
            "gone, then add --gone"
        )
    command = Path(f"/proc/{process}/cmdline")
    if command.exists() and b"snakemake" in command.read_bytes():
        raise DdgmError(f"slurm: Snakemake still runs (process {process}); end it with Ctrl-C")


def _listed(jobs: list[SlurmJob]) -> str:
    shown = ", ".join(map(str, jobs[:3]))
    return shown if len(jobs) <= 3 else f"{shown} and {len(jobs) - 3} more"


def _run(*command: str) -> str:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise DdgmError(
            f"slurm: {command[0]} has given no answer for {_PATIENCE} s; is the controller away?"
        ) from error
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
    parser.add_argument(
        "--gone", action="store_true", help="the Snakemake of this folder is known to be gone"
    )
    arguments = parser.parse_args()
    try:
        if arguments.list:
            jobs = jobs_of(".")
        else:
            if not arguments.gone:
                refuse_living()
            jobs = cancel_jobs(".")
            note_end()
    except DdgmError as error:
        sys.exit(str(error))
    for job in jobs:
        print(job if arguments.list else f"cancelled {job}")
    if not jobs:
        print("no jobs of this folder")


if __name__ == "__main__":
    main()
