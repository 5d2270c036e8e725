"""A real SLURM on this machine: two nodes that pretend to be larger, and to have GPUs."""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIG = Path("/etc/slurm/slurm.conf")  # nowhere else: job steps lose SLURM_CONF
NODES = ("n1", "n2")
SETTINGS = """\
ClusterName=ddgm
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=500
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MinJobAge=100000
KillWait=5
SlurmdTimeout=10
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17002] \
CPUs=16 RealMemory=64000 Gres=gpu:a100:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
GPUS = """\
NodeName=n[1-2] Name=gpu Type=a100 File=/dev/null
NodeName=n[1-2] Name=gpu Type=a100 File=/dev/zero
"""
HOSTS = Path("/etc/hosts")
OWN_HOSTS = "127.0.0.1 n1 n2 # the SLURM of ddgm's tests\n"


def obstacle():
    """Return why no SLURM can be started here, if so."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"SLURM is not installed ({', '.join(absent)}); apt install slurm-wlm munge"
    if os.geteuid() != 0:
        return "starting a SLURM of one's own takes root"
    if CONFIG.exists() and "ClusterName=ddgm" not in CONFIG.read_text():
        return f"{CONFIG} belongs to another cluster"
    if "UP" in output_of("scontrol", "ping"):
        return "another run of these tests has its SLURM here"
    return None


@dataclass
class SmallSlurm:
    """Its daemons, by name: munged, slurmctld, n1 and n2."""

    folder: Path
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self):
        """Start everything and wait until both nodes take jobs."""
        (self.folder / "state").mkdir()
        CONFIG.parent.mkdir(exist_ok=True)
        host = socket.gethostname().split(".")[0]
        CONFIG.write_text(SETTINGS.format(host=host, folder=self.folder))
        CONFIG.with_name("gres.conf").write_text(GPUS)
        HOSTS.write_text(HOSTS.read_text().replace(OWN_HOSTS, "") + OWN_HOSTS)
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        Path("/run/munge").chmod(0o755)
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode != 0:
            self._start("munged", "runuser", "-u", "munge", "--", "munged", "--force", "-F")
            time.sleep(0.5)
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

    def stop(self):
        """End all jobs and daemons."""
        try:
            subprocess.run(["scancel", "--user", "root"], check=False)
            wait_for(lambda: not jobs(), "jobs do not end")
        finally:
            self._remove()

    def _remove(self):
        for name in reversed(list(self.daemons)):
            self.end(name)
        for file in (CONFIG, CONFIG.with_name("gres.conf")):
            file.unlink(missing_ok=True)
        HOSTS.write_text(HOSTS.read_text().replace(OWN_HOSTS, ""))

    def _start(self, name, *command):
        # Of a session of its own: an interrupt of the tests is for the tests.
        with (self.folder / f"{name}.txt").open("a") as output:
            self.daemons[name] = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True
            )

    def start_controller(self):
        self._start("slurmctld", "slurmctld", "-D")

    def start_node(self, node):
        self._start(node, "slurmd", "-D", "-N", node)

    def end(self, name):
        """End a daemon; the jobs of a node go on."""
        process = self.daemons.pop(name)
        process.terminate()
        process.wait(timeout=60)

    def lose(self, node):
        """Let a node die: its daemon, and all that runs there."""
        self.daemons.pop(node).kill()
        for job in jobs("-w", node, "-t", "RUNNING"):
            listed = output_of("scontrol", "listpids", job, node).splitlines()[1:]
            pids = [line.split()[0] for line in listed]
            subprocess.run(["pkill", "-KILL", "-f", rf"slurmstepd: \[{job}\."], check=False)
            subprocess.run(["kill", "-KILL", *pids], check=False, stderr=subprocess.DEVNULL)

    def mend(self):
        """Cancel what is left and start what has ended."""
        if "slurmctld" not in self.daemons:
            self.start_controller()
        for node in NODES:
            if node not in self.daemons:
                self.start_node(node)
        subprocess.run(["scancel", "--user", "root"], check=False)
        self.wait_until_idle()

    def wait_until_idle(self):
        wait_for(lambda: set(node_states()) == {"idle"}, "nodes are not idle")


def wait_for(condition, complaint, seconds=60):
    """Wait until a condition holds; returns what it returns."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, complaint
        time.sleep(0.2)
    return answer


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def node_states():
    return output_of("sinfo", "-h", "-N", "-o", "%T").split()


def jobs(*options):
    """Return the numbers of jobs that run or wait."""
    return output_of("squeue", "-h", "-o", "%i", *options).split()


def node_of(job):
    """Return the node that a job runs on."""
    return output_of("squeue", "-h", "-j", job, "-o", "%N").strip()
