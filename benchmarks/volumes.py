"""What dividing a slab costs, and what it changes: docs/benchmark_volumes.md.

    make bench-volumes, or .venv/bin/python benchmarks/volumes.py FOLDER [part …]

Parts are undivided, chunked, long, memory, large and windows; each writes FOLDER/<part>.json and is
skipped when that is there, so that an interrupted run goes on. Without a part: all of them, then
the report.
With DDGM_DATA_DIR set, slabs are real tissue (FIB-25), mirrored to the length that is wanted;
otherwise synthetic. An hour on two cores.
"""

import argparse
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from ddgm.blending import BlendedDenoiser
from ddgm.cluster import ClusterSettings, connect
from ddgm.denoiser import load_denoiser, read_card
from ddgm.download import download
from ddgm.engine import make_operator
from ddgm.geometry import TiltGeometry
from ddgm.iterative import IterativeOperator
from ddgm.methods import DDGM, Algebraic, Problem
from ddgm.noise import ImageNoise
from ddgm.pretrained import network_path
from ddgm.reconstruction import reconstruct
from ddgm.sinograms import normalise_measurement, simulate
from ddgm.slab_simulation import simulate_series
from ddgm.synthetic import make_volume
from ddgm.tilt_series import open_tilt_series
from ddgm.volume import Box, create_volume, open_volume
from ddgm.volume_reconstruction import reconstruct_volume

NETWORK = "fib25-16nm"
GREY = read_card(network_path(NETWORK)).normalisation
DEPTH, WIDTH, LONG, SECTIONS = 128, 1568, 6272, 1
METHOD = DDGM(N=50, K=25)
FEWER = DDGM(N=6, K=25)
CORES = 2
LIMIT = 2**30  # bytes, of the worker that a volume four times as large goes through
VIEWS = 32  # of that volume, so that its tilt series is larger than the limit too


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", default=[], metavar="part")
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts or PARTS:
        record = arguments.folder / f"{name}.json"
        if not record.exists():
            print(f"{name} …", flush=True)
            result = PARTS[name](arguments.folder)
            record.write_text(json.dumps(result, indent=1))
    if not arguments.parts:
        results = {
            name: json.loads((arguments.folder / f"{name}.json").read_text()) for name in PARTS
        }
        page = Path(__file__).parents[1] / "docs" / "benchmark_volumes.md"
        text = report(results) + windows_section(results["windows"])
        page.write_text(text, encoding="utf-8")
        print(f"written: {page}")


def tissue(width, sections=SECTIONS):
    """Sections of DEPTH × width pixels, uint8 as they lie in a volume."""
    data = os.environ.get("DDGM_DATA_DIR")
    if data is None:
        return make_volume((sections, DEPTH, width), seed=5)
    folder = Path(f"/tmp/ddgm-benchmark-{os.getpid()}.zarr")
    try:
        download(
            f"file://{data}/slab",
            folder,
            mip=0,
            box=Box((0, 98, 0), (325, 226, sections)),
            axes="zyx",
            workers=2,
            timeout=60,
            retries=1,
            fill_missing=False,
        )
        small = np.asarray(open_volume(folder).array)
    finally:
        shutil.rmtree(folder)
    return np.pad(small, ((0, 0), (0, 0), (0, width - small.shape[2])), mode="reflect")


def series_of(folder, width, sections=SECTIONS):
    """A tilt series of tissue, and the truth."""
    name = f"{width}" if sections == SECTIONS else f"{width}x{sections}"
    path, truth = folder / f"series_{name}.zarr", folder / f"truth_{name}.zarr"
    if not path.exists():
        shutil.rmtree(truth, ignore_errors=True)
        images = tissue(width, sections)
        volume = create_volume(
            truth, images.shape, np.uint8, axes="zyx", voxel_size=(16, 16, 16), origin=(0, 0, 0)
        )
        volume.array[:] = images
        simulate_series(volume, path, GREY, noise_std=4.1, seed=2)
    return open_tilt_series(path)


def undivided(folder):
    """All sections at once, in this process."""
    series = series_of(folder, WIDTH)
    operator = make_operator(series.geometry, fused=False)
    denoiser = BlendedDenoiser.of(load_denoiser(NETWORK, half=True))
    data = torch.from_numpy(series.read(0, SECTIONS))
    operator.forward(torch.zeros(operator.image_shape))  # compiled, or read from the cache
    started = time.perf_counter()
    result = reconstruct(
        METHOD, operator, normalise_measurement(operator, data, GREY), denoiser, batch=SECTIONS
    )
    seconds = time.perf_counter() - started
    np.save(folder / "undivided.npy", result.images.numpy())
    return {"seconds": seconds, "method": float(result.seconds.sum())}


