"""A small tilt series with what it takes to reconstruct it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from ddgm.denoiser import Normalisation
from ddgm.methods import DDGM
from ddgm.slab_simulation import simulate_series
from ddgm.tilt_series import TiltSeries
from ddgm.volume import Volume, create_volume
from ddgm.volume_reconstruction import Blending, reconstruct_volume

GREY = Normalisation(mean=129.6, std=33.2)
SHAPE = (10, 32, 80)


@dataclass(frozen=True)
class Case:
    """A tilt series with what it takes to reconstruct it."""

    series: TiltSeries
    truth: Volume

    def reconstruct(self, path, client, method=None, **settings):
        """Reconstruct the series; bit for bit the same whoever does it."""
        return reconstruct_volume(
            self.series,
            path,
            method or DDGM(N=3, K=2, step_size=1e-4),
            client,
            GREY,
            **{
                "network": "fib25-16nm",
                "blending": Blending(patch=32, stride=24, batch=8),
                "batch": 2,
                "dtype": "float32",
                "seed": 4,
                "threads": 1,
                **settings,
            },
        )


def make_case(folder: Path) -> Case:
    volume = create_volume(
        folder / "truth.zarr",
        SHAPE,
        np.uint8,
        axes="zyx",
        voxel_size=(16, 16, 16),
        origin=(2, 0, 7),
    )
    # Blobs, of a mean and a deviation that the network knows.
    noise = np.random.default_rng(0).normal(size=SHAPE)
    smooth = np.fft.ifftn(np.fft.fftn(noise) * np.exp(-40 * sum_of_squares(SHAPE))).real
    volume.array[:] = np.clip(GREY.mean + GREY.std * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return Case(
        simulate_series(
            volume, folder / "series.zarr", GREY, views=24, noise_std=2.0, seed=1, batch=2
        ),
        volume,
    )


def sum_of_squares(shape):
    axes = np.meshgrid(*(np.fft.fftfreq(size) for size in shape), indexing="ij")
    return sum(axis**2 for axis in axes)


def listening(processes):
    """Return the addresses that processes listen on."""
    return {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
