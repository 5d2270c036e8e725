"""What a job does with what a cluster gives it, and when the cluster ends it."""

import os
import signal
import subprocess
import sys

import pytest

from ddgm.devices import allotted_cores
from ddgm.errors import DdgmError
from ddgm.node_tasks import run_on_nodes
from ddgm.slurm_jobs import jobs_of


def test_a_job_takes_the_cores_that_slurm_gave_it_and_no_more_than_there_are(monkeypatch):
    here = len(os.sched_getaffinity(0))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert allotted_cores(1) == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1000")
    assert allotted_cores(1) == here
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert allotted_cores(here) == 1


def test_several_nodes_need_a_cluster(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not run_on_nodes(1, tasks=2, cores=1)
    with pytest.raises(DdgmError, match="nodes = 2, but this is no job of SLURM; run Snakemake"):
        run_on_nodes(2, tasks=1, cores=1)


def test_a_job_that_is_ended_closes_what_it_has_opened(tmp_path):
    code = """
import sys, time
from ddgm.console import session
with session(sys.argv[1]):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)
"""
    log = tmp_path / "log"
    job = subprocess.Popen(
        [sys.executable, "-c", code, log], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=30)
    assert output == "closed\n"
    assert job.returncode == 128 + signal.SIGTERM
    assert "ended from outside (SIGTERM)" in log.read_text()


def test_without_a_cluster_no_jobs_are_left_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs_of(tmp_path) == []
