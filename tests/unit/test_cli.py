"""The command line: help, errors of one line, and commands that need no workers."""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ddgm.cli import app, commands, main
from ddgm.cli.common import attribute_help, parse_settings, read_range
from ddgm.denoiser import Normalisation, load_denoiser
from ddgm.errors import DdgmError
from ddgm.methods import METHODS, Evaluations
from ddgm.mrc import export_stack
from ddgm.patches import PatchSet
from ddgm.posterior import Posterior
from ddgm.reconstruction import Reconstruction
from ddgm.sinograms import SinogramSet
from ddgm.slab_simulation import simulate_series
from ddgm.synthetic import make_volume, write_precomputed
from ddgm.training_settings import TrainingSettings
from ddgm.volume import create_volume

WIDE = {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture
def ddgm(tmp_path, monkeypatch, capsys, caplog):
    """Run a command in a folder of its own; returns what it says, or its one line of complaint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDGM_PROGRESS", "0")
    monkeypatch.setenv("DDGM_CACHE_DIR", str(tmp_path / "cache"))
    quiet = ("ddgm.cluster", "ddgm.download", "lightning.pytorch")
    levels = {name: logging.getLogger(name).level for name in quiet}
    ended_by = signal.getsignal(signal.SIGTERM)

    def run(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["ddgm", *map(str, arguments)])
        capsys.readouterr()
        caplog.clear()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
        assert ended.value.code == status, (told.err, errors)
        if status == 0:
            assert not errors
            return told.out
        # The log goes to pytest here instead of to the terminal.
        (line,) = [*told.err.splitlines(), *errors]
        assert "\n" not in line
        return line

    yield run
    logging.captureWarnings(False)
    signal.signal(signal.SIGTERM, ended_by)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def help_of(*command):
    result = CliRunner().invoke(app, [*command, "--help"], env=WIDE, terminal_width=300)
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_help_comes_at_once_and_without_pytorch():
    code = (
        "import sys\nfrom ddgm.cli import main\nsys.argv = ['ddgm', '--help']\n"
        "try:\n    main()\nfinally:\n"
        "    print(sorted({'torch', 'numpy', 'zarr', 'dask', 'lightning'} & set(sys.modules)))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert told.stdout.splitlines()[-1] == "[]"
    # Half a second of CPU at rest; here other tests are in its way.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    for name in commands:
        assert name in told.stdout


@pytest.mark.parametrize("name", commands)
def test_every_option_says_what_it_is(name):
    import typer

    for each in typer.main.get_command(app).commands[name].params:
        if each.name != "help":
            assert len(each.help or "") > 8, each.name


def test_help_shows_defaults_and_units():
    text = help_of("reconstruct")
    for part in ("proximal: N=20, c=1.0", "[default: fib25-16nm]", "Thickness of the slab, nm"):
        assert part in text
    for name in set(METHODS) - {"generation"}:
        assert name in text


def test_training_has_an_option_for_each_setting():
    text = help_of("train")
    for field in fields(TrainingSettings):
        if field.name != "nodes":
            assert f"--{field.name.replace('_', '-')}" in text
            assert attribute_help(TrainingSettings)[field.name].split(".")[0] in text
    assert "[default: 380000]" in text
    assert "[default: 128,128,128,128,128]" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["reconstruct", "a.zarr"], "Missing option '--output'"),
        (["reconstruct", "a.zarr", "-o", "b", "--batch", "0"], "Invalid value for '--batch'"),
        (["reconstruct", "a.zarr", "-o", "b", "--device", "gpu"], "Invalid value for '--device'"),
        (
            ["reconstruct", "a.mrc", "-o", "b", "--tilt-axis", "z"],
            "Invalid value for '--tilt-axis'",
        ),
        (["nonsense"], "No such command 'nonsense'"),
        (["info", "--nonsense"], "No such option: --nonsense"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(ddgm, arguments, complaint):
    assert ddgm(*arguments, status=2).startswith(f"error: {complaint}")


def test_settings_are_numbers_where_they_can_be():
    settings = parse_settings(["K=25", "step_size=9e-5", "rescaled=false", "x=y=z"])
    assert settings == {"K": 25, "step_size": 9e-5, "rescaled": False, "x": "y=z"}
    with pytest.raises(DdgmError, match="--set K is given twice"):
        parse_settings(["K=1", "K=2"])
    assert read_range("3:10", "--sections") == (3, 10)
    with pytest.raises(DdgmError, match="--sections 3-10: write first and last"):
        read_range("3-10", "--sections")


@pytest.fixture(scope="module")
def precomputed(tmp_path_factory):
    """Made-up tissue of 48 × 24 × 40 voxels, x, y, z."""
    folder = tmp_path_factory.mktemp("tissue") / "tissue"
    write_precomputed(make_volume((48, 24, 40), seed=1), folder)
    return folder


def test_a_part_of_a_precomputed_volume_is_simulated_and_described(ddgm, precomputed):
    told = ddgm(
        *["simulate", f"precomputed://file://{precomputed}", "-o", "a.zarr", "--views", 9],
        *["--max-tilt", 50, "--box", "8:48,3:8,0:32", "--axes", "yzx"],
    )
    assert "a.zarr: tilt series of 5 sections × 9 views × 40 detector bins of 16 nm" in told
    assert "a.volume.zarr: the volume" in told
    series = ddgm("info", "a.zarr")
    assert series.startswith("a.zarr: tilt series\n")
    assert "9, tilts of -50° to 50°" in series
    assert "32 × 40 pixels (depth, lateral)" in series
    volume = ddgm("info", "a.volume.zarr")
    assert "5 × 32 × 40 voxels (tilt axis, depth, lateral)" in volume
    assert "yzx of its source, from voxel 3, 0, 8" in volume
    source = json.loads(ddgm("info", precomputed, "--json"))
    assert source["kind"] == "precomputed volume"
    assert source["scales"] == ["mip 0: 48 × 24 × 40 voxels of 16 nm, from 0, 0, 0"]
    assert "exists already" in ddgm("simulate", "a.volume.zarr", "-o", "a.zarr", status=1)
    assert "reaches out of" in ddgm(
        "simulate", f"file://{precomputed}", "-o", "b.zarr", "--box", "0:99,0:9,0:9", status=1
    )
    assert "--box 0:9: write x, y, z in voxels" in ddgm(
        "simulate", f"file://{precomputed}", "-o", "b.zarr", "--box", "0:9", status=1
    )


@pytest.mark.parametrize("method", ["algebraic", "proximal", "ddrm"])
def test_a_set_of_images_goes_from_views_to_metrics(ddgm, tmp_path, method):
    tissue = make_volume((32, 32, 3), seed=2).transpose(2, 1, 0)
    PatchSet(tissue, np.zeros((3, 3), np.int64), 16.0).save(tmp_path / "images.npz")
    ddgm("simulate", "images.npz", "-o", "views.npz", "--views", 24, "--noise-std", 2)
    measured = SinogramSet.load(tmp_path / "views.npz")
    assert measured.geometry.image_shape == (32, 32)
    assert measured.noise_std == 2
    assert "σ_y = 2" in ddgm("info", "views.npz")
    few = [] if method == "algebraic" else ["--set", "N=3"]
    told = ddgm("reconstruct", "views.npz", "-o", "r.npz", "--method", method, *few)
    assert "r.npz: 3 images of 32 × 32 pixels" in told
    assert torch.isfinite(Reconstruction.load(tmp_path / "r.npz").images).all()
    told = ddgm("evaluate", "images.npz", "r.npz", "--csv", "metrics.csv")
    assert "of 3 images" in told
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    error = float(rows[1].split(",")[rows[0].split(",").index("mse")])
    assert 0 < error < 1.2
    assert "r.npz: reconstructed images" in ddgm("info", "r.npz")
    assert "has no 'images'" not in ddgm("info", "images.npz")
    for command in (
        ["evaluate", "images.npz", "images.npz"],
        ["evaluate", "views.npz", "r.npz"],
        ["simulate", "views.npz", "-o", "x.npz"],
        ["reconstruct", "images.npz", "-o", "x.npz"],
    ):
        assert "(ddgm info says what)" in ddgm(*command, status=1)


def test_several_runs_are_told_from_one(ddgm, tmp_path):
    images = torch.zeros(3, 8, 8)
    Posterior(
        mean=images,
        std=images,
        residual=images,
        consistency=images,
        runs=images[:, None],
        samples=5,
        data_error=torch.ones(3),
        seconds=torch.ones(3),
        evaluations=Evaluations(network=20),
    ).save(tmp_path / "runs.npz")
    told = " ".join(ddgm("info", "runs.npz").split())
    assert told.startswith("runs.npz: several runs of a reconstruction runs 5 of each image")
    assert "images 3 of 8 × 8 pixels" in told
    assert "20 of the network, a run" in told


SMALL = {
    "widths": "8,16",
    "convolutions": "1",
    "steps": 4,
    "batch": 2,
    "patch-size": 16,
    "precision": "32-true",
    "accelerator": "cpu",
    "devices": 1,
    "workers": 0,
}


def options(settings):
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def test_a_network_is_trained_and_says_what_it_is(ddgm, tmp_path, precomputed):
    told = ddgm(
        *["train", f"file://{precomputed}", "-o", "net.safetensors", *options(SMALL)],
        *["--about", "Made up.", "--sigma-max", 20],
    )
    assert "net.safetensors: network of 0.00439 million parameters for images of 16 nm" in told
    card = load_denoiser(tmp_path / "net.safetensors").card
    assert card.architecture.widths == (8, 16)
    assert (card.sigma_max, card.voxel_size, card.about) == (20.0, 16.0, "Made up.")
    assert (tmp_path / "net.training" / "losses.csv").exists()
    told = ddgm("info", "net.safetensors")
    assert "0.03 to 20 standard deviations" in told
    assert "Made up." in told
    assert "exists already" in ddgm("train", "x.zarr", "-o", "net.safetensors", status=1)


def test_options_go_before_the_configuration(ddgm, tmp_path, precomputed):
    (tmp_path / "mine.yaml").write_text(
        "run: mine\nnetwork: {widths: [8], convolutions: 1, about: From the file.}\n"
        "training: {steps: 300, batch: 3, patch_size: 16, precision: 32-true, accelerator: cpu,"
        " devices: 1, workers: 0}\n"
    )
    command = ["train", f"file://{precomputed}", "-o", "net.safetensors", "--config", "mine.yaml"]
    assert "3 steps" in ddgm(*command, "--steps", 3)
    card = load_denoiser(tmp_path / "net.safetensors").card
    assert card.architecture.widths == (8,)
    assert card.about == "From the file."
    (tmp_path / "wrong.yaml").write_text("training: {step: 3}\n")
    assert "training has an unknown key step" in ddgm(
        "train", f"file://{precomputed}", "-o", "b.safetensors", "--config", "wrong.yaml", status=1
    )


def test_networks_in_the_box_are_known_by_name(ddgm):
    told = json.loads(ddgm("info", "fib25-16nm", "--json"))
    assert told["kind"] == "network"
    assert told["parameters"] == "3.13 million"
    assert "images of 16 nm a pixel" in told["takes"]


def test_what_is_unknown_is_told(ddgm, tmp_path):
    assert "there is no such file or folder" in ddgm("info", "nothing", status=1)
    (tmp_path / "notes.txt").write_text("Notes.")
    assert "ddgm knows volumes and tilt series" in ddgm("info", "notes.txt", status=1)
    (tmp_path / "folder").mkdir()
    assert "a folder without zarr.json" in ddgm("info", "folder", status=1)
    np.savez(tmp_path / "other.npz", a=1)
    assert "an archive of a, which is none of ddgm's" in ddgm("info", "other.npz", status=1)
    (tmp_path / "x.safetensors").write_bytes(os.urandom(64))
    assert "x.safetensors" in ddgm("info", "x.safetensors", status=1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small tilt series, and the same as a stack of views."""
    folder = tmp_path_factory.mktemp("measured")
    shape = (3, 32, 40)
    volume = create_volume(
        folder / "truth.zarr", shape, "uint8", axes="yzx", voxel_size=(16, 16, 16), origin=(0, 0, 0)
    )
    volume.array[:] = np.random.default_rng(0).integers(100, 160, shape)
    series = simulate_series(
        volume, folder / "stack.zarr", Normalisation(129.6, 33.2), views=9, noise_std=2.0, seed=0
    )
    export_stack(series, folder / "stack.mrc")
    return folder


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["stack.zarr", "-o", "stack.zarr"], "stack.zarr exists already; remove it"),
        (["none.zarr", "-o", "x.zarr"], "there is no tilt series at none.zarr"),
        (["stack.zarr", "-o", "x.zarr", "--set", "M=3"], "M = 3 is unknown; proximal takes N, c"),
        (["stack.zarr", "-o", "x.zarr", "--set", "N"], "--set N: write a setting and its value"),
        (["stack.zarr", "-o", "x.zarr", "--method", "ddrm"], "ddrm needs the eigenbasis"),
        (["stack.zarr", "-o", "x.zarr", "--network", "none"], "network none: no such file"),
        (["stack.zarr", "-o", "x.zarr", "--depth", "9"], "--depth goes with an MRC stack"),
        (["stack.zarr", "-o", "x.zarr", "--export", "x.tif"], "x.tif: export to .mrc, .ome.zarr"),
        (["stack.mrc", "-o", "x.zarr"], "stack.mrc: give the thickness of the slab with --depth"),
        (
            ["stack.mrc", "-o", "x.zarr", "--depth", "512", "--pixel-size", "2"],
            "stack.mrc has pixels of 2 nm, and the network knows images of 16 nm: --bin 8",
        ),
        (
            ["stack.mrc", "-o", "x.zarr", "--depth", "512", "--angles", "none.tlt"],
            "angles none.tlt: cannot be read",
        ),
        (
            ["stack.mrc", "-o", "x.zarr", "--depth", "512", "--values", "grey", "--bin", "3"],
            "stack.mrc has pixels of 48 nm",
        ),
    ],
)
def test_what_is_wrong_with_a_measurement_is_told_before_any_work(
    ddgm, measured, tmp_path, arguments, complaint
):
    for path in measured.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert complaint in ddgm("reconstruct", *arguments, status=1)
    assert not [each for each in tmp_path.glob("x.*") if "series" not in each.name]
