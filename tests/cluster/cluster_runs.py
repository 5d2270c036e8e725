"""The workflow run on a cluster by the command that its users give."""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from checkouts import SNAKEMAKE, Checkout
from small_slurm import output_of, wait_for
from snakemake.utils import update_config

BIN = Path(sys.executable).parent

# A chain of eleven jobs, of which training takes long enough to be disturbed.
CHAIN = {
    "run": "chain",
    "patches": {"validation": 4},  # one for each process of a distributed training
    "training": {
        "steps": 300,
        "checkpoint_every": 10,
        "validate_every": 150,
        "accelerator": "auto",
    },
    "reconstruction": {"device": "auto"},
    "table_1": ["ddgm_50", "algebraic"],
    "sweeps": {"select": False},
}


@dataclass(frozen=True)
class ClusterCheckout(Checkout):
    """A checkout that is run with `snakemake --cores all --profile slurm`."""

    def command(self, *arguments):
        """Return that command line."""
        return [SNAKEMAKE, "--cores", "all", "--profile", "slurm", *arguments]

    def configure(self, *overlays):
        """Change the configuration that Snakemake takes without being told."""
        path = self.root / "config/config.yaml"
        config = yaml.safe_load(path.read_text())
        for overlay in overlays:
            update_config(config, overlay)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def run_here(self, *arguments):
        """Run without the cluster."""
        return self.run([SNAKEMAKE, "--cores", "all", *arguments], timeout=3600)

    def start(self, *arguments):
        """Start a run that goes on while the test does something else."""
        return Run(self, self.command(*arguments))

    def inject(self, script, code):
        """Put code at the beginning of what a rule's script does."""
        path = self.root / "workflow/scripts" / f"{script}.py"
        text = path.read_text()
        first = re.search(r"^(with|def) ", text, re.MULTILINE).start()
        path.write_text(f"{text[:first]}{code}\n\n{text[first:]}")

    def log_of(self, name):
        """Return a job's log."""
        return (self.root / "results/chain/logs" / f"{name}.log").read_text()

    @property
    def table(self):
        """Table 1."""
        return (self.root / "results/chain/tables/table_1.csv").read_bytes()


class Run:
    """A Snakemake that is running."""

    def __init__(self, checkout, command):
        self.checkout = checkout
        self.file = checkout.root / f"run-{time.monotonic_ns()}.txt"
        with self.file.open("w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=checkout.root,
                env=checkout.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self):
        """What it has said so far."""
        return self.file.read_text()

    def job_of(self, rule):
        """Wait until a job of a rule runs, and return its number."""

        def running():
            assert self.process.poll() is None, self.output
            listed = output_of("squeue", "-h", "-t", "RUNNING", "-o", "%i %k").splitlines()
            found = [line.split(maxsplit=1) for line in listed]
            return [number for number, comment in found if comment.startswith(f"rule_{rule}")]

        return wait_for(running, f"no job of {rule} runs", 120)[0]

    def training(self):
        """Wait until training has written a checkpoint, and return its job's number."""
        job = self.job_of("train")
        checkpoint = self.checkout.root / "results/chain/network/training/checkpoints/last.ckpt"
        wait_for(checkpoint.exists, "training writes no checkpoint", 120)
        return job

    def finish(self, seconds=500):
        """Wait for its end; returns its exit status and all its output."""
        try:
            status = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"not over after {seconds} s:\n{self.output}") from None
        return status, self.output

    @property
    def submitted(self):
        """Numbers of the jobs that it has given to SLURM."""
        return re.findall(r"submitted with SLURM jobid (\d+)", self.output)
