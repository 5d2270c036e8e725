"""``ddgm train``."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from ddgm.cli.common import Axes, Mip, Part, fetch_volume, running, whole_numbers, with_options_of
from ddgm.console import show_progress
from ddgm.errors import DdgmError
from ddgm.training_settings import TrainingSettings


@dataclasses.dataclass(frozen=True)
class Network:
    """Shape of the network; the defaults are the paper's.

    Attributes
    ----------
    widths : tuple of int
        Feature maps at each level of resolution, finest first; multiples of 8.
    convolutions : int or tuple of int
        3×3 convolutions in a block, of every level or of each.
    packing : int
        Pixels a side that become the channels of one position of the finest level.
    normalise : str
        Group normalisation before every convolution, or once in each residual branch of two.
    about : str
        The training data, their licence and attribution, in words; goes into the file.
    """

    widths: tuple[int, ...] = (128, 128, 128, 128, 128)
    convolutions: int | tuple[int, ...] = 6
    packing: int = 1
    normalise: str = "convolution"
    about: str = ""


# Several nodes are the workflow's (docs/cluster.md).
@with_options_of(
    Network,
    TrainingSettings,
    without=("nodes",),
    metavars={"widths": "N,N,…", "convolutions": "N or N,N,…", "devices": "N or auto"},
)
def train(
    context: typer.Context,
    volume: Annotated[
        str,
        typer.Argument(
            help="Clean images to learn from: a Zarr volume, or the address of a precomputed one."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The network file to write (.safetensors).")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file whose keys network and training are taken, such as config/fib25.yaml; "
            "options given here go before it."
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="Zarr volume of other tissue, for the validation loss."),
    ] = None,
    validation_images: Annotated[
        int, typer.Option(min=1, help="How many images are cut out of it.")
    ] = 64,
    mip: Mip = 0,
    box: Part = None,
    axes: Axes = "yzx",
    **options: Any,
) -> None:
    """Train a network on clean images of tissue. Interrupted, the same command goes on.

    The defaults are the paper's, for a GPU and days; config/fib25.yaml has a network that two cores
    train in an hour. Checkpoints and losses (TensorBoard) are in OUTPUT.training.
    """
    with running():
        from ddgm.denoiser import DenoiserCard, save_denoiser
        from ddgm.network import Architecture
        from ddgm.patches import extract_patches
        from ddgm.statistics import load_statistics, save_statistics, volume_statistics
        from ddgm.training import (
            collect_losses,
            discard_checkpoints,
            first_process,
        )
        from ddgm.training import train as train_network
        from ddgm.volume import open_volume

        # Its advice on hardware and products is nobody's question.
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        shape, settings = _chosen(context, config, options)
        if output.suffix != ".safetensors":
            raise DdgmError(f"--output {output}: a name ending with .safetensors is needed")
        if output.exists() and first_process():
            raise DdgmError(f"{output} exists already; remove it, or choose another name")
        folder = output.with_suffix(".training")
        folder.mkdir(parents=True, exist_ok=True)
        source = fetch_volume(
            volume,
            folder / "volume.zarr",
            mip=mip,
            box=box,
            axes=axes,
            progress=show_progress(),
        )
        path = Path(volume) if not (folder / "volume.zarr").exists() else folder / "volume.zarr"
        statistics = folder / "statistics.json"
        if not statistics.exists():
            save_statistics(volume_statistics(source, progress=show_progress()), statistics)
        normalisation = load_statistics(statistics)
        about = shape.pop("about")
        card = DenoiserCard(
            Architecture(**shape),
            normalisation,
            settings.sigma_min,
            settings.sigma_max,
            source.pixel_size,
            about,
        )
        images = None
        if validation is not None:
            images = extract_patches(
                open_volume(validation),
                name="validation",
                size=settings.patch_size,
                count=validation_images,
                gap=0,
                seed=settings.seed,
            ).normalised(normalisation)
        network = train_network(
            path, card, settings, folder, validation=images, progress=show_progress()
        )
        if first_process():
            save_denoiser(network, card, output)
            losses = collect_losses(folder)
            losses.to_csv(folder / "losses.csv", index=False)
            discard_checkpoints(folder)
            size = sum(each.numel() for each in network.parameters())
            last = losses["train_loss"].dropna()
            print(
                f"{output}: network of {size / 1e6:.3g} million parameters for images of "
                f"{card.voxel_size:g} nm, {settings.steps} steps"
                + (f", last training loss {last.iloc[-1]:.4f}" if len(last) else "")
            )
            print(f"{folder}: losses (losses.csv, tensorboard)")


def _chosen(
    context: typer.Context, config: Path | None, options: dict[str, Any]
) -> tuple[dict[str, Any], TrainingSettings]:
    """Return what the network and its training are to be: options, then file, then defaults."""
    given = {
        name: value
        for name, value in options.items()
        if (found := context.get_parameter_source(name)) and found.name == "COMMANDLINE"
    }
    shape: dict[str, Any] = dict(vars(Network()))
    settings: dict[str, Any] = dict(vars(TrainingSettings()))
    if config is not None:
        network, training = _sections(config)
        levels: dict[str, Any] = {
            key: network[key] for key in ("sigma_min", "sigma_max") if key in network
        }
        shape |= {key: value for key, value in network.items() if key in shape}
        unknown = sorted(set(training) - set(settings))
        if unknown:
            raise DdgmError(f"{config}: training has an unknown key {unknown[0]}")
        settings |= training
        settings |= levels
    for name, value in given.items():
        if name in ("widths", "convolutions"):
            value = whole_numbers(value, f"--{name}")
            shape[name] = (value,) if name == "widths" and isinstance(value, int) else value
        elif name in shape:
            shape[name] = value
        elif name == "devices":
            settings[name] = value if value == "auto" else whole_numbers(value, "--devices")
        else:
            settings[name] = value
    if settings["validate_every"] > settings["steps"]:
        settings["validate_every"] = settings["steps"]
    return shape, TrainingSettings(**settings)


def _sections(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return dict(values.get("network", {})), dict(values.get("training", {}))
    except (OSError, UnicodeDecodeError) as error:
        raise DdgmError(f"--config {path}: cannot be read ({error})") from error
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise DdgmError(
            f"--config {path}: no YAML with keys network and training "
            f"({' '.join(str(error).split())})"
        ) from error
