"""A SLURM that keeps account of its jobs, as most sites' do: slurmdbd, with MariaDB."""

import subprocess

import pytest
from small_slurm import DATABASE_PROGRAMS, absent_ones, output_of
from test_faults import ONCE

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def accounted(slurm):
    """The same cluster with accounting."""
    if absent := absent_ones(DATABASE_PROGRAMS):
        pytest.skip(f"accounting needs {absent}; apt install slurmdbd mariadb-server")
    slurm.start_accounting()
    yield slurm
    slurm.stop_accounting()


@pytest.mark.parametrize("status_command", ["squeue", "sacct"])
def test_either_status_command_sees_jobs_end_and_fail(accounted, disturbed, chain, status_command):
    disturbed.inject("metrics", ONCE.format(what="sys.exit(1)"))
    run = disturbed.start("table_1", "--slurm-status-command", status_command)
    status, output = run.finish()
    assert status == 0, output
    assert "Trying to restart job" in output
    assert disturbed.table == chain.table
    listed = output_of("sacct", "-n", "-X", "-o", "jobid,state", "-j", ",".join(run.submitted))
    assert listed.count("COMPLETED") == len(run.submitted) - 1
    assert listed.count("FAILED") == 1


def test_a_cancelled_job_is_given_to_slurm_again(accounted, disturbed, chain):
    run = disturbed.start("table_1")
    subprocess.run(["scancel", run.training()], check=True)
    status, output = run.finish()
    assert status == 0, output
    assert disturbed.table == chain.table
