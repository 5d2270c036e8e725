"""A checkout of the workflow to run as its users do."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dry_runs import dry_run

REPOSITORY = Path(__file__).resolve().parents[2]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
TINY = Path(__file__).with_name("tiny.yaml")
TINY_SWEEPS = {"sigma1": "K\tsigma_1\n1\t1\n3\t3\n", "algebraic": "K\n5\n20\n"}
# Jobs here are over as soon as they have loaded what they need: two at a time take half as long.
MANY_THREADS = (
    "blind",
    "download",
    "eigenbasis",
    "export",
    "reconstruct",
    "reconstruct_volume",
    "simulate_slab",
    "sinograms",
    "sweep_algebraic_point",
    "sweep_sigma1_point",
    "train",
)


@dataclass(frozen=True)
class Checkout:
    """A copy of the workflow's files in an empty folder."""

    root: Path

    def command(self, *arguments):
        """Return the command line of Snakemake with these arguments."""
        threads = [f"{rule}=1" for rule in MANY_THREADS]
        return [SNAKEMAKE, *arguments, "--cores", "2", "--set-threads", *threads]

    def environment(self, **variables):
        """Return the environment less what this machine's own data would change."""
        own = {k: v for k, v in os.environ.items() if k != "DDGM_DATA_DIR"}
        return {**own, "DDGM_PROGRESS": "0", **variables}

    def snakemake(self, *arguments, **variables):
        """Run Snakemake to its end; returns its exit status and all its output."""
        if "-n" in arguments:
            environment = self.environment(**variables)
            return dry_run(self.command(*arguments), self.root, environment, timeout=300)
        return self.run(self.command(*arguments), timeout=900, **variables)

    def run(self, command, timeout, **variables):
        """Run a command here to its end; returns its exit status and all its output."""
        result = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return result.returncode, result.stdout

    @staticmethod
    def complaints(output):
        """Return the lines of Snakemake's output without those on what it reads."""
        notices = ("Config file ", "Using workflow specific profile ")
        return [line for line in output.splitlines() if not line.startswith(notices)]


def make_checkout(root):
    root.mkdir(exist_ok=True)
    for name in ("Makefile", "Snakefile", "workflow", "config", "envs"):
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, root / name)
    (root / "profiles").symlink_to("workflow/profiles")
    (root / "slurm").symlink_to("workflow/profiles/slurm")
    shutil.copy(TINY, root / "config" / "tiny.yaml")
    for name, table in TINY_SWEEPS.items():
        (root / "config" / "sweeps" / f"tiny_{name}.tsv").write_text(table)
    return Checkout(root)
