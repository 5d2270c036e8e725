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
WITHOUT_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1"""
DATABASE_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db")
DATABASE_PORT = 13306
ACCOUNTING = """\
AuthType=auth/munge
DbdHost=localhost
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={port}
StorageUser=slurm
StoragePass=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""
DATABASE_USER = """\
CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON *.* TO slurm@'127.0.0.1';
"""
GPUS = """\
NodeName=n[1-2] Name=gpu Type=a100 File=/dev/null
NodeName=n[1-2] Name=gpu Type=a100 File=/dev/zero
"""
HOSTS = Path("/etc/hosts")
OWN_HOSTS = "127.0.0.1 n1 n2 # the SLURM of ddgm's tests\n"


def obstacle():
    """Return why no SLURM can be started here, if so."""
    if absent := absent_ones(PROGRAMS):
        return f"SLURM is not installed ({absent}); apt install slurm-wlm munge"
    if os.geteuid() != 0:
        return "starting a SLURM of one's own takes root"
    if CONFIG.exists() and "ClusterName=ddgm" not in CONFIG.read_text():
        return f"{CONFIG} belongs to another cluster"
    if "UP" in output_of("scontrol", "ping"):
        return "another run of these tests has its SLURM here"
    return None


def absent_ones(programs):
    """Return the names of programs that are not installed."""
    return ", ".join(name for name in programs if shutil.which(name) is None)


@dataclass
class SmallSlurm:
    """Its daemons, by name: munged, slurmctld, n1 and n2; with accounting mariadbd and slurmdbd."""

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
        for name in ("slurm.conf", "gres.conf", "slurmdbd.conf"):
            CONFIG.with_name(name).unlink(missing_ok=True)
        HOSTS.write_text(HOSTS.read_text().replace(OWN_HOSTS, ""))

    def _start(self, name, *command):
        # Of a session of its own: an interrupt of the tests is for the tests.
        with (self.folder / f"{name}.txt").open("a") as output:
            self.daemons[name] = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True
            )

    def start_accounting(self):
        """Keep account of jobs from now on, as sites with `sacct` do."""
        data = self.folder / "database"
        install = ("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}")
        subprocess.run(install, check=True, capture_output=True)
        user = self.folder / "user.sql"
        user.write_text(DATABASE_USER)
        self._start(
            "mariadbd",
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}"),
            *(f"--socket={self.folder}/database.sock", f"--init-file={user}"),
            *("--bind-address=127.0.0.1", f"--port={DATABASE_PORT}"),
        )
        wait_for(lambda: is_open(DATABASE_PORT), "the database does not answer")
        settings = CONFIG.with_name("slurmdbd.conf")
        settings.touch(mode=0o600)
        settings.write_text(ACCOUNTING.format(port=DATABASE_PORT, folder=self.folder))
        self._start("slurmdbd", "slurmdbd", "-D")
        wait_for(lambda: is_open(6819), "slurmdbd does not answer")
        self._restart(WITHOUT_ACCOUNTING, WITH_ACCOUNTING)
        wait_for(lambda: "ddgm" in output_of("sacctmgr", "-n", "show", "cluster"), "no accounting")

    def stop_accounting(self):
        """Be without it again."""
        self._restart(WITH_ACCOUNTING, WITHOUT_ACCOUNTING)
        self.end("slurmdbd")
        self.end("mariadbd")

    def _restart(self, setting, other):
        for name in ("slurmctld", *NODES):
            self.end(name)
        CONFIG.write_text(CONFIG.read_text().replace(setting, other))
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

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


def is_open(port):
    """Tell whether a daemon of this machine listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


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
