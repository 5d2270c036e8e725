"""Training: it learns, survives being killed, and says when it fails."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from scipy.ndimage import gaussian_filter

from ddgm.denoiser import DenoiserCard, Normalisation, load_denoiser
from ddgm.errors import DdgmError
from ddgm.network import Architecture, UNet
from ddgm.training import collect_losses, discard_checkpoints, noise_levels, train
from ddgm.training_settings import TrainingSettings
from ddgm.volume import create_volume

CARD = DenoiserCard(Architecture((8, 16), 2), Normalisation(0.0, 1.0), 0.03, 30.0, 16.0)
SETTINGS = TrainingSettings(
    patch_size=16,
    batch=8,
    steps=12,
    schedule="cosine",
    warmup=2,
    ema_decay=0.9,
    gradient_clip=1.0,
    accelerator="cpu",
    devices=1,
    workers=0,
    checkpoint_every=2,
    validate_every=6,
    log_every=1,
    seed=4,
)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A smooth random volume of unit variance."""
    path = tmp_path_factory.mktemp("training") / "volume.zarr"
    values = gaussian_filter(np.random.default_rng(0).normal(size=(16, 48, 48)), 2.0)
    values = (values / values.std()).astype(np.float32)
    made = create_volume(
        path, values.shape, values.dtype, axes="yzx", voxel_size=(16, 16, 16), origin=(0, 0, 0)
    )
    made.array[:] = values
    return path


@pytest.fixture(scope="module")
def uninterrupted(volume, tmp_path_factory):
    return train(volume, CARD, SETTINGS, tmp_path_factory.mktemp("run"), progress=False)


def training_program(volume, settings, directory, network=None):
    """Return a program that trains, and writes the network if it is the first process."""
    lines = [
        "from ddgm.denoiser import *",
        "from ddgm.network import *",
        "from ddgm.training import *",
        "from ddgm.training_settings import *",
        f"card = {CARD!r}",
        f"net = train({str(volume)!r}, card, {settings!r}, {str(directory)!r}, progress=False)",
    ]
    if network is not None:
        lines.append(f"if first_process(): save_denoiser(net, card, {str(network)!r})")
    return "\n".join(lines) + "\n"


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_noise_levels_are_log_uniform():
    sigma = noise_levels(20000, 0.03, 30.0, torch.Generator().manual_seed(0))
    position = (sigma / 0.03).log() / np.log(1000)
    assert position.min() >= 0
    assert position.max() <= 1
    histogram = torch.histc(position, bins=10, min=0, max=1)
    assert (histogram - 2000).abs().max() < 200


def test_a_trained_network_predicts_noise_better_than_none(volume, tmp_path):
    settings = replace(SETTINGS, steps=120, learning_rate=3e-3, ema_decay=0.0)
    validation = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(1) / 4
    network = train(volume, CARD, settings, tmp_path, validation=validation, progress=False)
    losses = collect_losses(tmp_path)
    assert losses["val_loss"].dropna().iloc[-1] < 0.8  # predicting no noise at all has 1
    assert losses["train_loss"].tail(20).mean() < 0.5 * losses["train_loss"].head(5).mean()
    noise = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (network(10 * noise) - noise).square().mean() < 0.2


def test_the_same_seed_gives_the_same_network(volume, uninterrupted, tmp_path):
    assert same_weights(train(volume, CARD, SETTINGS, tmp_path, progress=False), uninterrupted)


def test_a_killed_run_goes_on_to_the_very_same_network(volume, uninterrupted, tmp_path, caplog):
    program = (
        "import time\n"
        "from ddgm.training import NoisePrediction\n"
        "original = NoisePrediction.training_step\n"
        "def slow(self, *batch):\n"
        "    time.sleep(0.3)\n"  # wide enough a gap to be killed in
        "    return original(self, *batch)\n"
        "NoisePrediction.training_step = slow\n"
    ) + training_program(volume, SETTINGS, tmp_path)
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    last = tmp_path / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    step = torch.load(last, weights_only=False)["global_step"]
    assert 0 < step < SETTINGS.steps

    with caplog.at_level(logging.INFO, "ddgm"):
        network = train(volume, CARD, SETTINGS, tmp_path, progress=False)
    assert "goes on from" in caplog.text
    assert same_weights(network, uninterrupted)
    assert list(collect_losses(tmp_path)["step"]) == list(range(SETTINGS.steps))
    discard_checkpoints(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_training_is_not_lost_before_its_network_is_on_disk(volume, tmp_path, caplog):
    first = train(volume, CARD, SETTINGS, tmp_path, progress=False)
    with caplog.at_level(logging.INFO, "ddgm"):
        second = train(volume, CARD, SETTINGS, tmp_path, progress=False)
    assert "goes on from" in caplog.text
    assert same_weights(first, second)


def test_losses_survive_logs_that_a_killed_run_left_behind(tmp_path):
    for version, text in enumerate(
        [
            "",
            "step,train_loss,val_loss\n0,0.5,\n1,0.4,0.3\n2,0.",
            "epoch,step,train_loss\n0,1,0.2\n0,3",
        ]
    ):
        log = tmp_path / "csv" / f"version_{version}" / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text(text)
    losses = collect_losses(tmp_path)
    assert list(losses.columns) == ["step", "train_loss", "val_loss"]
    assert list(losses["step"])[:2] == [0, 1]
    assert losses["train_loss"].iloc[1] == 0.2
    assert losses["val_loss"].iloc[1] == 0.3


def test_two_processes_train_the_network_that_one_does(volume, uninterrupted, tmp_path):
    program = tmp_path / "program.py"
    settings = replace(SETTINGS, devices=2)
    program.write_text(training_program(volume, settings, tmp_path / "run", tmp_path / "net"))
    subprocess.run([sys.executable, program], check=True, timeout=300)
    network = load_denoiser(tmp_path / "net").network
    seed_everything(SETTINGS.seed, verbose=False)
    start, alone, shared = (
        torch.cat([parameter.detach().flatten() for parameter in each.parameters()])
        for each in (UNet(CARD.architecture), uninterrupted, network)
    )
    # The mean of two half batches is that of the batch, but for rounding, which Adam enlarges.
    assert (shared - alone).norm() < 0.02 * (alone - start).norm()


def test_checkpoints_of_other_settings_are_not_mixed_in(volume, uninterrupted, tmp_path, caplog):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "identity.json").write_text("{}")
    (checkpoints / "last.ckpt").write_bytes(b"of another run")
    network = train(volume, CARD, SETTINGS, tmp_path, progress=False)
    assert "starts anew" in caplog.text
    assert same_weights(network, uninterrupted)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(volume, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30, warmup=0, gradient_clip=0.0)
    with pytest.raises(DdgmError, match=r"the loss is nan at step \d+; lower training"):
        train(volume, CARD, settings, tmp_path, progress=False)


def test_a_patch_that_the_levels_cannot_halve_is_refused(volume, tmp_path):
    with pytest.raises(DdgmError, match="patch size 15 is not a multiple of 2"):
        train(volume, CARD, replace(SETTINGS, patch_size=15), tmp_path, progress=False)
