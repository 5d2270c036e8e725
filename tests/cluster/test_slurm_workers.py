"""Volumes by workers that are jobs of a real SLURM, through dask-jobqueue."""

import os
import subprocess
import threading
import time

import numpy as np
import psutil
import pytest
from cases import listening, make_case

from ddgm.cluster import ClusterSettings, connect, is_loopback
from ddgm.errors import DdgmError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def jobs():
    result = subprocess.run(
        ["squeue", "-h", "-t", "RUNNING", "-o", "%i"], capture_output=True, text=True, check=True
    )
    return result.stdout.split()


@pytest.mark.parametrize("interface", ["lo", None], ids=["loopback", "network"])
def test_jobs_are_workers_and_a_lost_one_is_replaced(slurm, tmp_path, monkeypatch, interface):
    case = make_case(tmp_path)
    monkeypatch.chdir(tmp_path)  # where SLURM writes the output of its jobs
    settings = ClusterSettings(
        kind="slurm", workers=1, threads=1, memory="3GiB", interface=interface, walltime="00:10:00"
    )
    lost = []

    def lose():
        while not list((tmp_path / "volume.zarr.partial/finished").glob("*.json")):
            time.sleep(0.05)
        lost.extend(jobs())
        subprocess.run(["scancel", *lost], check=True)

    here = psutil.Process()
    before = listening([here])
    with connect(settings, folder=tmp_path) as workers:
        assert workers.threads == 1
        scheme = "tcp" if interface == "lo" else "tls"
        address = workers.client.scheduler_info()["address"]
        assert address.startswith(f"{scheme}://")
        workers.client.wait_for_workers(1, timeout=60)
        (watchers,) = workers.client.run(
            lambda dask_worker: list(dask_worker.periodic_callbacks)
        ).values()
        assert "profile" not in watchers
        if interface == "lo":
            (worker,) = workers.client.run(os.getpid).values()
            processes = [here, psutil.Process(worker), psutil.Process(worker).parent()]
            assert all(map(is_loopback, listening(processes) - before))
        thread = threading.Thread(target=lose)
        thread.start()
        volume = case.reconstruct(tmp_path / "volume.zarr", workers.client)
        thread.join()
    assert lost
    with connect(ClusterSettings(workers=1), device="cpu", cores=1) as workers:
        local = case.reconstruct(tmp_path / "local.zarr", workers.client)
    np.testing.assert_array_equal(volume.array, local.array)
    end = time.monotonic() + 60
    while jobs():
        assert time.monotonic() < end, "jobs outlive the run"
        time.sleep(0.5)


def test_jobs_that_slurm_refuses_are_named(slurm, tmp_path):
    settings = ClusterSettings(kind="slurm", queue="none", interface="lo", walltime="00:10:00")
    with (
        pytest.raises(DdgmError, match=r"SLURM takes no such jobs: .*[Ii]nvalid partition"),
        connect(settings, folder=tmp_path),
    ):
        pass
    assert not jobs()
