"""A real SLURM on this machine: one controller, one node, started for the tests and ended after."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIG = """
ClusterName=ddgm
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
MinJobAge=300
KillWait=5
SlurmdTimeout=30
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A SLURM that takes jobs."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        pytest.skip(f"SLURM is not installed ({', '.join(absent)}); apt install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("starting a SLURM of one's own takes root")
    config = Path("/etc/slurm/slurm.conf")
    if config.exists() and "ClusterName=ddgm" not in config.read_text():
        pytest.skip(f"{config} belongs to another cluster")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config.parent.mkdir(exist_ok=True)
    host = socket.gethostname().split(".")[0]
    config.write_text(CONFIG.format(host=host, folder=folder, cpus=psutil.cpu_count()))
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    Path("/run/munge").chmod(0o755)
    started = []
    try:
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode != 0:
            munged = ["runuser", "-u", "munge", "--", "munged", "--force", "--foreground"]
            started.append(subprocess.Popen(munged))
            time.sleep(0.5)
        started += [subprocess.Popen([name, "-D"]) for name in ("slurmctld", "slurmd")]
        end = time.monotonic() + 30
        while "idle" not in state():
            assert time.monotonic() < end, "SLURM does not come up; see its logs"
            time.sleep(0.2)
        yield folder
    finally:
        subprocess.run(["scancel", "--user", "root"], check=False)
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)
        config.unlink()


def state():
    result = subprocess.run(
        ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False
    )
    return result.stdout