def by_dask(folder, width, method=METHOD, sections=SECTIONS):
    """The same by a worker of Dask; wall time of everything but the start of its process."""
    series, path = series_of(folder, width, sections), folder / f"volume_{width}.zarr"
    shutil.rmtree(path, ignore_errors=True)
    volume, watched = watched_reconstruction(
        ClusterSettings(workers=1),
        series,
        path,
        method,
        network=NETWORK,
        half=True,
        batch=sections,
    )
    made = volume.array.attrs["reconstruction"]
    return (
        watched | {"method": sum(made["seconds"])},
        (np.asarray(volume.array) - GREY.mean) / GREY.std,
    )


def watched_reconstruction(settings, series, path, method, **options):
    """Reconstruct by one worker; returns the volume, and time and memory of the worker."""
    peak, end = [0], threading.Event()
    with connect(settings, device="cpu", cores=CORES) as workers:
        (worker,) = workers.client.run(os.getpid).values()

        def watch():
            process = psutil.Process(worker)
            while not end.wait(0.05):
                peak[0] = max(peak[0], process.memory_info().rss)

        thread = threading.Thread(target=watch)
        thread.start()
        started = time.perf_counter()
        volume = reconstruct_volume(
            series,
            path,
            method,
            workers.client,
            GREY,
            dtype="float32",
            threads=workers.threads,
            progress=True,
            **options,
        )
        seconds = time.perf_counter() - started
        end.set()
        thread.join()
        restarted = worker not in workers.client.run(os.getpid).values()
    return volume, {"seconds": seconds, "peak_rss": peak[0], "restarted": restarted}


def chunked(folder):
    result, images = by_dask(folder, WIDTH)
    whole = np.load(folder / "undivided.npy")
    # Where patches of the network begin or end, and where the stored chunks do.
    starts = np.array([*range(0, WIDTH - 128, 96), WIDTH - 128])
    borders = np.unique([*starts[1:], *(starts[:-1] + 128), 512, 1024])
    steps = np.abs(np.diff(images, axis=2)).mean(axis=(0, 1))
    at = np.isin(np.arange(1, WIDTH), borders)
    truth = np.asarray(open_volume(folder / f"truth_{WIDTH}.zarr").array, dtype=np.float32)
    truth = (truth - GREY.mean) / GREY.std
    own = np.abs(np.diff(truth, axis=2)).mean(axis=(0, 1))
    reference = np.abs(np.diff(whole, axis=2)).mean(axis=(0, 1))
    return result | {
        "rms": float(np.sqrt(np.square(images - whole).mean())),
        "gradient": float(steps[at].mean() / steps[~at].mean()),
        "gradient_undivided": float(reference[at].mean() / reference[~at].mean()),
        "gradient_truth": float(own[at].mean() / own[~at].mean()),
        "borders": int(at.sum()),
        "mse": float(np.square(images - truth).mean()),
    }


def long(folder):
    """Short and long sections by turns, since the machine's speed wavers; fewer noise levels."""
    rounds = [
        {width: by_dask(folder, width, FEWER)[0] for width in (WIDTH, LONG)} for _ in range(3)
    ]
    return {
        key: {str(width): [each[width][key] for each in rounds] for width in (WIDTH, LONG)}
        for key in ("seconds", "peak_rss")
    }


def memory(folder):
    """Peak memory of a worker with eight sections at a time; a few iterations show it."""
    return {
        str(width): by_dask(folder, width, DDGM(N=2, K=2), 8)[0]["peak_rss"]
        for width in (WIDTH, LONG)
    }


class Window(IterativeOperator):
    """Some columns of a slab as a problem of their own, on some of the rays.

    Parameters
    ----------
    operator : LinearOperator
        Of the whole slab.
    columns : slice
        Of the window.
    rays : Tensor or None
        (views, detector), 1 for rays to use.
    """

    def __init__(self, operator, columns, rays):
        self.operator, self.columns, self.rays = operator, columns, rays
        self._shape = (operator.image_shape[0], columns.stop - columns.start)

    @property
    def image_shape(self):
        return self._shape

    @property
    def data_shape(self):
        return self.operator.data_shape

    @property
    def device(self):
        return self.operator.device

    def forward(self, image):
        whole = image.new_zeros(*image.shape[:-1], self.operator.image_shape[1])
        whole[..., self.columns] = image
        return self.rays * self.operator.forward(whole)

    def adjoint(self, data):
        return self.operator.adjoint(self.rays * data)[..., self.columns]


