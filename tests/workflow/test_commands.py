"""Every command that README and guides tell to give is tried here, or where this says."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from checkouts import REPOSITORY, make_checkout
from pages import PAGES, commands, named_blocks
from test_guides import GUIDE, enter

# How each command is tried:
# "plan": Snakemake plans it (-n) and checks the configuration; of volumes on disks and buckets
#     there is the description, and no voxel.
# "make": make says what it would do, and all programs that it would call are there.
# "shell": it is run where the others are planned.
# "run": it is run, by the test named `test_` and what stands after the colon.
# "tests": a test elsewhere gives this command, or what it calls.
# "not": it is not tried, for the reason that follows.
SLURM = "tests: tests/cluster/test_slurm_workflow.py"
NO_REGISTRY = "not: needs a registry of images, and root; docs/containers.md says what was run"
TRIALS = {
    "make install": "make",
    "make install PYTHON=python3.11": "make",
    "make demo": "make",
    "make test": "make",
    "make test-slurm": "make",
    "make check": "make",
    "make format": "make",
    "make bench": "make",
    "make bench-volumes": "make",
    "make plan": "make",
    "make docs": "make",
    ".venv/bin/ddgm reconstruct stack.ali --depth 2000 --bin 8 --output volume.zarr"
    " --export volume.mrc": "tests: tests/workers/test_cli_reconstruct.py",
    "make recover": "tests: tests/cluster/test_faults.py",
    "cat results/demo/tables/table_1.md": "tests: tests/workflow/test_demo.py",
    "snakemake --cores all --configfile config/demo.yaml": "plan",
    "snakemake --cores all --profile slurm": SLURM,
    ".venv/bin/snakemake --cores all --profile slurm": SLURM,
    ".venv/bin/snakemake --cores all --profile slurm -n": "plan",
    ".venv/bin/snakemake --cores 4 --until download": "plan",
    ".venv/bin/snakemake --cores all volume --configfile config/fib25.yaml": "plan",
    ".venv/bin/snakemake --cores all sweeps table_1 --configfile config/fib25.yaml": "plan",
    ".venv/bin/snakemake --cores all uncertainty --configfile config/fib25.yaml": "plan",
    ".venv/bin/snakemake --cores all sweep_sigma1 --configfile config/fib25.yaml": "plan",
    ".venv/bin/snakemake --cores all sweep_sigma1 -R sweep_sigma1_point"
    " --configfile config/fib25.yaml": "plan",
    ".venv/bin/snakemake --cores all --configfile config/fib25.yaml": "plan",
    ".venv/bin/snakemake --cores all -n": "plan",
    ".venv/bin/snakemake --cores all paper --report results/fib25/report.html --report-after-run"
    " --configfile config/fib25.yaml": "plan",
    ".venv/bin/snakemake --cores all paper --report results/fib25_short/report.html"
    " --report-after-run --configfile config/fib25.yaml config/fib25_short.yaml": "plan",
    ".venv/bin/snakemake paper --report results/demo/report.html"
    " --configfile config/demo.yaml": "tests: tests/workflow/test_report.py",
    ".venv/bin/snakemake --cores all volume --configfile config/fib25.yaml slab.yaml": "plan",
    ".venv/bin/snakemake --cores all table_1 --configfile config/fib25.yaml given.yaml": "plan",
    ".venv/bin/snakemake --cores all train --configfile config/fib25.yaml"
    " --config 'network={path: train}'": "plan",
    ".venv/bin/snakemake --cores all -n table_1 figure_2 figure_4"
    " --configfile config/fib25.yaml config/mine.yaml": "plan",
    ".venv/bin/snakemake --cores all table_1 figure_2 figure_4"
    " --configfile config/fib25.yaml config/mine.yaml": "plan",
    ".venv/bin/snakemake --cores all volume"
    " --configfile config/fib25.yaml config/mine.yaml config/my_slab.yaml": "plan",
    ".venv/bin/snakemake --cores all train training_curve figure_2"
    " --configfile config/fib25.yaml config/mine.yaml": "plan",
    ".venv/bin/snakemake --cores all -n table_1 figure_4"
    " --configfile config/demo.yaml config/diffpir.yaml": "plan",
    ".venv/bin/snakemake --cores all table_1 figure_4"
    " --configfile config/demo.yaml config/diffpir.yaml": "plan",
    ".venv/bin/snakemake --cores all sweep_diffpir table_1"
    " --configfile config/demo.yaml config/diffpir.yaml config/diffpir_swept.yaml": "plan",
    ".venv/bin/snakemake --cores all volume --configfile config/demo.yaml config/diffpir.yaml"
    " --config 'slab={methods: [algebraic, diffpir]}'": "plan",
    ".venv/bin/tensorboard --logdir results/mine/network/training/tensorboard": (
        "run: tensorboard_shows_the_training"
    ),
    ".venv/bin/pytest tests/unit/test_methods.py": "tests: tests/workflow/test_guides.py",
    ".venv/bin/pytest tests/unit/test_methods.py tests/unit/test_gaussian_prior.py": (
        "tests: tests/workflow/test_guides.py"
    ),
    ".venv/bin/mypy": "tests: Makefile",
    ".venv/bin/ruff check src": "tests: Makefile",
    ".venv/bin/snakemake --sdm apptainer --configfile config/mine.yaml --profile slurm": (
        "tests: tests/workflow/test_workflow.py"
    ),
    ".venv/bin/snakemake --sdm conda --configfile config/mine.yaml --profile slurm": (
        "not: needs conda and its channels; docs/containers.md says what was run"
    ),
    "podman build -f envs/Dockerfile -t ddgm:0.1 .": NO_REGISTRY,
    "podman save --format oci-archive -o ddgm.tar ddgm:0.1": NO_REGISTRY,
    "apptainer build ddgm.sif oci-archive:ddgm.tar": NO_REGISTRY,
    'docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:$PWD" -w "$PWD" ddgm:0.1'
    " snakemake --cores all --configfile config/demo.yaml": NO_REGISTRY,
    "echo 'slab: {methods: [algebraic, ddgm_50, proximal]}' > slab.yaml": "shell",
    "echo 'sweeps: {select: false}' >> slab.yaml": "shell",
    "echo 'sweeps: {select: false}' > given.yaml": "shell",
}
# The commands of this guide build on one another: tests/workers/test_your_tilt_series.py runs them.
ONE_AFTER_THE_OTHER = "your_tilt_series.md"
GIVEN = [
    command for page in PAGES if page.name != ONE_AFTER_THE_OTHER for command in commands(page)
]
PLANNED = [command for command in TRIALS if TRIALS[command] == "plan"]


def test_every_command_is_tried_and_the_table_has_no_other():
    new = sorted({command for command in GIVEN if command not in TRIALS})
    assert not new, f"say in {__file__} how these are tried: {new}"
    gone = sorted(set(TRIALS) - set(GIVEN))
    assert not gone, f"no page says these any more: {gone}"


def test_tests_that_the_table_names_exist():
    for how in TRIALS.values():
        kind, _, where = how.partition(": ")
        assert kind in ("plan", "make", "run", "tests", "shell", "not")
        if kind == "run":
            assert f"test_{where}" in globals()
        if kind == "tests":
            assert (REPOSITORY / where).is_file()


def describe_volume(folder, *sizes):
    """Write what describes a volume of these sizes, one a mip, without a voxel: plans need none."""
    scales = [
        {
            "key": str(mip),
            "resolution": [16 / 2 ** (len(sizes) - 1 - mip)] * 3,
            "voxel_offset": [0, 0, 0],
            "size": size,
            "chunk_sizes": [[64, 64, 64]],
            "encoding": "raw",
        }
        for mip, size in enumerate(sizes)
    ]
    folder.mkdir(parents=True)
    info = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": scales}
    (folder / "info").write_text(json.dumps(info))


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """A checkout with its own library, and in it all files that the pages tell to write."""
    made = make_checkout(tmp_path_factory.mktemp("guided"))
    shutil.copytree(REPOSITORY / "src", made.root / "src")
    for page in PAGES:
        for name, content in named_blocks(page).items():
            if not (made.root / name).exists() and (made.root / name).parent.is_dir():
                (made.root / name).write_text(content, encoding="utf-8")
        for command in commands(page):
            if TRIALS.get(command) == "shell":
                subprocess.run(command, shell=True, cwd=made.root, check=True)
    registry = "src/ddgm/methods/__init__.py"
    enter(made.root / registry, named_blocks(GUIDE)[registry])
    for name, size in {
        "train": (325, 325, 215),
        "eval": (156,) * 3,
        "slab": (325, 325, 15),
    }.items():
        describe_volume(made.root / "fib25" / name, size)
    describe_volume(made.root / "mine", (5120,) * 3, (2560, 2560, 3560))
    for mine in (made.root / "config/mine.yaml", made.root / "config/my_slab.yaml"):
        text = mine.read_text(encoding="utf-8")
        assert "gs://some-bucket/some-volume" in text
        text = text.replace("gs://some-bucket/some-volume", f"file://{made.root}/mine")
        mine.write_text(text, encoding="utf-8")
    return made


@pytest.mark.parametrize("command", PLANNED)
def test_snakemake_plans_what_a_page_says(guided, command):
    # A plan writes no report.
    command = re.sub(r" --report \S+ --report-after-run| -n\b", "", command)
    words = shlex.split(command)[1:]
    status, output = guided.snakemake(
        "-n",
        *words,
        PYTHONPATH=str(guided.root / "src"),
        DDGM_DATA_DIR=str(guided.root / "fib25"),
    )
    assert status == 0, output
    assert re.search(r"^total +\d+$", output, re.MULTILINE), output


@pytest.mark.parametrize("command", [each for each in TRIALS if TRIALS[each] == "make"])
def test_what_make_would_do_is_there_to_be_done(checkout, command):
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, checkout.root)
    status, output = checkout.run([command.split()[0], "-n", *command.split()[1:]], timeout=60)
    assert status == 0, output
    programs = set(re.findall(r"\.venv/bin/(\w[\w-]*)", output)) - {"pip"}
    files = set(re.findall(r"(?<=\s)(?:benchmarks|tests)/\w[\w/]*(?:\.py)?", output))
    assert programs or "install" in command
    assert [each for each in programs if not Path(sys.executable).with_name(each).exists()] == []
    assert [each for each in files if not (REPOSITORY / each).exists()] == []


def test_tensorboard_shows_the_training(finished):
    folder = "results/tiny/network/training/tensorboard"
    server = subprocess.Popen(
        [Path(sys.executable).with_name("tensorboard"), "--logdir", folder, "--port", "0"],
        cwd=finished.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = (re.search(r"http://localhost:\d+/", line) for line in server.stdout)
        address = next(found for found in said if found)[0]
        deadline = time.monotonic() + 60
        tags = ""
        while "loss" not in tags:  # it reads files once it answers
            assert time.monotonic() < deadline, tags
            with urllib.request.urlopen(f"{address}data/plugin/scalars/tags", timeout=60) as page:
                tags = page.read().decode()
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(timeout=30)
