"""`snakemake --cores all --profile slurm` on a real SLURM of two nodes."""

import math
import os
import re
import signal
import subprocess
import time

import pandas as pd
import pytest
import torch
import yaml
from checkouts import REPOSITORY, TINY, make_checkout
from cluster_runs import CHAIN, ClusterCheckout
from small_slurm import jobs, output_of, wait_for

from ddgm.engine import cached_path
from ddgm.geometry import TiltGeometry
from ddgm.sinograms import SinogramSet

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

# Of the tiny configuration's images.
EIGENBASIS = cached_path(TiltGeometry.limited_angle((32, 32), views=24, max_tilt=60.0), ".").name
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


def seconds_of(moment):
    """Return the time that SLURM gives, in seconds."""
    return time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))


def asked(number):
    """Return the cores, memory and GPUs that a job has asked for."""
    job = details(number)
    kinds = dict(each.split("=") for each in job["TRES"].split(","))
    return kinds["cpu"], kinds["mem"], job.get("TresPerJob")


def jobs_of(run, rule):
    """Return the numbers of the jobs of a run that computed a rule."""
    found = {number: details(number) for number in run.submitted}
    return [number for number, each in found.items() if each["Comment"].startswith(f"rule_{rule}")]


def test_the_first_steps_make_what_they_make_without_a_cluster(slurm, tmp_path):
    path = "results/chain/sinograms/test.npz"
    here, cluster = (ClusterCheckout(make_checkout(tmp_path / name).root) for name in "ab")
    for each in (here, cluster):
        each.configure(yaml.safe_load(TINY.read_text()), CHAIN)
    (cluster.root / "mysite").mkdir()
    (cluster.root / "mysite/config.yaml").write_text(SITE)
    # The eigenbasis is what asks for a GPU.
    targets = [path, f"results/operators/{EIGENBASIS}"]
    run = cluster.start(*targets, "--profile", "mysite")
    status, output = here.run_here(path)
    assert status == 0, output
    status, output = run.finish()
    assert status == 0, output
    measured, expected = (SinogramSet.load(each.root / path) for each in (cluster, here))
    assert torch.equal(measured.sinograms, expected.sinograms)
    # Two volumes made and copied, what is prepared together, and the eigenbasis.
    assert len(run.submitted) == 2 + 2 + 1 + 1
    (eigenbasis,), (prepared,) = jobs_of(run, "eigenbasis"), jobs_of(run, "prepare_")
    assert asked(eigenbasis) == ("3", "8000M", "gres:gpu:a100:1")
    assert asked(prepared)[2] is None
    assert details(prepared)["Partition"] == "main"
    assert "Nothing to be done" in cluster.start(*targets, "--profile", "mysite").finish()[1]


def test_the_whole_paper_is_planned_within_half_a_minute_and_a_gigabyte(slurm, tmp_path):
    checkout = ClusterCheckout(make_checkout(tmp_path / "checkout").root)
    with (tmp_path / "plan.txt").open("w") as output:
        planning = subprocess.Popen(
            checkout.command("-n"), cwd=checkout.root, env=checkout.environment(), stdout=output
        )
        _, status, used = os.wait4(planning.pid, 0)
    assert status == 0
    assert "sweep_sigma1_point" in (tmp_path / "plan.txt").read_text()
    # Of the processor: what else the machine does meanwhile says nothing of the plan.
    assert used.ru_utime + used.ru_stime < 30
    assert used.ru_maxrss < 1e6  # kilobytes


@pytest.mark.slow
def test_the_end_of_a_job_is_noticed_as_soon_as_the_profile_says(slurm, tmp_path):
    checkout = ClusterCheckout(make_checkout(tmp_path / "checkout").root)
    checkout.configure(yaml.safe_load(TINY.read_text()), CHAIN)
    # Long enough that SLURM's plugin would wait for 25 s and more between two looks.
    checkout.inject("synthesize", "import time\ntime.sleep(40)")
    run = checkout.start("results/chain/source/eval")
    status, output = run.finish()
    assert status == 0, output
    (job,) = run.submitted
    noticed = re.findall(r"^\[(.+)\]\nFinished jobid", output, re.MULTILINE)[0]
    late = time.mktime(time.strptime(noticed)) - seconds_of(details(job)["EndTime"])
    assert late <= 5 + 3  # to look again, and that Snakemake sees the files


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
    groups = jobs_of(run, "sweep_")  # a group goes by its name and those of its rules
    assert len(groups) == math.ceil(len(points) / 8)
    # Rows are gathered, and the figure drawn, here; the other jobs made what points need.
    needed = {*jobs_of(run, "prepare_"), *jobs_of(run, "eigenbasis")}
    assert set(run.submitted) == {*groups, *needed}
    assert {asked(number) for number in groups} == {("16", "16000M", "gres:gpu:1")}
    found = pd.read_csv(checkout.root / "results/chain/sweeps/algebraic.csv")
    assert sorted(found["K"].unique()) == list(points)


