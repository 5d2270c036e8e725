"""Training: it learns, survives being killed, and says when it fails."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from PIL import Image
from scipy.ndimage import gaussian_filter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._dynamo.utils import counters

from ddgm.denoiser import DenoiserCard, Normalisation, load_denoiser
from ddgm.errors import DdgmError
from ddgm.network import Architecture, UNet
from ddgm.noise import ImageNoise, Purpose, seeded_generator
from ddgm.patches import StepSampler, TrainingPatches
from ddgm.training import collect_losses, discard_checkpoints, noise_levels, train
from ddgm.training_settings import TrainingSettings, band_edges, band_names
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
    precision="32-true",
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


def test_training_is_the_loop_that_the_settings_describe(volume, uninterrupted):
    seed_everything(SETTINGS.seed, verbose=False)
    network = UNet(CARD.architecture)
    patches = TrainingPatches(volume, SETTINGS.patch_size, CARD.normalisation, SETTINGS.seed)
    optimizer = torch.optim.Adam(network.parameters())
    average = torch.zeros(())
    for step, indices in zip(range(SETTINGS.steps), StepSampler(SETTINGS.batch), strict=False):
        clean = torch.stack([patches[index] for index in indices])
        generator = seeded_generator(Purpose.TRAINING_STEP, SETTINGS.seed, step)
        sigma = noise_levels(len(clean), CARD.sigma_min, CARD.sigma_max, generator)
        noise = torch.randn(clean.shape, generator=generator)
        loss = (network(clean + sigma[:, None, None] * noise) - noise).square().mean()
        rising, falling = (step + 1) / 2, 0.5 * (1 + np.cos(np.pi * (step - 2) / 10))
        optimizer.param_groups[0]["lr"] = 1e-3 * (rising if step < 2 else falling)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        weights = torch.cat([each.detach().flatten() for each in network.parameters()])
        kept = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        average = kept * average + (1 - kept) * weights
    found = torch.cat([each.detach().flatten() for each in uninterrupted.parameters()])
    assert (found - average).norm() < 1e-3 * (found - weights).norm()


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16-mixed", "workers": 1}], ids=str)
def test_a_killed_run_goes_on_to_the_very_same_network(volume, tmp_path, caplog, changes):
    settings = replace(SETTINGS, **changes)
    validation = torch.randn(5, 32, 32, generator=torch.Generator().manual_seed(0))
    uninterrupted = train(
        volume, CARD, settings, tmp_path / "whole", validation=validation, progress=False
    )
    program = (
        "import time\n"
        "from ddgm.training import NoisePrediction\n"
        "original = NoisePrediction.training_step\n"
        "def slow(self, *batch):\n"
        "    time.sleep(0.3)\n"  # wide enough a gap to be killed in
        "    return original(self, *batch)\n"
        "NoisePrediction.training_step = slow\n"
    ) + training_program(volume, settings, tmp_path)
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
    assert 0 < step < settings.steps

    with caplog.at_level(logging.INFO, "ddgm"):
        network = train(volume, CARD, settings, tmp_path, validation=validation, progress=False)
    assert "goes on from" in caplog.text
    assert same_weights(network, uninterrupted)
    losses, expected = collect_losses(tmp_path), collect_losses(tmp_path / "whole")
    # What was logged between the checkpoint and the kill may be lost, and is drawn again.
    assert set(losses["step"]) >= set(range(step, settings.steps))
    assert losses["val_loss"].iloc[-1] == expected["val_loss"].iloc[-1]
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


@pytest.mark.slow  # as much work in each of them
def test_two_processes_train_the_network_that_one_does(volume, uninterrupted, tmp_path):
    # Both leave the gradient of their first step, too.
    spy = (
        "import torch\n"
        "from ddgm.training import NoisePrediction, first_process\n"
        "def keep(self, optimizer):\n"
        "    if self.trainer.global_step == 0 and first_process():\n"
        "        each = [parameter.grad.flatten() for parameter in self.network.parameters()]\n"
        "        torch.save(torch.cat(each), {path!r})\n"
        "NoisePrediction.on_before_optimizer_step = keep\n"
    )
    validation = tmp_path / "validation.pt"
    torch.save(torch.randn(7, 16, 16, generator=torch.Generator().manual_seed(0)), validation)
    gradients, losses = [], []
    for devices in (1, 2):
        program, path = tmp_path / f"program_{devices}.py", tmp_path / f"gradient_{devices}"
        settings = replace(SETTINGS, devices=devices, samples=0)
        run, net = tmp_path / f"run_{devices}", tmp_path / f"net_{devices}"
        text = training_program(volume, settings, run, net)
        text = text.replace("progress", f"validation=torch.load({str(validation)!r}), progress")
        program.write_text(spy.format(path=str(path)) + text)
        subprocess.run([sys.executable, program], check=True, timeout=300)
        gradients.append(torch.load(path))
        losses.append(collect_losses(run).dropna(subset="val_loss").astype(float))
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()
    assert len(losses[0].columns) >= 3 + 5  # seven images need not reach every band
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)

    seed_everything(SETTINGS.seed, verbose=False)
    start, alone, shared = (
        torch.cat([parameter.detach().flatten() for parameter in each.parameters()])
        for each in (
            UNet(CARD.architecture),
            load_denoiser(tmp_path / "net_1").network,
            load_denoiser(tmp_path / "net_2").network,
        )
    )
    assert same_weights(load_denoiser(tmp_path / "net_1").network, uninterrupted)
    # The mean of two half batches is that of the batch, but for rounding, which Adam enlarges.
    assert (shared - alone).norm() < 0.02 * (alone - start).norm()


def test_the_validation_loss_is_that_of_the_average_and_of_its_bands(volume, tmp_path):
    validation = torch.randn(40, 32, 32, generator=torch.Generator().manual_seed(0)).cumsum(1) / 4
    run = replace(SETTINGS, samples=0)
    network = train(volume, CARD, run, tmp_path, validation=validation, progress=False)
    losses = collect_losses(tmp_path).dropna(subset="val_loss")
    names = band_names(CARD.sigma_min, CARD.sigma_max)
    assert names[0] == "val_loss_0.03_to_0.094868"
    assert band_edges(names[-1]) == pytest.approx((9.4868, 30), rel=1e-4)
    assert list(losses["step"]) == [5, 11]

    # The same images and noise again, at the levels that the documentation promises.
    level = (torch.arange(40).double() * (5**0.5 - 1) / 2) % 1
    sigma = (0.03 * 1000**level).float()
    fields = ImageNoise(0, range(40), (32, 32), purpose=Purpose.VALIDATION_LOSS).draw()
    with torch.no_grad():
        error = network(validation + sigma[:, None, None] * fields) - fields
    each = error.square().mean(dim=(1, 2))
    last = losses.iloc[-1]
    assert last["val_loss"] == pytest.approx(float(each.mean()), rel=1e-5)
    for band, name in enumerate(names):
        inside = (level * 6).long() == band
        assert last[name] == pytest.approx(float(each[inside].mean()), rel=1e-5)
    # It is told apart from images of low noise by how well the noise is seen.
    assert last[names[-1]] < last[names[0]]


def test_tensorboard_gets_samples_of_the_prior_beside_real_images(volume, tmp_path):
    settings = replace(SETTINGS, samples=3)
    train(volume, CARD, settings, tmp_path, validation=torch.randn(5, 32, 32), progress=False)
    (log,) = (tmp_path / "tensorboard").rglob("events*")
    events = EventAccumulator(str(log.parent)).Reload()
    assert set(events.Tags()["images"]) == {"samples", "real"}
    assert [event.step for event in events.Images("samples")] == [6, 12]
    pictures = [
        np.asarray(Image.open(BytesIO(event.encoded_image_string)))
        for event in (*events.Images("samples"), *events.Images("real"))
    ]
    # Three images of the patch size each, which change as the network does; real ones do not.
    assert all(picture.shape[0] * picture.shape[1] >= 3 * 16 * 16 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[2], pictures[3])
    assert all(picture.std() > 10 for picture in pictures)


def test_samples_and_validation_leave_the_training_as_it_is(volume, uninterrupted, tmp_path):
    validation = torch.randn(5, 32, 32)
    network = train(volume, CARD, SETTINGS, tmp_path, validation=validation, progress=False)
    assert same_weights(network, uninterrupted)


def test_a_compiled_network_trains_alike(volume, uninterrupted, tmp_path):
    settings = replace(SETTINGS, compile=True)
    torch._dynamo.reset()
    counters.clear()
    network = train(volume, CARD, settings, tmp_path, progress=False)
    assert counters["stats"]["unique_graphs"] > 0
    assert network.state_dict().keys() == uninterrupted.state_dict().keys()
    seed_everything(SETTINGS.seed, verbose=False)
    start, plain, compiled = (
        torch.cat([parameter.detach().flatten() for parameter in each.parameters()])
        for each in (UNet(CARD.architecture), uninterrupted, network)
    )
    assert (compiled - plain).norm() < 0.02 * (plain - start).norm()


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


def test_a_loss_of_the_validation_that_is_not_finite_is_seen(volume, tmp_path):
    validation = torch.randn(4, 32, 32)
    validation[1, 3, 3] = torch.nan
    settings = replace(SETTINGS, steps=1, validate_every=1)
    train(volume, CARD, settings, tmp_path, validation=validation, progress=False)
    (log,) = tmp_path.glob("csv/version_*/metrics.csv")
    assert ",nan" in log.read_text().lower()


def test_a_patch_that_the_levels_cannot_halve_is_refused(volume, tmp_path):
    with pytest.raises(DdgmError, match=r"patch size 15 is not a multiple of 2.*packing 1 need"):
        train(volume, CARD, replace(SETTINGS, patch_size=15), tmp_path, progress=False)
