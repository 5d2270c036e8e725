"""The workflow as its users run it: Snakemake in a checkout."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

from ddgm.denoiser import load_denoiser
from ddgm.patches import PatchSet
from ddgm.projector import Projector
from ddgm.reconstruction import Reconstruction
from ddgm.sinograms import SinogramSet

REPOSITORY = Path(__file__).resolve().parents[2]

TINY = ("--configfile", "config/tiny.yaml")
TINY_ROWS = ("ddgm_50", "ddrm", "dps", "proximal", "algebraic", "generation")


def test_one_command_goes_from_a_volume_to_table_1(finished):
    results = finished.root / "results" / "tiny"
    table = pd.read_csv(results / "tables" / "table_1.csv")
    labels = ["DDGM, N ≤ 50", "DDRM", "DPS*", "Proximal", "Algebraic", "Generated"]
    assert list(table["method"]) == labels
    assert list(table["gradient_evals"]) == [18, 0, 13, 0, 20, 0]
    assert list(table["network_evals"]) == [6, 3, 13, 4, 0, 5]
    assert list(table["network_gradient_evals"]) == [0, 0, 13, 0, 0, 0]
    assert list(table["images"]) == [3, 3, 2, 3, 3, 3]
    assert np.isfinite(table[["mse", "mse_se", "ssim", "ssim_se"]].to_numpy()).all()
    for name in ("tables/table_1.md", "tables/table_1.tex", "network/losses.csv"):
        assert (results / name).stat().st_size > 0
    for name in (*(f"figure_{number}" for number in (2, 4, 5, 6, 7, 8, 12)), "training"):
        assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_is_that_of_the_reconstructions(finished):
    results = finished.root / "results" / "tiny"
    card = load_denoiser(results / "network" / "denoiser.safetensors").card
    truth = PatchSet.load(results / "patches" / "test.npz").normalised(card.normalisation)
    table = pd.read_csv(results / "tables" / "table_1.csv")
    measured = SinogramSet.load(results / "sinograms" / "test.npz")
    operator = Projector(measured.geometry)
    rows = pd.read_csv(results / "metrics" / "test.csv").groupby("method")
    for name, line in zip(TINY_ROWS, table.itertuples(), strict=True):
        images = Reconstruction.load(results / "reconstructions" / "test" / f"{name}.npz").images
        error = (images - truth[: len(images)]).square().mean(dim=(1, 2))
        assert line.mse == pytest.approx(float(error.mean()), rel=1e-5)
        residual = operator.forward(images) - measured.sinograms[: len(images)]
        assert line.data_error == pytest.approx(float(residual.square().mean()), rel=1e-4)
        assert list(rows.get_group(name)["image"]) == list(range(len(images)))
        assert rows.get_group(name)["mse"].to_numpy() == pytest.approx(error.numpy(), rel=1e-5)
        assert (rows.get_group(name)["seconds"] > 0).all()


def test_the_network_file_describes_the_training_volume(finished):
    results = finished.root / "results" / "tiny"
    card = load_denoiser(results / "network" / "denoiser.safetensors").card
    voxels = np.asarray(zarr.open_array(results / "volumes" / "train.zarr")[:])
    assert card.normalisation.mean == pytest.approx(voxels.mean())
    assert card.normalisation.std == pytest.approx(voxels.std())
    assert card.architecture.widths == (8, 16)
    assert (card.sigma_min, card.sigma_max, card.voxel_size) == (0.03, 30.0, 16.0)


def test_the_download_took_the_box_and_the_axes_of_the_config(finished):
    results = finished.root / "results" / "tiny"
    array = zarr.open_array(results / "volumes" / "eval.zarr")
    assert array.shape == (48, 44, 48)  # y, z, x
    assert list(array.attrs["origin_voxels"]) == [0, 4, 0]
    assert list(array.attrs["voxel_size_nm"]) == [16, 16, 16]


def test_the_tilt_series_carry_their_geometry_and_noise(finished):
    measured = SinogramSet.load(finished.root / "results" / "tiny" / "sinograms" / "test.npz")
    assert measured.geometry.sinogram_shape == (24, 32)
    assert measured.geometry.angles[0] == -60.0
    assert measured.noise_std == 4.1


def test_afterwards_nothing_is_to_be_done(finished):
    status, output = finished.snakemake("-n", "paper", *TINY)
    assert status == 0, output
    assert "Nothing to be done" in output


def test_another_run_of_the_same_geometry_shares_the_eigenbasis(finished):
    (finished.root / "config" / "other.yaml").write_text("run: other\n")
    status, output = finished.snakemake("-n", "table_1", *TINY, "config/other.yaml")
    assert status == 0, output
    assert re.search(r"^reconstruct +6$", output, re.MULTILINE)
    assert not re.search(r"^eigenbasis ", output, re.MULTILINE)


@pytest.mark.slow  # most of the workflow once more
def test_the_same_config_and_seed_give_the_same_table(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    results = tmp_path / "results" / "tiny"
    for made in ("patches", "sinograms", "network", "reconstructions", "metrics", "tables"):
        shutil.rmtree(results / made)
    status, output = type(finished)(tmp_path).snakemake("table_1", *TINY)
    assert status == 0, output
    for name in ("table_1.csv", "table_1.md", "table_1.tex"):
        expected = finished.root / "results" / "tiny" / "tables" / name
        assert (results / "tables" / name).read_bytes() == expected.read_bytes()


def test_a_named_network_is_planned_with_and_nothing_is_trained(finished, checkout):
    trained = finished.root / "results" / "tiny" / "network" / "denoiser.safetensors"
    shutil.copy(trained, checkout.root / "mine.safetensors")
    (checkout.root / "config" / "named.yaml").write_text("network: {path: mine.safetensors}\n")
    status, output = checkout.snakemake("-n", "table_1", *TINY, "config/named.yaml")
    assert status == 0, output
    assert re.search(r"^statistics_of_network +1$", output, re.MULTILINE)
    assert not re.search(r"^(train|statistics) ", output, re.MULTILINE)
    assert re.search(r"^download +1$", output, re.MULTILINE)


@pytest.mark.slow
def test_a_named_network_gives_the_table_of_the_run_that_trained_it(finished, checkout):
    trained = finished.root / "results" / "tiny" / "network" / "denoiser.safetensors"
    named = checkout.root / "mine.safetensors"
    shutil.copy(trained, named)
    overlay = checkout.root / "config" / "named.yaml"
    overlay.write_text("run: named\nnetwork: {path: mine.safetensors}\n")
    status, output = checkout.snakemake("table_1", *TINY, "config/named.yaml")
    assert status == 0, output
    assert not (checkout.root / "results/named/volumes/train.zarr").exists()
    table = pd.read_csv(checkout.root / "results/named/tables/table_1.csv")
    expected = pd.read_csv(finished.root / "results/tiny/tables/table_1.csv")
    pd.testing.assert_frame_equal(table, expected, rtol=1e-5)


def test_a_label_reruns_the_table_but_no_reconstruction(finished):
    overlay = finished.root / "config" / "label.yaml"
    overlay.write_text("methods: {algebraic: {label: Gradient descent}}\n")
    status, output = finished.snakemake("-n", "table_1", *TINY, "config/label.yaml")
    assert status == 0, output
    assert re.search(r"^table_1 +1$", output, re.MULTILINE)
    assert not re.search(r"^(reconstruct|train|metrics|sinograms) ", output, re.MULTILINE)


def test_a_setting_of_one_method_reruns_that_method_alone(finished):
    overlay = finished.root / "config" / "steps.yaml"
    overlay.write_text("methods: {ddrm: {N: 2}}\n")
    status, output = finished.snakemake("-n", "table_1", *TINY, "config/steps.yaml")
    assert status == 0, output
    assert re.search(r"^reconstruct +1$", output, re.MULTILINE)
    assert not re.search(r"^(train|sinograms|patches) ", output, re.MULTILINE)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_when_snakemake_is_run_again(checkout):
    network = "results/tiny/network/denoiser.safetensors"
    overlay = checkout.root / "config" / "long.yaml"
    overlay.write_text("training: {steps: 300}\n")
    arguments = (network, *TINY, "config/long.yaml")
    process = subprocess.Popen(
        checkout.command(*arguments),
        cwd=checkout.root,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    last = checkout.root / "results/tiny/network/training/checkpoints/last.ckpt"
    deadline = time.monotonic() + 200
    while not last.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert not (checkout.root / network).exists()
    assert last.exists()

    status, output = checkout.snakemake(*arguments)
    assert status == 0, output
    assert "training goes on from" in (checkout.root / "results/tiny/logs/train.log").read_text()
    losses = pd.read_csv(checkout.root / "results/tiny/network/losses.csv")
    assert losses["step"].is_unique
    assert losses["step"].max() == 299


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("patches: {colour: 3}", "config: unknown key patches.colour; patches takes "),
        (
            "volumes: {eval: {box: {stop: [48, 48, 49]}}}",
            "config: volumes.eval.box = (0, 0, 4)–(48, 48, 49) is outside the volume",
        ),
    ],
)
def test_a_wrong_config_is_refused_in_one_line_before_anything_starts(checkout, overlay, message):
    (checkout.root / "config" / "wrong.yaml").write_text(overlay + "\n")
    status, output = checkout.snakemake("paper", *TINY, "config/wrong.yaml")
    assert status == 1
    lines = checkout.complaints(output)
    assert len(lines) == 1, output
    assert lines[0].startswith(message)
    assert not (checkout.root / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "config: container = None: --sdm apptainer needs an image"),
        (("--config", "container=absent.sif"), "config: container = 'absent.sif': no such file"),
    ],
)
def test_jobs_for_a_container_do_not_run_outside_of_one(checkout, arguments, message):
    status, output = checkout.snakemake("paper", *TINY, "--sdm", "apptainer", *arguments)
    assert status == 1
    assert checkout.complaints(output) == [message]


def test_jobs_run_in_the_container_of_the_configuration(checkout):
    calls = checkout.root / "calls"
    program = checkout.root / "bin" / "apptainer"
    program.parent.mkdir()
    # The script comes last, after the image and a shell: here it runs outside, but is noted.
    program.write_text(
        '#!/bin/bash\nif [ "$1" = --version ]; then echo "apptainer version 1.3.0"; exit; fi\n'
        f'echo "$@" >> {calls}\n'
        'while [ "$1" != some.sif ]; do shift; done; shift; exec "$@"\n'
    )
    program.chmod(0o755)
    (checkout.root / "some.sif").touch()
    path = os.pathsep.join(
        [str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    target = "results/tiny/source/train"
    status, output = checkout.snakemake(target, *TINY, "--config", "container=some.sif", PATH=path)
    assert status == 0, output
    assert not calls.exists()
    arguments = ("--forceall", "--sdm", "apptainer", "--config", "container=some.sif")
    status, output = checkout.snakemake(target, *TINY, *arguments, PATH=path)
    assert status == 0, output
    assert "synthesize" in calls.read_text()


def test_real_data_that_are_not_there_are_asked_for(checkout):
    status, output = checkout.snakemake("-n", "table_1", "--configfile", "config/fib25.yaml")
    assert status == 1
    assert "DDGM_DATA_DIR" in output.splitlines()[-1]
    status, output = checkout.snakemake(
        "-n", "table_1", "--configfile", "config/fib25.yaml", DDGM_DATA_DIR="/nowhere"
    )
    assert status == 1
    assert "no precomputed volume at file:///nowhere/" in output.splitlines()[-1]


def test_the_papers_workflow_is_planned_without_a_connection(checkout):
    status, output = checkout.snakemake("-n", "paper")
    assert status == 0, output
    assert re.search(r"^train +1$", output, re.MULTILINE)
    assert re.search(r"^download +3$", output, re.MULTILINE)  # train, eval and slab
    figures = {int(number) for number in re.findall(r"^figure_(\d+) +1$", output, re.MULTILINE)}
    assert figures == set(range(1, 17))


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        (1, "volumes.slab and slab.tilt_series are null"),
        (10, "the full grid of config/sweeps/tiny_sigma1.tsv has no point with N = 100"),
        (13, "sweeps.tables has no ddrm"),
    ],
)
def test_a_figure_that_the_configuration_cannot_draw_says_why(checkout, figure, reason):
    status, output = checkout.snakemake("-n", f"figure_{figure}", *TINY)
    assert status == 1
    assert output.splitlines()[-1] == f"config: figure_{figure} cannot be drawn: {reason}"


def test_the_demonstration_can_draw_all_figures(checkout):
    status, output = checkout.snakemake("-n", "--configfile", "config/demo.yaml")
    assert status == 0, output
    figures = {int(number) for number in re.findall(r"^figure_(\d+) +1$", output, re.MULTILINE)}
    assert figures == set(range(1, 17))


def test_a_slurm_that_does_not_answer_is_nothing_to_a_run_without_it(checkout, tmp_path):
    squeue = tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    squeue.chmod(0o755)
    path = f"{squeue.parent}:{os.environ['PATH']}"
    target = "results/tiny/source/eval"
    status, output = checkout.snakemake(target, "--configfile", "config/tiny.yaml", PATH=path)
    assert status == 0, output
    assert "slurm: squeue failed: no controller; jobs left behind by an earlier run" in output
    assert "Traceback" not in output


def test_every_rule_says_what_a_cluster_and_a_reader_need(checkout):
    on_gpus = {"train", "eigenbasis", "posterior", "reconstruct", "reconstruct_volume"}
    on_gpus |= {"sweep_{sweep}_point"}
    costly = on_gpus | {"download", "simulate_slab", "statistics"}
    seen = set()
    for path in (checkout.root / "workflow" / "rules").glob("*.smk"):
        for text in re.split(r"^\s*rule(?=[ :])", path.read_text(), flags=re.MULTILINE)[1:]:
            name = text.split(":")[0].strip() or re.search(r'name:\s+f"(.+)"', text)[1]
            seen.add(name)
            wanted = {"log:", "conda:", "mem_mb=", "runtime=", '"""'}
            wanted |= {"benchmark:"} if name in costly else set()
            wanted |= {"gpu="} if name in on_gpus else set()
            if "localrule: True" in text:
                wanted -= {"mem_mb=", "runtime="}  # runs where Snakemake does
            if re.search(r"\*\*(training_nodes|volume_workers)\(", text):
                wanted -= {"mem_mb=", "gpu="}  # these say so
            if (
                name not in ("paper", "sweeps", "uncertainty", "volume")
                and "impossible(" not in text
            ):
                assert [word for word in wanted if word not in text] == [], f"{path.name}: {name}"
    assert costly <= seen


