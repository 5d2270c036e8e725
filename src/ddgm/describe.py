"""What a file, folder or address is, in facts that a person can read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import zarr

from ddgm.archive import read_archive
from ddgm.denoiser import read_card
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.mrc import is_mrc, open_mrc
from ddgm.precomputed import read_info
from ddgm.pretrained import FOLDER, network_path, pretrained_names
from ddgm.tilt_series import DIMENSIONS, open_tilt_series
from ddgm.volume import open_array, open_volume


@dataclass(frozen=True)
class Description:
    """What something is.

    Attributes
    ----------
    kind : str
        In a few words.
    facts : dict
        Name and value, a number, a text or a list of these; with units.
    """

    kind: str
    facts: dict[str, Any]


def describe(source: str) -> Description:
    """Look at a file, a folder, an address or the name of a network in the box.

    Reads descriptions, no voxels.

    Raises
    ------
    DdgmError
        If there is nothing, or nothing that ddgm knows.
    """
    if "://" in source:
        return _precomputed(source)
    if source in pretrained_names():
        return _network(source)
    path = Path(source)
    if not path.exists():
        raise DdgmError(
            f"{source}: there is no such file or folder, and no such network in the box "
            f"({', '.join(pretrained_names())})"
        )
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".npz":
        return _archive(path)
    if path.suffix == ".safetensors":
        return _network(source)
    if is_mrc(path):
        return _mrc(path)
    raise DdgmError(
        f"{source}: ddgm knows volumes and tilt series (.zarr), sets of images, sinograms and "
        "reconstructions (.npz), networks (.safetensors), MRC files, and precomputed volumes"
    )


def _folder(path: Path) -> Description:
    if (path / "info").is_file():
        return _precomputed(f"file://{path.absolute()}")
    if (path / "settings.json").is_file() and (path / "finished").is_dir():
        return _unfinished(path)
    if not (path / "zarr.json").is_file():
        raise DdgmError(f"{path}: a folder without zarr.json, info or anything else ddgm knows")
    node = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    if node.get("node_type") == "group":
        return _ome_zarr(path)
    array = open_array(path, "volume or tilt series", "r")
    if getattr(array.metadata, "dimension_names", None) == DIMENSIONS:
        return _tilt_series(path)
    return _volume(path)


def _tilt_series(path: Path) -> Description:
    series = open_tilt_series(path)
    facts: dict[str, Any] = {
        "sections": series.sections,
        **_geometry(series.geometry),
        "voxel size": _lengths(series.voxel_size),
        "values": "line integrals, grey values × pixels",
        "noise": "not stated" if series.noise_std is None else f"{series.noise_std:.4g}",
    }
    source: Any = series.array.attrs.get("source")
    if isinstance(source, dict):
        facts["made of"] = source.get("file")
    return Description("tilt series", facts)


def _geometry(geometry: TiltGeometry) -> dict[str, Any]:
    low, high = min(geometry.angles), max(geometry.angles)
    return {
        "views": f"{geometry.views}, tilts of {low:g}° to {high:g}°",
        "detector": f"{geometry.detector} bins",
        "image": f"{geometry.height} × {geometry.width} pixels (depth, lateral)",
    }


def _volume(path: Path) -> Description:
    volume = open_volume(path)
    facts: dict[str, Any] = {
        "shape": f"{_times(volume.shape)} voxels (tilt axis, depth, lateral)",
        "voxel size": _lengths(volume.voxel_size),
        "voxels": str(volume.dtype),
        "size": _bytes(math.prod(volume.shape) * volume.dtype.itemsize),
        "axes": f"{volume.axes} of its source, from voxel {_comma(volume.origin)}",
    }
    made: Any = volume.array.attrs.get("reconstruction")
    if isinstance(made, dict):
        method = dict(made["method"])
        settings = ", ".join(f"{key}={value}" for key, value in method.items() if key != "name")
        facts |= {
            "method": f"{method['name']} ({settings})",
            "network": _name(made["network"][0]) if made["network"] else "none",
            "noise": "not used" if made["noise_std"] is None else f"σ_y = {made['noise_std']:.4g}",
            "seed": made["seed"],
        }
        if "data_error" in made:
            facts |= {
                "evaluations": f"{made['evaluations']['network']} of the network",
                "data error": f"{np.mean(made['data_error']):.4g}, mean of (Ax − y)²",
                "time": f"{np.mean(made['seconds']):.3g} s a section",
            }
        return Description("reconstructed volume", facts)
    source = volume.array.attrs.get("source")
    if source:
        facts["source"] = source
    return Description("volume", facts)


def _name(network: str) -> str:
    """Return the name of a network in the box, or the path of another one."""
    path = Path(network)
    return path.stem if path.stem in pretrained_names() and path.parent == FOLDER else network


def _unfinished(path: Path) -> Description:
    done = len(list((path / "finished").glob("*.json")))
    return Description(
        "unfinished work",
        {"of": path.name.removesuffix(".partial"), "finished": f"{done} batches of sections"},
    )


def _ome_zarr(path: Path) -> Description:
    group = zarr.open_group(str(path), mode="r")
    ome: Any = group.attrs.get("ome")
    if not isinstance(ome, dict) or "multiscales" not in ome:
        raise DdgmError(f"{path}: a Zarr group that is no OME-Zarr image")
    multiscale = ome["multiscales"][0]
    levels = []
    for dataset in multiscale["datasets"]:
        array: Any = group[dataset["path"]]
        scale = dataset["coordinateTransformations"][0]["scale"]
        levels.append(f"{_times(array.shape)} voxels of {_lengths(scale)}, {array.dtype}")
    axes = ", ".join(axis["name"] for axis in multiscale["axes"])
    return Description(f"OME-Zarr image {ome['version']}", {"axes": axes, "levels": levels})


def _precomputed(source: str) -> Description:
    first = read_info(source, 0)
    scales, mip = [], 0
    while True:
        try:
            level = read_info(source, mip) if mip else first
        except DdgmError:
            break
        scales.append(
            f"mip {mip}: {_times(level.bounds.shape)} voxels of {_lengths(level.voxel_size)}, from "
            f"{_comma(level.bounds.start)}"
        )
        mip += 1
    return Description(
        "precomputed volume",
        {
            "address": first.address,
            "voxels": f"{first.dtype}, {first.encoding}",
            "scales": scales,
            "axes": "x, y, z",
        },
    )


def _archive(path: Path) -> Description:
    content = read_archive(path)
    if "sinograms" in content:
        geometry = TiltGeometry.from_dict(json.loads(str(content["geometry"])))
        facts = {
            "images": len(content["sinograms"]),
            **_geometry(geometry),
            "noise": f"σ_y = {float(content['noise_std']):.4g}",
            "values": "line integrals of normalised images",
        }
        return Description("sinogram set", facts)
    if "positions" in content:
        images = content["images"]
        facts = {
            "images": f"{len(images)} of {_times(images.shape[1:])} pixels, {images.dtype}",
            "pixel size": f"{float(content['voxel_size']):g} nm",
        }
        return Description("set of images", facts)
    if "data_error" in content:
        # Of several runs there are their means, and more that is no image.
        several = "samples" in content
        images = content["mean" if several else "images"]
        evaluations = json.loads(str(content["evaluations"]))
        facts = {
            "images": f"{len(images)} of {_times(images.shape[1:])} pixels, network units",
            "evaluations": f"{evaluations['network']} of the network" + several * ", a run",
            "data error": f"{content['data_error'].mean():.4g}, mean of (Ax − y)²",
            "time": f"{content['seconds'].mean():.3g} s an image",
        }
        if not several:
            return Description("reconstructed images", facts)
        runs = f"{content['samples']} of each image: mean, deviation and data consistency"
        return Description("several runs of a reconstruction", {"runs": runs, **facts})
    raise DdgmError(f"{path}: an archive of {', '.join(content)}, which is none of ddgm's")


def _network(source: str) -> Description:
    path = network_path(source)
    card = read_card(path)
    with safetensors.safe_open(path, framework="np") as file:
        # An open file has keys, but cannot itself be iterated over.
        names = list(file.keys())
        size = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    shape = card.architecture
    return Description(
        "network",
        {
            "parameters": f"{size / 1e6:.3g} million",
            "widths": _comma(shape.widths),
            "convolutions": f"{_comma(shape.blocks)} a block, normalisation once a "
            f"{shape.normalise}",
            "takes": f"images of {card.voxel_size:g} nm a pixel, sides multiples of {shape.stride}",
            "grey values": f"{card.normalisation.mean:.4g} ± {card.normalisation.std:.4g}",
            "noise levels": f"{card.sigma_min:g} to {card.sigma_max:g} standard deviations",
            "about": card.about or "nothing is said",
        },
    )


def _mrc(path: Path) -> Description:
    file = open_mrc(path)
    size = file.pixel_size
    return Description(
        "MRC file",
        {
            "shape": f"{_times(file.data.shape)} (views or sections, rows, columns)",
            "values": str(file.data.dtype),
            "pixel size": "not known"
            if size is None
            else f"{_lengths(size[1::-1])} (rows, columns)",
            "size": _bytes(file.data.size * file.data.dtype.itemsize),
        },
    )


def _times(numbers: Sequence[Any]) -> str:
    return " × ".join(str(each) for each in numbers)


def _comma(numbers: Sequence[Any]) -> str:
    return ", ".join(str(each) for each in numbers)


def _lengths(edges: Sequence[float]) -> str:
    if max(edges) - min(edges) <= 1e-6 * max(edges):
        return f"{edges[0]:g} nm"
    return " × ".join(f"{edge:g}" for edge in edges) + " nm"


def _bytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
