"""Nothing is lost, whatever happens to jobs, nodes, controller and Snakemake itself."""

import os
import signal
import subprocess
import time

import pytest
from checkouts import SNAKEMAKE
from cluster_runs import BIN
from small_slurm import jobs, node_of, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

ONCE = """
from pathlib import Path
import sys

mark = Path("once")
first, _ = not mark.exists(), mark.touch()
if first:
    {what}
"""


def resumed(checkout):
    return "training goes on from" in checkout.log_of("train")


def outputs(checkout):
    """Return the contents of all files that rules have made."""
    results = checkout.root / "results"
    kept = [path for path in results.rglob("*") if path.is_file()]
    passing = ("/logs/", "/benchmarks/", "/network/training/")
    return {
        str(path): path.read_bytes()
        for path in kept
        if not any(each in str(path) for each in passing)
    }


def test_a_job_that_fails_once_is_given_to_slurm_again(disturbed, chain):
    disturbed.inject("metrics", ONCE.format(what="sys.exit(1)"))
    status, output = disturbed.start("table_1").finish()
    assert status == 0, output
    assert "Trying to restart job" in output
    assert disturbed.table == chain.table


def test_points_take_turns_in_their_group_and_those_done_are_kept_when_it_fails(disturbed):
    table = disturbed.root / "config/sweeps/tiny_algebraic.tsv"
    table.write_text("K\n1\n2\n3\n4\n")
    disturbed.configure({"sweeps": {"job": "point"}})
    disturbed.inject(
        "sweep_point",
        """
from pathlib import Path
import atexit, os, sys

def mark(what):
    with open("spans", "a") as file:
        print(os.environ["SLURM_JOB_ID"], snakemake.wildcards.points, what, file=file)

mark("begins")
atexit.register(mark, "ends")
if len(Path("spans").read_text().splitlines()) == 5:
    sys.exit(1)
""",
    )
    run = disturbed.start("sweep_algebraic")
    status, output = run.finish()
    assert status == 0, output
    spans = [line.split() for line in (disturbed.root / "spans").read_text().splitlines()]
    for begins, ends in zip(spans[::2], spans[1::2], strict=True):
        assert begins == [*ends[:2], "begins"]
    assert len({job for job, _, _ in spans}) == 2
    logs = [disturbed.log_of(f"sweeps/algebraic/K={k}") for k in range(1, 5)]
    assert sum("done before" in log for log in logs) >= 2
    assert "mem_mb=32000" in output


def test_a_cancelled_job_goes_on_from_its_checkpoint(disturbed, chain):
    run = disturbed.start("table_1")
    subprocess.run(["scancel", run.training()], check=True)
    status, output = run.finish()
    assert status == 0, output
    assert resumed(disturbed)
    assert disturbed.table == chain.table


def test_a_job_over_its_memory_gets_more(disturbed, chain):
    # The rule asks for 4 GB, and for 8 GB the second time.
    code = "import numpy, time\nmuch = numpy.ones(5_000_000_000, numpy.uint8)\ntime.sleep(5)"
    disturbed.inject("metrics", code)
    run = disturbed.start("table_1")
    status, output = run.finish()
    assert status == 0, output
    assert "mem_mb=4000" in output
    assert "mem_mb=8000" in output
    assert disturbed.table == chain.table


def test_a_job_over_its_time_gets_more_and_goes_on(disturbed, chain):
    run = disturbed.start("table_1", "--set-resources", "train:runtime=attempt")
    run.training()
    # It computes no more, and so cannot be over before its minute is.
    script = f"{disturbed.root}/.snakemake/scripts/.*train.py"
    subprocess.run(["pkill", "-STOP", "-f", script], check=True)
    status, output = run.finish()
    assert status == 0, output
    assert "TIMEOUT" in output
    assert "runtime=2" in output
    assert resumed(disturbed)
    assert disturbed.table == chain.table


def test_a_node_that_dies_loses_no_more_than_the_last_steps(slurm, disturbed, chain):
    run = disturbed.start("table_1")
    job = run.training()
    slurm.lose(node_of(job))
    status, output = run.finish()
    assert status == 0, output
    assert run.submitted.count(job) == 1
    assert "Trying to restart" not in output  # SLURM itself has put it on the other node
    assert resumed(disturbed)
    assert disturbed.table == chain.table


def test_a_controller_that_is_away_is_waited_for(slurm, disturbed, chain):
    run = disturbed.start("table_1", "--verbose")
    run.training()
    slurm.end("slurmctld")
    time.sleep(20)
    wait_for(lambda: "could not check status" in run.output, "Snakemake has not noticed", 120)
    slurm.start_controller()
    status, output = run.finish()
    assert status == 0, output
    assert disturbed.table == chain.table


def test_a_killed_snakemake_leaves_no_second_writer(slurm, disturbed, chain):
    run = disturbed.start("table_1")
    job = run.training()
    recover = ["make", "recover", f"BIN={BIN}"]
    told = subprocess.run(recover, cwd=disturbed.root, capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert f"Snakemake still runs (process {run.process.pid})" in told.stderr
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert job in jobs()  # lives on without its Snakemake
    subprocess.run([SNAKEMAKE, "--unlock"], cwd=disturbed.root, check=True)
    status, output = disturbed.start("table_1").finish()
    assert status != 0
    assert "make recover" in output
    assert job in output
    assert jobs() == [job]
    told = subprocess.run(recover, cwd=disturbed.root, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert f"cancelled {job}" in told.stdout
    assert not jobs()
    status, output = disturbed.start("table_1").finish()
    assert status == 0, output
    assert not (disturbed.root / ".snakemake/ddgm-running.json").exists()
    assert resumed(disturbed)
    assert disturbed.table == chain.table


def test_an_interrupt_cancels_jobs_and_leaves_nothing_that_passes_for_finished(disturbed, chain):
    run = disturbed.start("table_1")
    run.training()
    os.kill(run.process.pid, signal.SIGINT)
    status, output = run.finish(120)
    assert status != 0
    assert not jobs("-t", "PENDING,RUNNING")
    left = outputs(disturbed)
    assert not any("/network/" in name for name in left)
    status, output = disturbed.start("table_1").finish()
    assert left.items() <= outputs(disturbed).items()  # nobody had to write them anew
    assert status == 0, output
    assert resumed(disturbed)
    assert disturbed.table == chain.table
