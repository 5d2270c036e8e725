"""`snakemake --cores all --profile slurm` on a real SLURM of two nodes."""

import math
import os
import re
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from checkouts import REPOSITORY, TINY, make_checkout
from cluster_runs import CHAIN, ClusterCheckout
from small_slurm import jobs, output_of

from ddgm.archive import read_archive

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SITE = """
default-resources: {slurm_partition: main}
set-resources: {eigenbasis: {gpu_model: a100, cpus_per_task: 3}}
"""
SLAB = {
    "volumes": {
        "slab": {
            "address": "synthetic",
            "synthetic": {"size": [100, 32, 48], "seed": 3},
            "mip": 0,
            "size": None,
            "box": None,
            "axes": "zyx",
        }
    },
    "slab": {
        "methods": ["algebraic"],
        "blending": {"patch": 32, "stride": 24},
        "batch": 1,
        "cluster": {
            "kind": "slurm",
            "workers": 2,
            "threads": 1,
            "memory": "2GiB",
            "walltime": "00:10:00",
            "interface": "lo",
        },
    },
}


def details(number):
    """Return what SLURM says of a job."""
    return dict(re.findall(r"(\S+?)=(\S*)", output_of("scontrol", "show", "job", "-o", number)))


def asked(number):
    """Return the cores, memory and GPUs that a job has asked for."""
    job = details(number)
    kinds = dict(each.split("=") for each in job["TRES"].split(","))
    return kinds["cpu"], kinds["mem"], job.get("TresPerJob")


def jobs_of(run, rule):
    """Return the numbers of the jobs of a run that computed a rule."""
    found = {number: details(number) for number in run.submitted}
    return [number for number, each in found.items() if each["Comment"].startswith(f"rule_{rule}")]


def images(checkout, path):
    return read_archive(checkout.root / "results/chain" / path)["images"]


def test_the_first_steps_make_what_they_make_without_a_cluster(slurm, tmp_path):
    target = "results/chain/reconstructions/test/algebraic.npz"
    here, cluster = (ClusterCheckout(make_checkout(tmp_path / name).root) for name in "ab")
    for each in (here, cluster):
        each.configure(yaml.safe_load(TINY.read_text()), CHAIN)
    (cluster.root / "mysite").mkdir()
    (cluster.root / "mysite/config.yaml").write_text(SITE)
    run = cluster.start(target, "--profile", "mysite")
    status, output = here.run_here(target)
    assert status == 0, output
    status, output = run.finish()
    assert status == 0, output
    path = "reconstructions/test/algebraic.npz"
    np.testing.assert_array_equal(images(cluster, path), images(here, path))
    # Two volumes made and copied; what is prepared together; eigenbasis and reconstruction.
    assert len(run.submitted) == 2 + 2 + 1 + 1 + 1
    (eigenbasis,), (reconstruct,) = jobs_of(run, "eigenbasis"), jobs_of(run, "reconstruct")
    assert asked(eigenbasis) == ("3", "8000M", "gres:gpu:a100:1")
    assert asked(reconstruct) == ("16", "8000M", "gres:gpu:1")
    assert details(reconstruct)["Partition"] == "main"
    assert "Nothing to be done" in cluster.start(target, "--profile", "mysite").finish()[1]


@pytest.mark.slow
def test_points_of_a_sweep_share_jobs_that_ask_for_what_one_needs(slurm, chain, tmp_path):
    checkout = chain.copy(tmp_path / "checkout")
    points = range(1, 13)
    table = checkout.root / "config/sweeps/tiny_algebraic.tsv"
    table.write_text("K\n" + "".join(f"{k}\n" for k in points))
    checkout.configure({"sweeps": {"job": "point"}})
    run = checkout.start("sweep_algebraic")
    status, output = run.finish()
    assert status == 0, output
    groups = [number for number in run.submitted if "group_sweep" in details(number)["Comment"]]
    assert len(groups) == math.ceil(len(points) / 8)
    # Beside them the eigenbasis of the views that are kept when others are held out.
    assert len(run.submitted) <= len(points) / 8 + 2
    assert {asked(number) for number in groups} == {("16", "16000M", "gres:gpu:1")}
    found = pd.read_csv(checkout.root / "results/chain/sweeps/algebraic.csv")
    assert sorted(found["K"].unique()) == list(points)


