"""What the report says about a run besides its results."""

import subprocess

import numpy as np
import pandas as pd
import torch
import yaml

from ddgm.provenance import configuration, run_times, times_of_images, times_of_steps, versions

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(path, seconds, memory, processor):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"{HEAD}{seconds}\t0:00:01\t{memory}\t9\t9\t9\t0.00\t0.00\t90.00\t{processor}\n"
    )


def test_every_setting_is_listed_and_reads_as_it_was_written():
    config = {
        "run": "50",
        "volume": {"box": {"start": [1, 2, 3]}, "size": None},
        "methods": {"ddgm": {"eta": 0.00009, "on": True, "label": "DPS*, N ≤ 50"}},
        "none": {},
    }
    table = configuration(config).set_index("key")["value"]
    assert list(table.index) == [
        "run",
        "volume.box.start",
        "volume.size",
        "methods.ddgm.eta",
        "methods.ddgm.on",
        "methods.ddgm.label",
        "none",
    ]
    read = {key: yaml.safe_load(value) for key, value in table.items()}
    assert read["run"] == "50"
    assert read["volume.box.start"] == [1, 2, 3]
    assert read["volume.size"] is None
    assert read["methods.ddgm.eta"] == 0.00009
    assert read["methods.ddgm.label"] == "DPS*, N ≤ 50"
    assert read["none"] == {}
    assert "\n" not in "".join(table)


def test_versions_are_those_of_what_runs_and_the_commit_that_of_the_checkout(tmp_path):
    table = versions(tmp_path, Snakemake="9.9").set_index("what")["value"]
    assert table["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert table["numpy"] == np.__version__
    assert table["Snakemake"] == "9.9"
    assert table["commit"] == "unknown: no git checkout"
    assert int(table["cores"]) >= 1
    assert table["processor"]
    assert (table["GPU"] == "none") == (torch.cuda.device_count() == 0)
    assert "ddgm" in table

    def git(*words):
        identity = ("-c", "user.name=A", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    commit = versions(tmp_path).set_index("what")["value"]["commit"]
    assert commit == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "file").write_text("2")
    assert versions(tmp_path).set_index("what")["value"]["commit"] == f"{commit}-dirty"


def test_run_times_are_gathered_summed_by_step_and_ordered(tmp_path):
    benchmark(tmp_path / "train.tsv", 100.5, 2000, 190)
    benchmark(tmp_path / "reconstruct" / "test" / "ddgm.tsv", 20, 300, 35)
    benchmark(tmp_path / "reconstruct" / "test" / "ddrm.tsv", 30, 200, 45)
    benchmark(tmp_path / "reconstruct" / "validation" / "ddgm.tsv", 0.4, "NA", "-")
    jobs = run_times(tmp_path)
    assert list(jobs["job"]) == [
        "reconstruct/test/ddgm",
        "reconstruct/test/ddrm",
        "reconstruct/validation/ddgm",
        "train",
    ]
    assert list(jobs["seconds"]) == [20, 30, 0.4, 100.5]
    assert np.isnan(jobs["max_rss_mb"][2])

    steps = times_of_steps(jobs).set_index("step")
    assert list(steps.index) == ["train", "reconstruct/test", "reconstruct/validation", "all"]
    assert list(steps["jobs"]) == [1, 2, 1, 4]
    assert list(steps["seconds"]) == [100.5, 50, 0.4, 150.9]
    assert steps.loc["reconstruct/test", "longest"] == 30
    assert steps.loc["reconstruct/test", "cpu_seconds"] == 80
    assert steps.loc["all", "max_rss_mb"] == 2000


def test_a_run_without_measured_jobs_has_an_empty_table(tmp_path):
    jobs = run_times(tmp_path)
    assert list(jobs.columns) == ["job", "seconds", "cpu_seconds", "max_rss_mb"]
    assert jobs.empty
    assert list(times_of_steps(jobs)["jobs"]) == []


def test_the_time_of_an_image_is_a_mean_over_those_that_a_method_made():
    metrics = pd.DataFrame({"method": ["50", "50", "NA"], "seconds": [1.0, 3.0, 0.5]})
    table = times_of_images(metrics, [("NA", "Algebraic"), ("50", "DDGM, N = 50")])
    assert list(table["method"]) == ["Algebraic", "DDGM, N = 50"]
    assert list(table["images"]) == [1, 2]
    assert list(table["seconds"]) == [0.5, 2.0]
