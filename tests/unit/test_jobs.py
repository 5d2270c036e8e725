"""What a job does with what a cluster gives it, and when the cluster ends it."""

import getpass
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age

from ddgm.devices import allotted_cores
from ddgm.errors import DdgmError
from ddgm.node_tasks import run_on_nodes
from ddgm.slurm_jobs import (
    LeftoverError,
    cancel_jobs,
    jobs_of,
    refuse_leftovers,
    refuse_living,
    refuse_short_memory,
)


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


@pytest.fixture
def queue(monkeypatch, tmp_path):
    """A function that sets what `squeue` says here, where `scancel` empties the queue."""
    listing = tmp_path / "listing"
    programs = {
        "squeue": f"cat {listing}",
        "scancel": f': > {listing}; echo "$@" >> {tmp_path}/cancelled',
    }
    for name, what in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{what}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def say(*lines):
        listing.write_text("".join(f"{line}\n" for line in lines))

    return say


def test_jobs_of_a_folder_are_those_of_the_workflow_whoever_has_submitted_them(queue, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    queue(
        f"1|ann|RUNNING|ddgm_a|{tmp_path}|rule_train",
        f"2|bob|PENDING|ddgm_dask|{link}|(null)",
        f"3|ann|RUNNING|other|{tmp_path}|rule_train",
        f"4|ann|RUNNING|ddgm_b|{tmp_path.parent}|rule_train",
        "5|ann|RUNNING|other|/nowhere|a comment",
        "of two lines with | in it",
        f"6|ann|COMPLETING|ddgm_c|{tmp_path}|rule_x_wildcards_a|b",
    )
    assert [str(job) for job in jobs_of(tmp_path)] == [
        "1 RUNNING rule_train",
        "2 PENDING ddgm_dask",
        "6 COMPLETING rule_x_wildcards_a|b",
    ]


def test_a_folders_own_jobs_are_cancelled_and_those_of_others_named(queue, tmp_path):
    queue(f"1|{getpass.getuser()}|RUNNING|ddgm_a|{tmp_path}|rule_train")
    assert [job.number for job in cancel_jobs(tmp_path)] == ["1"]
    assert (tmp_path / "cancelled").read_text() == "1\n"
    assert cancel_jobs(tmp_path) == []
    queue(f"2|somebody|RUNNING|ddgm_a|{tmp_path}|rule_train")
    with pytest.raises(DdgmError, match="jobs of somebody, who has to cancel them"):
        cancel_jobs(tmp_path)


def test_a_run_does_not_start_beside_jobs_left_behind(queue, tmp_path):
    queue(f"1|ann|RUNNING|ddgm_a|{tmp_path}|rule_train")
    with pytest.raises(LeftoverError, match=r"1 RUNNING rule_train\).*`make recover` cancels them"):
        refuse_leftovers(tmp_path)
    queue()
    refuse_leftovers(tmp_path)


def test_a_cluster_that_forgets_jobs_too_soon_is_named(queue, tmp_path):
    program = tmp_path / "bin" / "scontrol"
    for age, interval, fine in ((30, 5, False), (60, 5, True), (300, 120, False), (300, 60, True)):
        program.write_text(f"#!/bin/sh\necho 'MinJobAge               = {age} sec'\n")
        program.chmod(0o755)
        if fine:
            refuse_short_memory(get_min_job_age(), interval)
        else:
            with pytest.raises(DdgmError, match=r"MinJobAge.*--slurm-status-command sacct"):
                refuse_short_memory(get_min_job_age(), interval)
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(DdgmError, match="does not say MinJobAge"):
        refuse_short_memory(get_min_job_age(), 5)


def test_a_snakemake_that_may_still_run_is_not_recovered_from(tmp_path):
    note = tmp_path / "note.json"
    refuse_living(note)
    command = [sys.executable, "-c", "print(flush=True); input()", "snakemake"]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running.stdout.readline()  # until then the kernel may not know its command line yet
    note.write_text(json.dumps({"host": socket.gethostname(), "process": running.pid}))
    with pytest.raises(DdgmError, match=rf"still runs \(process {running.pid}\)"):
        refuse_living(note)
    running.kill()
    running.communicate()
    refuse_living(note)
    note.write_text(json.dumps({"host": "elsewhere", "process": 1}))
    with pytest.raises(DdgmError, match=r"was started on elsewhere.*add --gone"):
        refuse_living(note)