@pytest.mark.slow
def test_two_nodes_train_the_same_network_and_go_on_when_requeued(slurm, chain, tmp_path):
    losses = {}
    for name, nodes in (("one", 1), ("two", 2)):
        checkout = chain.copy(tmp_path / name)
        checkout.configure({"training": {"nodes": nodes, "accelerator": "cpu"}})
        run = checkout.start("results/chain/network/losses.csv")
        job = run.training()
        assert int(details(job)["NumNodes"]) == nodes
        if nodes > 1:
            subprocess.run(["scontrol", "requeue", job], check=True)
            subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=True)
        status, output = run.finish()
        assert status == 0, output
        assert run.submitted.count(job) == 1
        assert ("training goes on from" in checkout.log_of("train")) == (nodes > 1)
        losses[name] = pd.read_csv(checkout.root / "results/chain/network/losses.csv")
    last = [each["train_loss"].dropna().iloc[-1] for each in losses.values()]
    assert last[0] == pytest.approx(last[1], rel=1e-2)
    assert len(losses["one"]) == len(losses["two"])


@pytest.mark.slow
@pytest.mark.parametrize("end", ["success", "interrupt", "scancel", "SIGKILL"])
def test_no_worker_outlives_the_job_that_asked_for_it(slurm, chain, tmp_path, end):
    checkout = chain.copy(tmp_path / "checkout")
    checkout.configure(SLAB)
    run = checkout.start("results/chain/slab/algebraic.zarr", "--retries", "0")
    job = run.job_of("reconstruct_volume")
    slurm.wait_for(lambda: len(jobs("-n", "ddgm_dask", "-t", "RUNNING")) == 2, run.output)
    if end == "interrupt":
        os.kill(run.process.pid, signal.SIGINT)
    elif end == "scancel":
        subprocess.run(["scancel", job], check=True)
    elif end == "SIGKILL":
        pattern = f"{checkout.root}/.snakemake/scripts/.*reconstruct_volume.py"
        subprocess.run(["pkill", "-KILL", "-f", pattern], check=True)
    status, output = run.finish()
    assert (status == 0) == (end == "success"), output
    slurm.wait_for(lambda: not jobs(), "workers are left behind", seconds=120)
    if end != "success":
        assert not (checkout.root / "results/chain/slab/algebraic.zarr").exists()
        status, output = checkout.start("results/chain/slab/algebraic.zarr").finish()
        assert status == 0, output


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_the_demo_gives_the_tables_of_a_local_run(slurm, tmp_path):
    demo = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())
    here, cluster = (ClusterCheckout(make_checkout(tmp_path / name).root) for name in "ab")
    seconds = {}
    for each in (here, cluster):
        each.configure(demo)
    start = time.monotonic()
    status, output = here.run_here()
    assert status == 0, output
    seconds["here"], start = time.monotonic() - start, time.monotonic()
    run = cluster.start()
    status, output = run.finish(2 * 3600)
    assert status == 0, output
    seconds["cluster"] = time.monotonic() - start
    for table in ("table_1", "selected", "blind", "slab", "prior"):
        path = f"results/demo/tables/{table}.csv"
        assert (cluster.root / path).read_bytes() == (here.root / path).read_bytes()
    steps = int(re.findall(r"of (\d+) steps", output)[-1])
    print(f"{steps} steps, {len(run.submitted)} jobs of SLURM, {seconds}, in the queue:")
    waits = [details(number) for number in run.submitted]
    print(sum(waiting(each) for each in waits))


def waiting(job):
    """Return the seconds that a job has waited in the queue."""
    times = [time.strptime(job[name], "%Y-%m-%dT%H:%M:%S") for name in ("SubmitTime", "StartTime")]
    return time.mktime(times[1]) - time.mktime(times[0])
