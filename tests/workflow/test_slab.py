"""Slabs and volumes of them, as users run them."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import yaozarrs
import zarr
from cloudvolume import CloudVolume

from ddgm.denoiser import load_denoiser
from ddgm.volume import open_volume

SLAB = """
volumes:
  slab:
    address: synthetic
    synthetic: {size: [100, 32, 5], seed: 3}
    mip: 0
    size: null
    box: {start: [0, 0, 1], stop: [100, 32, 5]}
    axes: zyx
slab:
  methods: [algebraic, ddgm_50]
  section: 2
  blending: {patch: 32, stride: 24}
  batch: 2
  precomputed: true
"""
RUN = ("--configfile", "config/tiny.yaml", "config/slab.yaml")
VOLUME = "results/tiny/slab/ddgm_50.zarr"


@pytest.fixture(scope="module")
def slab(finished, tmp_path_factory):
    """A checkout in which a slab has been reconstructed, on top of what was finished."""
    root = tmp_path_factory.mktemp("slab")
    shutil.copytree(finished.root, root, dirs_exist_ok=True, symlinks=True)
    (root / "config" / "slab.yaml").write_text(SLAB)
    made = type(finished)(root)
    status, output = made.snakemake("volume", *RUN)
    assert status == 0, output
    return made, output


def test_one_command_reconstructs_and_exports_a_slab(slab):
    checkout, _ = slab
    results = checkout.root / "results" / "tiny"
    truth = open_volume(results / "volumes" / "slab.zarr")
    assert truth.shape == (4, 32, 100)
    grey = load_denoiser(results / "network" / "denoiser.safetensors").card.normalisation
    table = pd.read_csv(results / "tables" / "slab.csv")
    for name, row in zip(("algebraic", "ddgm_50"), table.itertuples(), strict=True):
        volume = open_volume(results / "slab" / f"{name}.zarr")
        error = (np.asarray(volume.array, float) - np.asarray(truth.array, float)) / grey.std
        assert row.mse == pytest.approx(np.square(error).mean(), rel=1e-4)
        assert row.images == 4
    assert list(table["network_evals"]) == [0, 6]
    assert (results / "figures" / "figure_1.pdf").read_bytes().startswith(b"%PDF")
    assert (
        "dashboard: http://127.0.0.1:"
        in (results / "logs" / "reconstruct_volume" / "algebraic.log").read_text()
    )
    assert "Nothing to be done" in checkout.snakemake("volume", *RUN)[1]


def test_other_programs_open_what_is_exported_in_the_sources_coordinates(slab):
    results = slab[0].root / "results" / "tiny"
    volume = open_volume(results / "slab" / "ddgm_50.zarr")
    image = results / "export" / "ddgm_50.ome.zarr"
    yaozarrs.validate_zarr_store(str(image))
    np.testing.assert_array_equal(zarr.open_array(image / "0")[:], volume.array)  # both z, y, x
    source = CloudVolume(f"file://{results}/export/ddgm_50.precomputed", progress=False)
    assert list(source.voxel_offset) == [0, 0, 1]
    np.testing.assert_array_equal(source[:, :, :][..., 0].T, volume.array)


def test_a_killed_workflow_goes_on_with_the_volume(slab, tmp_path):
    checkout = type(slab[0])(tmp_path / "copy")
    shutil.copytree(slab[0].root, checkout.root, symlinks=True)
    volume = checkout.root / VOLUME
    expected = np.asarray(open_volume(volume).array)
    shutil.rmtree(volume)
    process = subprocess.Popen(
        checkout.command(VOLUME, *RUN),
        cwd=checkout.root,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    finished = volume.with_name("ddgm_50.zarr.partial") / "finished"
    while not list(finished.glob("*.json")):
        assert process.poll() is None, "it ended before anything was finished"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    array = finished.parent / "array"
    written = {
        path.relative_to(array): path.stat().st_mtime_ns
        for record in finished.glob("*.json")
        for path in (array / "c" / str(int(record.stem) // 2)).rglob("*")
        if path.is_file()
    }
    assert written
    assert not volume.exists()
    checkout.snakemake("--unlock", *RUN)
    status, output = checkout.snakemake(VOLUME, "--rerun-incomplete", *RUN)
    assert status == 0, output
    np.testing.assert_array_equal(open_volume(volume).array, expected)
    assert all((volume / path).stat().st_mtime_ns == at for path, at in written.items())


@pytest.fixture
def measured(slab, tmp_path):
    """A checkout whose slab's tilt series is given and to be reconstructed; and how to do it."""
    checkout = type(slab[0])(tmp_path / "copy")
    shutil.copytree(slab[0].root, checkout.root, symlinks=True)
    results = checkout.root / "results" / "tiny"
    (results / "slab" / "tilt_series.zarr").rename(checkout.root / "measured.zarr")
    for made in ("slab", "export", "tables", "metrics"):
        shutil.rmtree(results / made)
    (checkout.root / "config" / "measured.yaml").write_text(
        "slab:\n  methods: [algebraic]\n  tilt_series: measured.zarr\n"
        "  blending: {patch: 32, stride: 24}\n"
    )
    return checkout, ("volume", "--configfile", "config/tiny.yaml", "config/measured.yaml")


def test_a_measured_tilt_series_takes_the_place_of_a_simulated_one(measured):
    checkout, run = measured
    status, output = checkout.snakemake(*run)
    assert status == 0, output
    results = checkout.root / "results" / "tiny"
    assert open_volume(results / "slab" / "algebraic.zarr").shape == (4, 32, 100)
    yaozarrs.validate_zarr_store(str(results / "export" / "algebraic.ome.zarr"))
    assert not (results / "tables" / "slab.csv").exists()  # nobody knows the truth


@pytest.mark.slow  # the message is also that of a test of the workers
def test_a_measured_view_that_is_missing_is_named_in_one_line(measured):
    checkout, run = measured
    zarr.open_array(checkout.root / "measured.zarr", mode="r+")[3, 5] = np.nan
    status, output = checkout.snakemake(*run)
    assert status == 1
    assert "of section 3 is missing: nothing was written there; repair the view" in output
    assert not (checkout.root / "results/tiny/slab/algebraic.zarr").exists()
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("slab: {section: 4}", "config: slab.section = 4: the slab has sections 0 to 3"),
        (
            "volumes: {slab: {synthetic: {size: [64, 64, 48], seed: 1}, box: null}}",
            "overlap: what a network was trained on cannot test it",
        ),
    ],
)
def test_a_slab_that_cannot_be_is_named_before_anything_runs(slab, settings, complaint):
    checkout, _ = slab
    (checkout.root / "config" / "wrong.yaml").write_text(settings)
    status, output = checkout.snakemake("-n", "volume", *RUN, "config/wrong.yaml")
    assert status == 1
    lines = checkout.complaints(output)
    assert len(lines) == 1, output
    assert complaint in lines[0]
