"""Dry runs of Snakemake that do not wait for what it loads."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

# A process that has loaded what takes seconds, but nothing of ddgm, and forks for each dry run.
_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["snakemake.cli", "torch", "scipy.sparse", "zarr", "astra"])


def dry_run(command, root, environment, timeout):
    """Do what a command line of Snakemake says; returns its exit status and all its output."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = _LOADED.Process(target=_snakemake, args=(command, root, environment, output))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{command} takes more than {timeout} s")
        return process.exitcode, output.read_text()


def _snakemake(command, root, environment, output):
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(root)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = command
    from snakemake.cli import main

    main()