def losses(checkout):
    return pd.read_csv(checkout.root / "results/chain/network/losses.csv")


@pytest.fixture(scope="module")
def undisturbed(slurm, chain, tmp_path_factory):
    """The losses of a training by one process, on one node."""
    checkout = chain.copy(tmp_path_factory.mktemp("undisturbed") / "checkout")
    status, output = checkout.start("results/chain/network/losses.csv").finish()
    assert status == 0, output
    return losses(checkout)


# What SLURM is asked for by nodes and by devices of each. The processes of one node are started by
# Lightning, in one task; those of several by SLURM.
FORMS = {
    (1, 2): {"NumNodes": "1", "NumTasks": "1", "TresPerJob": "gres:gpu:2"},
    (2, 1): {"NumNodes": "2", "NumTasks": "2", "TresPerNode": "gres:gpu:1"},
    (2, 2): {"NumNodes": "2", "NumTasks": "4", "TresPerNode": "gres:gpu:2"},
}


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "devices"), FORMS)
def test_processes_train_one_network_and_go_on_when_requeued(
    chain, undisturbed, tmp_path, nodes, devices
):
    checkout = chain.copy(tmp_path / "checkout")
    checkout.configure({"training": {"nodes": nodes, "devices": devices}})
    # Nodes only pretend to have many cores: processes of many threads would stand in their own way.
    few = ("--set-resources", "train:cpus_per_task=1")
    run = checkout.start("results/chain/network/losses.csv", *few)
    job = run.training()
    assert FORMS[nodes, devices].items() <= details(job).items()
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_for(lambda: details(job)["JobState"] == "PENDING", "the job is not requeued")
    # SLURM would let it wait for two minutes.
    subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=True)
    status, output = run.finish()
    assert status == 0, output
    assert run.submitted.count(job) == 1
    assert "training goes on from" in checkout.log_of("train")
    found = losses(checkout)
    assert list(found["step"]) == list(undisturbed["step"])
    for column in ("train_loss", "val_loss"):
        last = [each[column].dropna().iloc[-1] for each in (found, undisturbed)]
        assert last[0] == pytest.approx(last[1], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["success", "interrupt", "scancel", "SIGKILL"])
def test_no_worker_outlives_the_job_that_asked_for_it(slurm, chain, tmp_path, end):
    checkout = chain.copy(tmp_path / "checkout")
    checkout.configure(SLAB)
    run = checkout.start("results/chain/slab/algebraic.zarr", "--retries", "0")
    job = run.job_of("reconstruct_volume")
    wait_for(lambda: len(jobs("-n", "ddgm_dask", "-t", "RUNNING")) == 2, run.output)
    if end == "interrupt":
        os.kill(run.process.pid, signal.SIGINT)
    elif end == "scancel":
        subprocess.run(["scancel", job], check=True)
    elif end == "SIGKILL":
        pattern = f"{checkout.root}/.snakemake/scripts/.*reconstruct_volume.py"
        subprocess.run(["pkill", "-KILL", "-f", pattern], check=True)
    status, output = run.finish()
    assert (status == 0) == (end == "success"), output
    wait_for(lambda: not jobs(), "workers are left behind", seconds=120)
    if end != "success":
        assert not (checkout.root / "results/chain/slab/algebraic.zarr").exists()
        status, output = checkout.start("results/chain/slab/algebraic.zarr").finish()
        assert status == 0, output


def tables_of(checkout):
    """Return the contents of all tables of the demo."""
    tables = (checkout.root / "results/demo/tables").glob("*.csv")
    return {path.name: path.read_bytes() for path in tables}


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
    expected, found = (tables_of(each) for each in (here, cluster))
    assert "table_1.csv" in expected
    assert found == expected
    steps = int(re.findall(r"of (\d+) steps", output)[-1])
    more = (seconds["cluster"] - seconds["here"]) / len(run.submitted)
    print(f"{steps} steps, {len(run.submitted)} jobs of SLURM, {seconds}, {more} s more a job")
    waits = [details(number) for number in run.submitted]
    print("in the queue:", sum(waiting(each) for each in waits), "s")


def waiting(job):
    """Return the seconds that a job has waited in the queue."""
    return seconds_of(job["StartTime"]) - seconds_of(job["SubmitTime"])