class CroppedNoise:
    """The whole slab's noise, as much of it as a window sees."""

    def __init__(self, shape, columns):
        self.noise, self.columns = ImageNoise(0, [0], shape), columns

    def draw(self):
        return self.noise.draw()[..., self.columns]


def windows(folder):
    """A window by itself in a slab of a quarter of the size, against the undivided one."""
    depth, width = DEPTH // 4, WIDTH // 4
    geometry = TiltGeometry.limited_angle((depth, width))
    operator = make_operator(geometry, fused=False)
    images = torch.from_numpy(tissue(WIDTH)[:1, :depth, :width].astype(np.float32))
    data = simulate(operator, (images - GREY.mean) / GREY.std, noise_std=4.1, seed=2)
    denoiser = BlendedDenoiser.of(load_denoiser(NETWORK, half=True), patch=32, stride=24)

    def solve(problem_operator, seen, columns):
        noise = CroppedNoise(operator.image_shape, columns)
        with torch.no_grad():
            return METHOD.solve(Problem(problem_operator, seen, denoiser, noise))

    whole = solve(operator, data, slice(0, width))
    exterior = Algebraic(K=100).solve(Problem(operator, data))
    found = []
    first, stop = 120, 248  # patches of the window lie where those of the slab do
    for correct in (False, True):
        for halo in (24, 72):
            columns = slice(first - halo, stop + halo)
            outside = torch.ones(operator.image_shape)
            outside[:, columns] = 0
            if correct:  # all rays, less what the algebraic method finds outside the window
                rays = torch.ones(operator.data_shape)
                seen = data - operator.forward(exterior * outside)
            else:  # rays that see nothing outside
                rays = (operator.forward(outside) < 1e-6).float()
                seen = rays * data
            image = solve(Window(operator, columns, rays), seen, columns)
            core = image[..., halo : halo + stop - first]
            rms = float((core - whole[..., first:stop]).square().mean().sqrt())
            found.append({"corrected": correct, "halo": halo, "rms": rms})
            print(found[-1], flush=True)
    return {"windows": found, "std": float(whole.std()), "depth": depth, "width": width}


def large(folder):
    """A volume more than four times as large as the memory of the worker that makes it."""
    shape = (5600, 128, 1568)
    path, truth = folder / "large.zarr", folder / "large_truth.zarr"
    series = folder / "large_series.zarr"
    for each in (path, truth):
        shutil.rmtree(each, ignore_errors=True)
    volume = create_volume(
        truth,
        shape,
        np.uint8,
        axes="zyx",
        voxel_size=(16, 16, 16),
        origin=(0, 0, 0),
        chunks=(8, 128, 512),
    )
    images = tissue(shape[2])
    for at in range(0, shape[0], 8):  # the same tissue again and again, a pixel further each time
        volume.array[at : at + 8] = np.stack(
            [np.roll(images[each % SECTIONS], each, axis=1) for each in range(at, at + 8)]
        )
    if not series.exists():
        simulate_series(volume, series, GREY, views=VIEWS, noise_std=4.1, seed=2, progress=True)
    result, watched = watched_reconstruction(
        ClusterSettings(workers=1, memory=str(LIMIT)),
        open_tilt_series(series),
        path,
        Algebraic(K=1),
    )
    size = int(np.prod(result.shape)) * 4
    series_bytes = open_tilt_series(series).array.nbytes
    for each in (path, truth, series):
        shutil.rmtree(each)
    return {
        **watched,
        "bytes": size,
        "series_bytes": series_bytes,
        "limit": LIMIT,
        "shape": list(shape),
    }


