"""One process a device on several nodes of a cluster, for distributed training."""

from __future__ import annotations

import os
import subprocess
import sys

from ddgm.errors import DdgmError

_TASK = "DDGM_NODE_TASK"  # set in the processes that were started here


def run_on_nodes(nodes: int, tasks: int, cores: int) -> bool:
    """Have SLURM run this program on all nodes of the job, unless that is how it was started.

    Lightning starts the processes of one node itself; those of several have to be there
    (`lightning.pytorch.plugins.environments.SLURMEnvironment`).

    Parameters
    ----------
    nodes : int
        Nodes of the job. On one there is nothing to be done.
    tasks : int
        Processes a node, one a device.
    cores : int
        Cores of each process; none are asked for below one, which some sites want.

    Returns
    -------
    bool
        True if the program has been run, and this process has nothing left to do; False if it is to
        go on.

    Raises
    ------
    DdgmError
        Outside a job of SLURM, or if one of the processes fails.
    """
    if nodes == 1 or _TASK in os.environ:
        return False
    if "SLURM_JOB_ID" not in os.environ:
        raise DdgmError(
            f"training: nodes = {nodes}, but this is no job of SLURM; run Snakemake with "
            "--profile slurm, or set training.nodes to 1"
        )
    step = [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks-per-node={tasks}",
        *([f"--cpus-per-task={cores}"] if cores > 0 else []),
        # All wait for one that has failed, for ever.
        "--kill-on-bad-exit=1",
    ]
    environment = {**os.environ, _TASK: "1"}
    command = [*step, sys.executable, *sys.argv]
    try:
        result = subprocess.run(command, env=environment, check=False)
    except FileNotFoundError as error:
        raise DdgmError(
            f"training: nodes = {nodes}, but there is no srun here to start processes on them; "
            "run without a container, or set training.nodes to 1"
        ) from error
    if result.returncode != 0:
        raise DdgmError(f"training: a process on one of the {nodes} nodes failed; see above")
    return True
