"""Training of the noise-prediction network (Eq. 1), with PyTorch Lightning."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchmetrics import MeanMetric

from ddgm.denoiser import DenoiserCard
from ddgm.errors import DdgmError
from ddgm.methods import Generation
from ddgm.network import UNet
from ddgm.noise import ImageNoise, Purpose, seeded_generator
from ddgm.patches import StepSampler, TrainingPatches
from ddgm.training_settings import BANDS, TrainingSettings, band_names

logger = logging.getLogger(__name__)


def noise_levels(shape: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw log-uniform noise levels, (shape,) float32 (Sec. 3)."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return low * (high / low) ** uniform


def running_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return how weights enter their exponential average.

    The n-th weights enter with 1 − min(decay, (1 + n)/(10 + n)): early averages are over few steps,
    so that those before the training took hold are soon forgotten, and what is validated and drawn
    meanwhile is what the network has become.
    """

    def average(averaged: Tensor, weights: Tensor, count: Tensor) -> Tensor:
        kept = ((1 + count) / (10 + count)).clamp_max(decay)
        return averaged + (1 - kept) * (weights - averaged)

    return average


class NoisePrediction(pl.LightningModule):
    """Minimise ‖ε − ε_θ(x + σ ε)‖² a pixel over images x and noise levels σ (Eq. 1)."""

    def __init__(self, network: UNet, settings: TrainingSettings) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        # Losses that are not numbers are to be seen, not left out of the mean.
        self.val_loss = MeanMetric(nan_strategy="disable")
        bands = [MeanMetric(nan_strategy="disable") for _ in range(BANDS)]
        self.val_bands: Iterable[MeanMetric] = nn.ModuleList(bands)  # type: ignore[assignment]
        self._train_network: Callable[[Tensor], Tensor] = network.forward

    def on_fit_start(self) -> None:
        """Compile the network for training steps alone: other image sizes would compile anew."""
        if self.settings.compile:
            if self.trainer.is_global_zero:
                logger.info("compiling the network; the first step takes a minute or two")
            self._train_network = torch.compile(self.network.forward)

    def training_step(self, clean: Tensor, _: int) -> Tensor:
        """Return the loss of a batch of clean patches."""
        # A generator of its own for each step makes a resumed run draw what an uninterrupted one
        # would have drawn; each process draws for all and takes its share, so that the noise does
        # not depend on how many there are.
        settings, share, step = self.settings, len(clean), self.trainer.global_step
        generator = seeded_generator(Purpose.TRAINING_STEP, settings.seed, step, device=self.device)
        rank, count = self.global_rank, share * self.trainer.world_size
        own = slice(rank * share, (rank + 1) * share)
        sigma = noise_levels(count, settings.sigma_min, settings.sigma_max, generator)[own]
        noise = torch.randn((count, *clean.shape[1:]), generator=generator, device=self.device)[own]
        predicted = self._train_network(clean + sigma[:, None, None] * noise)
        loss: Tensor = (predicted.float() - noise).square().mean()
        if not torch.isfinite(loss):
            raise DdgmError(
                f"training: the loss is {loss.item()} at step {step}; lower "
                f"training.learning_rate (now {settings.learning_rate:g}) or set "
                f"training.gradient_clip"
            )
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        """Add up the losses of validation images, each with the same noise every time."""
        clean, identities = batch
        low, high = self.settings.sigma_min, self.settings.sigma_max
        # Multiples of the golden ratio spread the images evenly over the noise levels.
        position = (identities.cpu().double() * (math.sqrt(5) - 1) / 2) % 1
        bands = (position * BANDS).long().to(clean.device)
        sigma = (low * (high / low) ** position).to(clean)
        shape = (clean.shape[1], clean.shape[2])
        noise = ImageNoise(
            0, identities.tolist(), shape, self.device, Purpose.VALIDATION_LOSS
        ).draw()
        predicted = self.network(clean + sigma[:, None, None] * noise)
        losses = (predicted.float() - noise).square().mean(dim=(1, 2))
        self.val_loss.update(losses)
        for band, each in enumerate(self.val_bands):
            each.update(losses[bands == band])
        if index == 0:
            self._show_samples(clean)

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss, whole and by band of noise levels."""
        names = ["val_loss", *band_names(self.settings.sigma_min, self.settings.sigma_max)]
        for name, metric in zip(names, [self.val_loss, *self.val_bands], strict=True):
            value = metric.compute()  # of all processes together
            metric.reset()
            # A band without images has no mean; the whole shows a loss that is not a number.
            if name == "val_loss" or not torch.isnan(value):
                self.log(name, value, prog_bar=name == "val_loss", sync_dist=True)

    def _show_samples(self, real: Tensor) -> None:
        """Draw images from the prior into TensorBoard, and real ones to hold beside them."""
        count = self.settings.samples
        boards = [each for each in self.loggers if isinstance(each, TensorBoardLogger)]
        if not (count and boards and self.trainer.is_global_zero):
            return
        size = self.settings.patch_size
        noise = ImageNoise(
            self.settings.seed, range(count), (size, size), self.device, Purpose.TRAINING_SAMPLE
        )
        prior = Generation(sigma_1=self.settings.sigma_max)
        steps = prior.sample(lambda image: self.network(image).float(), noise.draw)
        (samples,) = deque(steps, maxlen=1)
        for name, images in (("samples", samples), ("real", real[:count, :size, :size])):
            # Network units have zero mean and unit variance; three deviations are black and white.
            grey = (0.5 + images[:, None] / 6).clamp(0, 1)
            for board in boards:
                board.experiment.add_images(name, grey, self.trainer.global_step)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with PyTorch's defaults, and the learning-rate schedule."""
        settings = self.settings
        optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)

        def factor(step: int) -> float:
            if step < settings.warmup:
                return (step + 1) / settings.warmup
            if settings.schedule == "constant":
                return 1.0
            done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class PatchFeed(pl.LightningDataModule):
    """Feeds the trainer from a volume, from whatever step it has reached."""

    def __init__(
        self, patches: TrainingPatches, validation: Tensor | None, settings: TrainingSettings
    ) -> None:
        super().__init__()
        self.patches, self.validation, self.settings = patches, validation, settings

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return the endless batches that follow the trainer's step."""
        trainer = self.trainer
        assert trainer is not None
        sampler = StepSampler(
            self.settings.batch, trainer.global_step, trainer.global_rank, trainer.world_size
        )
        return DataLoader(
            self.patches,
            batch_sampler=sampler,
            num_workers=self.settings.workers,
            persistent_workers=self.settings.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]] | list[Any]:
        """Return the validation patches, whole images in fixed order."""
        if self.validation is None:
            return []
        assert self.trainer is not None
        rank, replicas = self.trainer.global_rank, self.trainer.world_size
        if len(self.validation) < replicas:
            raise DdgmError(
                f"training: {len(self.validation)} validation images cannot be divided among "
                f"{replicas} processes"
            )
        images = TensorDataset(self.validation, torch.arange(len(self.validation)))
        own = Subset(images, range(rank, len(images), replicas))
        return DataLoader(own, batch_size=max(1, self.settings.batch // replicas))


class StepProgress(TQDMProgressBar):
    """A progress bar over all steps; the endless loader has no length of its own."""

    @property
    def total_train_batches(self) -> int:
        """Steps of the whole run."""
        return int(self.trainer.max_steps)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin at the step that a resumed run has reached."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.reset(total=trainer.max_steps)
        self.train_progress_bar.set_description("training")


def train(
    volume: Path | str,
    card: DenoiserCard,
    settings: TrainingSettings,
    directory: Path | str,
    *,
    validation: Tensor | None = None,
    progress: bool = True,
) -> UNet:
    """Train a network on random patches of a volume, going on from its last checkpoint if any.

    Parameters
    ----------
    volume : path-like
        Zarr volume of clean images.
    card : DenoiserCard
        Architecture, normalisation and noise levels.
    settings : TrainingSettings
        How to train; its noise levels are replaced by the card's.
    directory : path-like
        Where checkpoints and logs go. The last checkpoint stays, so that nothing is lost until the
        caller has the network on disk and calls `discard_checkpoints`.
    validation : Tensor, optional
        (count, rows, columns) normalised images for the validation loss.
    progress : bool
        Show a progress bar.

    Returns
    -------
    UNet
        The trained network on the CPU; the running average of its weights where `ema_decay` > 0.
        Each process of a distributed training gets it; see `first_process`.

    Raises
    ------
    DdgmError
        If the loss is not finite, or the patch size does not fit the network or the volume.
    """
    settings = replace(settings, sigma_min=card.sigma_min, sigma_max=card.sigma_max)
    stride = card.architecture.stride
    if settings.patch_size % stride:
        raise DdgmError(
            f"training: patch size {settings.patch_size} is not a multiple of {stride}, which "
            f"{len(card.architecture.widths)} levels and packing {card.architecture.packing} need"
        )
    directory = Path(directory)
    checkpoints = directory / "checkpoints"
    identity = {"card": asdict(replace(card, about="")), "settings": settings.identity}
    last = _last_checkpoint(checkpoints, identity)
    if first_process():
        _keep_only_own(checkpoints, identity)
        if last is not None:
            logger.info("training goes on from %s", last)

    pl.seed_everything(settings.seed, workers=True, verbose=False)
    network = UNet(card.architecture)
    if last is not None and _finished(last, network, settings.steps):
        return network.eval()
    patches = TrainingPatches(volume, settings.patch_size, card.normalisation, settings.seed)
    callbacks: list[pl.Callback] = [
        ModelCheckpoint(
            checkpoints,
            filename="step",
            save_last=True,
            every_n_train_steps=settings.checkpoint_every,
            enable_version_counter=False,
        )
    ]
    if progress:
        callbacks.append(StepProgress(refresh_rate=10))
    if settings.ema_decay:
        callbacks.append(WeightAveraging(avg_fn=running_average(settings.ema_decay)))
    try:
        trainer = pl.Trainer(
            max_steps=settings.steps,
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            precision=settings.precision,  # type: ignore[arg-type]  # checked by Lightning
            gradient_clip_val=settings.gradient_clip or None,
            callbacks=callbacks,
            logger=[
                CSVLogger(directory, "csv", flush_logs_every_n_steps=1),
                TensorBoardLogger(directory, "tensorboard"),
            ],
            log_every_n_steps=min(settings.log_every, settings.steps),
            val_check_interval=settings.validate_every if validation is not None else None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            limit_val_batches=None if validation is not None else 0,
            use_distributed_sampler=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            plugins=_environment(settings.nodes),
        )
        module = NoisePrediction(network, settings)
        feed = PatchFeed(patches, validation, settings)
        with _shared_threads(trainer, settings.nodes):
            trainer.fit(module, feed, ckpt_path=last, weights_only=False)
    except TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise DdgmError(
            "training: the network cannot be compiled here; set training.compile to false "
            f"({reason})"
        ) from error
    except MisconfigurationException as error:
        reason = " ".join(str(error).split())
        raise DdgmError(f"training: this machine cannot run these settings: {reason}") from error
    if trainer.global_step < settings.steps:
        raise DdgmError(f"training: stopped at step {trainer.global_step} of {settings.steps}")
    network.cpu().eval()
    return network


def collect_losses(directory: Path | str) -> pd.DataFrame:
    """Merge the losses that a training run, and the runs it was resumed from, have logged.

    Returns
    -------
    DataFrame
        One row a logged step: step, train_loss, val_loss, and the validation losses of bands of
        noise levels, `band_names`.
    """
    logs = sorted(Path(directory).glob("csv/version_*/metrics.csv"), key=_version)
    # A killed run may leave a log without content, or with half a line at its end.
    frames = [
        pd.read_csv(log, on_bad_lines="skip").dropna(subset="step")
        for log in logs
        if log.stat().st_size > 0
    ]
    merged = pd.concat([pd.DataFrame(columns=["step", "train_loss", "val_loss"]), *frames])
    # A step logged again after a resume counts once, with its later value.
    losses = merged.groupby("step", as_index=False).last()
    columns = [name for name in losses.columns if name.startswith(("train_loss", "val_loss"))]
    return losses[["step", *columns]].dropna(how="all", subset=columns)


def discard_checkpoints(directory: Path | str) -> None:
    """Remove the checkpoints of a training whose network is safe; its logs stay.

    Parameters
    ----------
    directory : path-like
        The folder that `train` was given.
    """
    shutil.rmtree(Path(directory) / "checkpoints", ignore_errors=True)


@contextmanager
def _shared_threads(trainer: pl.Trainer, nodes: int) -> Iterator[None]:
    """Divide the threads of a CPU among the processes that train on it.

    Those of several nodes have each been given their own.
    """
    threads = torch.get_num_threads()
    if isinstance(trainer.accelerator, CPUAccelerator) and nodes == 1:
        torch.set_num_threads(max(1, threads // trainer.num_devices))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _environment(nodes: int) -> list[Any] | None:
    if nodes == 1:
        # It takes its processes from Lightning even inside a SLURM job step.
        return [LightningEnvironment()]
    if SLURMEnvironment.detect():
        # To give a job to SLURM again is Snakemake's.
        return [SLURMEnvironment(auto_requeue=False)]
    return None


def _version(log: Path) -> int:
    return int(log.parent.name.removeprefix("version_"))


def first_process() -> bool:
    """Tell whether this is the process of a distributed training that writes what they made."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]  # set by Lightning at import
    return rank == 0


def _last_checkpoint(checkpoints: Path, identity: dict[str, Any]) -> Path | None:
    """Return the checkpoint to go on from, if there is one of the same settings."""
    note, last = checkpoints / "identity.json", checkpoints / "last.ckpt"
    if not (note.exists() and last.exists()):
        return None
    same = json.loads(note.read_text()) == json.loads(json.dumps(identity))
    return last if same else None


def _finished(checkpoint: Path, network: UNet, steps: int) -> bool:
    """Tell whether a checkpoint is of the last step, and if so load its weights.

    Lightning would train no further, and leave the weights without their running average.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
    if saved["global_step"] < steps:
        return False
    weights = {name.removeprefix("network."): value for name, value in saved["state_dict"].items()}
    network.load_state_dict(weights)
    return True


def _keep_only_own(checkpoints: Path, identity: dict[str, Any]) -> None:
    """Discard checkpoints of other settings: going on from them would mix two runs.

    Processes that look at the folder meanwhile find no checkpoint that they could go on from: the
    old ones are gone before the new identity is there.
    """
    if _last_checkpoint(checkpoints, identity) is not None:
        return
    if (checkpoints / "last.ckpt").exists():
        logger.warning("checkpoints in %s are of other settings; training starts anew", checkpoints)
    for leftover in ("checkpoints", "csv", "tensorboard"):
        shutil.rmtree(checkpoints.parent / leftover, ignore_errors=True)
    checkpoints.mkdir(parents=True)
    (checkpoints / "identity.json").write_text(json.dumps(identity, indent=2))
