"""Where workers run, and who can reach them."""

import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
from cases import listening, make_case
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from ddgm.cluster import ClusterSettings, connect, is_loopback
from ddgm.errors import DdgmError, SettingError
from ddgm.methods import Algebraic

DASK = str(Path(sys.executable).with_name("dask"))


def own_address():
    """Return an address of this machine that others could reach."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not is_loopback(each.address):
                return each.address
    return None


def test_local_workers_are_reached_from_this_machine_alone(caplog):
    before = listening([psutil.Process()])
    with (
        caplog.at_level("INFO", "ddgm"),
        connect(ClusterSettings(workers=2), device="cpu", cores=4) as workers,
    ):
        info = workers.client.scheduler_info()
        assert [each["nthreads"] for each in info["workers"].values()] == [1, 1]
        assert workers.threads == 2
        here = psutil.Process()
        found = listening([here, *here.children(recursive=True)]) - before
        assert found
        assert all(map(is_loopback, found))
        link = workers.client.dashboard_link
        assert f"dashboard: {link}" in caplog.text
        with urllib.request.urlopen(link, timeout=30) as answer:
            assert b"Dask" in answer.read()


def test_workers_share_the_memory_and_wait_for_nothing_that_does_not_come():
    def state(dask_worker):
        manager = dask_worker.memory_manager
        watchers = sorted(dask_worker.periodic_callbacks)
        return manager.memory_limit, manager.memory_pause_fraction, watchers

    with connect(ClusterSettings(workers=2), device="cpu", cores=2) as workers:
        for limit, pause, watchers in workers.client.run(state).values():
            assert limit == pytest.approx(MEMORY_LIMIT / 2, rel=0.01)
            assert not pause
            assert "profile" not in watchers


def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from ddgm.cluster import ClusterSettings, connect\n"
        "with connect(ClusterSettings(workers=1), device='cpu', cores=1):\n"
        "    pass\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 1
    assert "worker processes do not start" in ended.stderr.splitlines()[-1]
    assert '`if __name__ == "__main__":`' in ended.stderr.splitlines()[-1]


def test_every_four_cores_are_a_worker_unless_said_otherwise():
    with connect(ClusterSettings(), device="cpu", cores=3) as workers:
        assert len(workers.client.scheduler_info()["workers"]) == 1
        assert workers.threads == 3


@pytest.mark.skipif(own_address() is None, reason="this machine has the loopback interface only")
def test_what_others_can_reach_is_encrypted():
    host = own_address()
    with connect(ClusterSettings(workers=1, host=host), device="cpu", cores=1) as workers:
        address = workers.client.scheduler_info()["address"]
        assert address.startswith(f"tls://{host}:")
        assert all(
            worker.startswith(f"tls://{host}:")
            for worker in workers.client.scheduler_info()["workers"]
        )
        assert workers.client.submit(sum, [1, 2]).result() == 3
        plain = address.replace("tls://", "tcp://")
        with pytest.raises(OSError, match=r"(?i)timed out|closed|failed"):
            Client(plain, timeout=3)
        link = workers.client.dashboard_link
        assert link.startswith(f"https://{host}:")
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with urllib.request.urlopen(link, timeout=30, context=trusting) as answer:
            assert b"Dask" in answer.read()
        with pytest.raises(OSError, match=r"(?i)remote end closed|reset|timed out|empty reply"):
            urllib.request.urlopen(link.replace("https", "http"), timeout=5)


def test_workers_of_a_scheduler_that_runs_already(tmp_path):
    file = tmp_path / "scheduler.json"
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    processes = [
        subprocess.Popen(
            [DASK, "scheduler", *options, "--port", "0", "--scheduler-file", str(file)],
            stderr=subprocess.DEVNULL,
        ),
    ]
    try:
        while not file.exists():
            time.sleep(0.1)
        processes.append(
            subprocess.Popen(
                [DASK, "worker", *options, "--scheduler-file", str(file), "--nthreads", "1"],
                stderr=subprocess.DEVNULL,
            )
        )
        with Client(scheduler_file=str(file)) as client:
            address = client.scheduler_info()["address"]
        settings = ClusterSettings(kind="address", address=address, threads=1)
        case = make_case(tmp_path)
        with connect(settings) as workers:
            assert workers.threads == 1
            volume = case.reconstruct(tmp_path / "volume.zarr", workers.client, Algebraic(K=3))
        assert np.asarray(volume.array).std() > 0
        assert all(process.poll() is None for process in processes)  # they are not ours to end
    finally:
        for process in processes:
            process.terminate()
            process.wait(timeout=30)


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    file = str(tmp_path / "none.pem")
    settings = ClusterSettings(kind="address", address="tls://127.0.0.1:8786", tls_ca=file)
    with pytest.raises(SettingError, match=r"tls_ca = .*none\.pem' is no file"), connect(settings):
        pass


def test_workers_that_take_several_tasks_at_a_time_are_refused(tmp_path):
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        settings = ClusterSettings(kind="address", address=cluster.scheduler_address)
        with (
            pytest.raises(DdgmError, match=r"take 2 tasks at a time; .* --nthreads 1"),
            connect(settings),
        ):
            pass


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("ddgm.cluster._SECONDS_FOR_SCHEDULER", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        settings = ClusterSettings(kind="address", address=address)
        with (
            pytest.raises(DdgmError, match=f"no scheduler answers at {address}"),
            connect(settings),
        ):
            pass


def test_a_host_that_is_not_this_machine_is_named():
    settings = ClusterSettings(workers=1, host="192.0.2.1")
    with pytest.raises(DdgmError, match=r"at host 192\.0\.2\.1"), connect(settings, device="cpu"):
        pass


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"kind": "cloud"}, "kind = 'cloud' must be one of local, slurm, address"),
        ({"kind": "address"}, "address = None goes with the kind"),
        ({"address": "tcp://x"}, "address = 'tcp://x' goes with the kind"),
        ({"queue": "main"}, "queue = 'main' has no meaning for the kind 'local'"),
        ({"workers": 0}, "workers = 0 must be at least 1"),
        ({"threads": 0}, "threads = 0 must be at least 1"),
        ({"memory": "much"}, "memory = 'much' is no amount of memory"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, complaint):
    with pytest.raises(SettingError, match=complaint):
        ClusterSettings(**settings)
