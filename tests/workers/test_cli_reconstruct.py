"""``ddgm reconstruct`` and what leads to it and from it, as a user calls them."""

import os
import signal
import subprocess
import sys
import time

import mrcfile
import numpy as np
import pytest
import torch

from ddgm.denoiser import DenoiserCard, Normalisation, save_denoiser
from ddgm.describe import describe
from ddgm.network import Architecture, UNet
from ddgm.tilt_series import open_tilt_series
from ddgm.volume import open_volume

FEW = ["--set", "N=3", "--patch", "32", "--stride", "24", "--batch", "2", "--workers", "1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(*arguments):
    return [sys.executable, "-m", "ddgm", *map(str, arguments)]


def ddgm(folder, *arguments, status=0):
    ended = subprocess.run(
        command(*arguments),
        cwd=folder,
        env={**ENVIRONMENT, "DDGM_PROGRESS": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    return ended.stdout if status == 0 else ended.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of two levels, the tilt series of made-up tissue, and the same as a stack."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    shape = Architecture(widths=(8, 16), convolutions=1)
    card = DenoiserCard(shape, Normalisation(129.6, 33.2), 0.03, 30.0, 16.0, "random weights")
    network = UNet(shape)
    with torch.no_grad():  # as small as an untrained one should be
        network.outlet[2].weight.mul_(0.1)
    save_denoiser(network, card, folder / "net.safetensors")
    told = ddgm(
        folder,
        *["simulate", "synthetic", "--size", "80,6,32", "--views", 24, "--seed", 3],
        *["--noise-std", 2, "-o", "stack.mrc"],
    )
    assert "6 sections × 24 views × 80 detector bins of 16 nm" in told
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """What an undisturbed run makes of the tilt series, and what it says."""
    told = ddgm(
        folder,
        *["reconstruct", "stack.zarr", "-o", "whole.zarr", "--network", "net.safetensors", *FEW],
        *["--export", "whole.mrc", "--export", "whole.ome.zarr"],
    )
    return np.asarray(open_volume(folder / "whole.zarr").array), told


def test_the_last_lines_say_what_there_is_and_what_not_to_trust(whole):
    lines = whole[1].splitlines()
    assert lines[0].startswith(
        "whole.zarr: 6 × 32 × 80 voxels (tilt axis, depth, lateral) of 16 nm"
    )
    assert "proximal (N=3," in lines[3]
    assert "3 evaluations of the network" in lines[3]
    assert "took 0:0" in lines[3]
    assert lines[-1].endswith("looks real and may be wrong.")


def test_the_exported_volume_has_its_voxel_size_in_angstrom(folder, whole):
    with mrcfile.open(folder / "whole.mrc") as file:
        assert file.voxel_size.item() == pytest.approx((160, 160, 160))
        np.testing.assert_array_equal(file.data, whole[0].transpose(1, 0, 2))
    image = describe(str(folder / "whole.ome.zarr"))
    assert image.kind == "OME-Zarr image 0.5"
    assert image.facts["levels"][0] == "32 × 6 × 80 voxels of 16 nm, uint8"


def test_a_stack_gives_what_its_tilt_series_gives(folder, whole):
    ddgm(
        folder,
        *["reconstruct", "stack.mrc", "-o", "of_stack.zarr", "--network", "net.safetensors", *FEW],
        *["--values", "grey", "--depth", 512, "--noise-std"],
        open_tilt_series(folder / "stack.zarr").noise_std,
    )
    np.testing.assert_array_equal(open_volume(folder / "of_stack.zarr").array, whole[0])


def test_an_interrupted_one_goes_on(folder, whole):
    arguments = ["reconstruct", "stack.zarr", "-o", "again.zarr", "--network", "net.safetensors"]
    process = subprocess.Popen(
        command(*arguments, *FEW),
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests may run in the background of a shell, which makes its jobs ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    finished = folder / "again.zarr.partial" / "finished"
    deadline = time.monotonic() + 200
    while not (finished.exists() and list(finished.glob("*.json"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to workers as well
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 130, error
    assert "interrupted; the same command goes on where it stopped" in error
    assert "Traceback" not in error
    done = {path: path.stat().st_mtime_ns for path in finished.glob("*.json")}
    assert describe(str(folder / "again.zarr.partial")).kind == "unfinished work"
    assert 1 <= len(done) < 3
    ddgm(folder, *arguments, *FEW)
    np.testing.assert_array_equal(open_volume(folder / "again.zarr").array, whole[0])


def test_reconstructions_are_compared_with_the_truth(folder, whole):
    told = ddgm(folder, "evaluate", "stack.volume.zarr", "whole.zarr", "--csv", "metrics.csv")
    assert "MSE ↓" in told
    assert "whole.zarr" in told
    assert "of 6 sections" in told
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 7
    assert rows[0].startswith("reconstruction,image,mse,psnr,ssim,data_error")
    assert rows[1].startswith("whole.zarr,0,")