def report(results):
    whole, cut, far = results["undivided"], results["chunked"], results["long"]
    big = results["large"]
    lengths = np.divide(far["seconds"][str(LONG)], far["seconds"][str(WIDTH)])
    peaks = {width: max(values) for width, values in far["peak_rss"].items()}
    rows = [
        (
            "difference from the undivided slab, root mean square",
            f"{cut['rms']:.1e}",
            "≤ 1e-3",
            cut["rms"] <= 1e-3,
        ),
        (
            "mean absolute gradient at borders / elsewhere ¹",
            f"{cut['gradient']:.3f}",
            "0.99 to 1.01",
            abs(cut["gradient"] - 1) <= 0.01,
        ),
        ("the same, of the undivided slab", f"{cut['gradient_undivided']:.3f}", "–", None),
        ("the same, of the truth", f"{cut['gradient_truth']:.3f}", "–", None),
        (
            "wall time / undivided",
            f"{cut['seconds'] / whole['seconds']:.2f}",
            "≤ 1.25",
            cut["seconds"] <= 1.25 * whole["seconds"],
        ),
        (
            f"wall time, {LONG} / {WIDTH} columns (median of three)",
            f"{np.median(lengths):.2f}",
            "≤ 4.4",
            np.median(lengths) <= 4.4,
        ),
        (
            f"peak memory of the worker, {LONG} / {WIDTH} columns",
            f"{peaks[str(LONG)] / peaks[str(WIDTH)]:.3f}",
            "≤ 1.1",
            peaks[str(LONG)] <= 1.1 * peaks[str(WIDTH)],
        ),
        (
            "the same with batches of 8 sections",
            f"{results['memory'][str(LONG)] / results['memory'][str(WIDTH)]:.3f}",
            "≤ 1.1",
            results["memory"][str(LONG)] <= 1.1 * results["memory"][str(WIDTH)],
        ),
        (
            "volume / memory limit of the worker ²",
            f"{big['bytes'] / big['limit']:.2f}",
            "≥ 4",
            big["bytes"] >= 4 * big["limit"] and not big["restarted"],
        ),
    ]
    lines = ["| quantity | measured | target | met |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {value} | {target} | {'–' if met is None else 'yes' if met else 'no'} |"
        for name, value, target, met in rows
    ]
    data = "FIB-25, mirrored to the length" if os.environ.get("DDGM_DATA_DIR") else "synthetic"
    several = " and ".join(f"{size / 2**20:.0f} MiB" for size in results["memory"].values())
    in_turns = ", ".join(
        f"{short:.0f} and {long_:.0f} s"
        for short, long_ in zip(far["seconds"][str(WIDTH)], far["seconds"][str(LONG)], strict=True)
    )
    restarted = "was" if big["restarted"] else "was not"
    return f"""# Benchmark of volumes

What `benchmarks/volumes.py` wrote. Slabs are {DEPTH} deep and {WIDTH} columns long, {SECTIONS}
section ({data}); 128 tilts over ±60°, σ_y = 4.1; DDGM with N = {METHOD.N}, K = {METHOD.K}; the
network `{NETWORK}` in bfloat16, in patches of 128 with stride 96. Undivided is one call of
`ddgm.reconstruction.reconstruct` in one process; the other is `reconstruct_volume` by one worker
of Dask with as many threads ({CORES}), all of it but the start of the process.

{chr(10).join(lines)}

¹ {cut["borders"]} places where a patch of the network or a chunk on disk begins or ends.
² {" × ".join(map(str, big["shape"]))} voxels of float32, {big["bytes"] / 2**30:.1f} GiB; the limit
is {big["limit"] / 2**30:.0f} GiB. Its tilt series has {VIEWS} views,
{big["series_bytes"] / 2**30:.2f} GiB. Algebraic, K = 1. The worker {restarted} restarted; its
peak was {big["peak_rss"] / 2**30:.2f} GiB, and it took {big["seconds"] / 60:.0f} minutes.

Times: undivided {whole["seconds"]:.0f} s, by the worker {cut["seconds"]:.0f} s. Lengths, by turns
with N = {FEWER.N}: {in_turns} (ratios {", ".join(f"{ratio:.2f}" for ratio in lengths)}). Peak
memory of the worker: {peaks[str(WIDTH)] / 2**20:.0f} and {peaks[str(LONG)] / 2**20:.0f} MiB; with
batches of 8 sections {several}. MSE {cut["mse"]:.4f}.
"""


def windows_section(windowed):
    halos = sorted({each["halo"] for each in windowed["windows"]})
    table = [
        f"| | {' | '.join(f'halo {halo}' for halo in halos)} |",
        f"| --- |{' --- |' * len(halos)}",
    ]
    for corrected, label in (
        (False, "only rays that stay within the window"),
        (True, "all rays, less what the algebraic reconstruction has outside"),
    ):
        values = {e["halo"]: e["rms"] for e in windowed["windows"] if e["corrected"] == corrected}
        table.append(f"| {label} | {' | '.join(f'{values[halo]:.4f}' for halo in halos)} |")
    return f"""
## Windows by themselves

What 128 columns of a slab of {windowed["depth"]} × {windowed["width"]} pixels differ from those of
the undivided slab, if they are reconstructed by themselves with a halo of so many columns at each
side (rays reach {windowed["depth"] * 3**0.5:.0f} columns far); root mean square, where the slab has
a standard deviation of {windowed["std"]:.2f}. DDGM as above, in patches of 32 with stride 24.

{chr(10).join(table)}
"""


PARTS = {
    "undivided": undivided,
    "chunked": chunked,
    "long": long,
    "memory": memory,
    "large": large,
    "windows": windows,
}

if __name__ == "__main__":
    main()