def test_a_change_of_the_librarys_code_reruns_what_it_made_and_a_comment_nothing(
    finished, tmp_path
):
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    own = type(finished)(tmp_path)
    environment = {"PYTHONPATH": str(tmp_path / "src")}
    method = tmp_path / "src" / "ddgm" / "methods" / "ddgm.py"
    text = method.read_text()

    method.write_text("# A comment.\n" + text.replace("Run Algorithm 1.", "Run the algorithm."))
    # A method more is a reason to reconstruct with that method, and with no other.
    registry = tmp_path / "src" / "ddgm" / "methods" / "__init__.py"
    entries = registry.read_text()
    assert '"ddgm": DDGM,' in entries
    registry.write_text(entries.replace('"ddgm": DDGM,', '"ddgm": DDGM, "another": DDGM,'))
    (method.parent / "another.py").write_text(text)
    status, output = own.snakemake("-n", "table_1", *TINY, **environment)
    assert status == 0, output
    assert "Nothing to be done" in output

    method.write_text(text.replace("x = problem.zeros()", "x = problem.zeros() + 1"))
    status, output = own.snakemake("-n", "table_1", *TINY, **environment)
    assert status == 0, output
    assert re.search(r"^reconstruct +1$", output, re.MULTILINE)
    assert not re.search(r"^(train|sinograms|patches|eigenbasis) ", output, re.MULTILINE)


@pytest.mark.slow
def test_two_devices_train_in_the_workflow_and_machine_settings_retrain_nothing(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    own = type(finished)(tmp_path)
    (tmp_path / "config" / "two.yaml").write_text("training: {devices: 2, log_every: 1}\n")
    arguments = ("table_1", *TINY, "config/two.yaml")
    status, output = own.snakemake("-n", *arguments)
    assert status == 0, output
    assert "Nothing to be done" in output

    before = load_denoiser(tmp_path / "results/tiny/network/denoiser.safetensors").network
    status, output = own.snakemake("-R", "train", "--until", "train", *TINY, "config/two.yaml")
    assert status == 0, output
    after = load_denoiser(tmp_path / "results/tiny/network/denoiser.safetensors").network
    new, old = (
        torch.cat([each.flatten() for each in network.parameters()]) for network in (after, before)
    )
    assert (new - old).norm() < 0.05 * old.norm()  # rounding, enlarged by Adam
    assert len(pd.read_csv(tmp_path / "results/tiny/network/losses.csv")) == 40
