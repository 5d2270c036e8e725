"""What a Neuroglancer-precomputed volume is, and how its chunks are read.

cloud-volume decodes chunks and finds them within shards. Its cut-out is not used: it names a box of
voxels where the user needs the name of a file, and has retries of its own.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import posixpath
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from cloudfiles import compression
from cloudvolume import chunks
from cloudvolume.datasource.precomputed.common import compressed_morton_code
from cloudvolume.datasource.precomputed.sharding import ShardingSpecification, ShardReader

from ddgm.errors import DdgmError, SettingError
from ddgm.storage import AbsentError, Attempts, RefusedError, StoppedError, Storage, one_line
from ddgm.volume import Box, Triple

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_MOST_REDIRECTS = 10


@dataclass(frozen=True)
class SourceInfo:
    """What a precomputed volume says about itself at one mip.

    Attributes
    ----------
    address
        Where the volume is, without ``precomputed://`` and after following redirects.
    mip
        Index of the scale; 0 is the finest.
    bounds
        All voxels of the volume at that mip, with its voxel offset.
    chunk_size
        Extent of a chunk in voxels (x, y, z).
    voxel_size
        Edge lengths of a voxel in nanometres (x, y, z).
    dtype
        Type of one voxel.
    encoding
        How chunks are encoded, for example "raw" or "jpeg".
    key
        Folder of that mip's chunks under the address.
    sharding
        The sharding specification of the info file, or None where each chunk is a file.
    block_size
        Block size of the encoding compressed_segmentation; unused by others.
    """

    address: str
    mip: int
    bounds: Box
    chunk_size: Triple
    voxel_size: tuple[float, float, float]
    dtype: np.dtype[Any]
    encoding: str
    key: str
    sharding: Mapping[str, Any] | None = field(default=None, hash=False)
    block_size: Triple = (8, 8, 8)


def read_info(
    source: str, mip: int, *, timeout: float = 60.0, retries: int = 5, delay: float = 0.5
) -> SourceInfo:
    """Read what a precomputed volume says about itself at one mip.

    Parameters
    ----------
    source
        Address of the volume: ``gs://``, ``https://``, ``http://``, ``s3://`` or ``file://``, with
        or without ``precomputed://`` in front. ``gs://`` and ``s3://`` are read anonymously over
        HTTPS unless credentials for them are configured.
    mip
        Index of the scale; 0 is the finest.
    timeout
        Limit of one attempt in seconds.
    retries
        How often a failed attempt is repeated.
    delay
        Seconds before the first repetition; doubled each time.

    Returns
    -------
    SourceInfo
        The volume at that mip.

    Raises
    ------
    DdgmError
        If the address cannot be read or has no info file, if there is no such mip, or if the
        volume is not a single-channel image of unsigned integers or floats in a known encoding.
    """
    address = clean_address(source)
    attempts = Attempts(timeout, retries, delay)
    for _ in range(_MOST_REDIRECTS + 1):
        info = _fetch_info(address, attempts)
        redirect = info.get("redirect")
        if not redirect or clean_address(redirect) == address:
            return parse_info(info, address, mip)
        address = clean_address(redirect)
    raise DdgmError(
        f"{source} redirects more than {_MOST_REDIRECTS} times, last to {address}: give the "
        "address of the data itself"
    )


def parse_info(info: Mapping[str, Any], address: str, mip: int) -> SourceInfo:
    """Pick one mip out of the content of an info file.

    Parameters
    ----------
    info
        The decoded JSON.
    address
        Where it came from, for messages and for the result.
    mip
        Index of the scale; 0 is the finest.

    Returns
    -------
    SourceInfo
        The volume at that mip.

    Raises
    ------
    DdgmError
        As for `read_info`.
    """
    try:
        scales = info["scales"]
        layer, channels = info["type"], int(info["num_channels"])
        dtype = np.dtype(info["data_type"])
        resolutions = [" × ".join(f"{r:g}" for r in scale["resolution"]) for scale in scales]
    except (KeyError, TypeError, ValueError) as error:
        raise _not_precomputed(address, error) from error
    if not 0 <= mip < len(scales):
        there = ", ".join(f"{i} ({r} nm)" for i, r in enumerate(resolutions))
        raise SettingError("mip", mip, f"does not exist at {address}: choose one of {there}")
    if layer != "image" or dtype.kind not in "uf":
        raise DdgmError(
            f"{address} is of type {layer} with voxels of type {dtype}: an image of unsigned "
            "integers or floats is needed"
        )
    if channels != 1:
        raise DdgmError(f"{address} has {channels} channels: an image with one channel is needed")
    scale = scales[mip]
    try:
        start = np.array(scale.get("voxel_offset", (0, 0, 0)), dtype=int)
        parsed = SourceInfo(
            address=address,
            mip=mip,
            bounds=Box(tuple(start), tuple(start + np.array(scale["size"], dtype=int))),
            chunk_size=triple(scale["chunk_sizes"][0]),
            voxel_size=(
                float(scale["resolution"][0]),
                float(scale["resolution"][1]),
                float(scale["resolution"][2]),
            ),
            dtype=dtype,
            encoding=str(scale["encoding"]).lower(),
            key=str(scale["key"]),
            sharding=scale.get("sharding"),
            block_size=triple(scale.get("compressed_segmentation_block_size", (8, 8, 8))),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _not_precomputed(address, error) from error
    _check_encoding(parsed)
    return parsed


def check_box(info: SourceInfo, box: Box) -> None:
    """Raise a `DdgmError` unless `box` (voxels of `info`'s mip) lies within the volume."""
    if not info.bounds.contains(box):
        raise DdgmError(
            f"box {box} reaches out of {info.address}, which at mip {info.mip} spans {info.bounds} "
            "(x, y, z in voxels of that mip): choose a box inside"
        )


def clean_address(source: str) -> str:
    """Return an address without ``precomputed://`` and without a slash at its end."""
    address = source.strip().removeprefix("precomputed://")
    return address.removesuffix("|neuroglancer-precomputed:").rstrip("/")


def chunk_ranges(info: SourceInfo, box: Box) -> list[range]:
    """Return the indices of the chunks that a box of voxels overlaps, along x, y, z."""
    return [
        range((start - origin) // size, -((origin - stop) // size))
        for start, stop, origin, size in zip(
            box.start, box.stop, info.bounds.start, info.chunk_size, strict=True
        )
    ]


def chunks_of(info: SourceInfo, box: Box, group: Triple = (1, 1, 1)) -> list[Box]:
    """List the chunks that overlap a box of voxels, clipped to the volume.

    Parameters
    ----------
    info
        The volume.
    box
        Voxels within the volume.
    group
        How many neighbouring chunks to take together, along x, y, z.

    Returns
    -------
    list of Box
        Disjoint boxes of voxels that cover `box`, x changing fastest.
    """
    size, origin = info.chunk_size, info.bounds.start
    x, y, z = (r[::n] for r, n in zip(chunk_ranges(info, box), group, strict=True))
    groups = []
    for k, j, i in itertools.product(z, y, x):
        start = [o + c * s for o, c, s in zip(origin, (i, j, k), size, strict=True)]
        stop = [a + n * s for a, n, s in zip(start, group, size, strict=True)]
        groups.append(intersection(Box(triple(start), triple(stop)), info.bounds))
    return groups


def chunk_name(info: SourceInfo, chunk: Box) -> str:
    """Return the path of a chunk's file under the address, as the precomputed format names it."""
    extents = (f"{a}-{b}" for a, b in zip(chunk.start, chunk.stop, strict=True))
    return posixpath.join(info.key, "_".join(extents))


class ChunkReader:
    """Fetches and decodes the chunks of a volume; safe to share between threads.

    Parameters
    ----------
    info
        The volume.
    fill_missing
        Take chunks that the source does not have, or that are empty, as zeros instead of failing.
    attempts
        How often and how long to try for each chunk.
    connections
        How many threads will read at the same time.
    """

    def __init__(
        self, info: SourceInfo, fill_missing: bool, attempts: Attempts, connections: int
    ) -> None:
        self._info = info
        self._fill_missing = fill_missing
        self._attempts = attempts
        self._storage = Storage(info.address, attempts, connections)
        # ShardReader's caches of indices are not thread-safe.
        self._local = threading.local()

    def read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box, in the order x, y, z.

        Raises
        ------
        DdgmError
            If a chunk is missing (unless it may be filled), damaged or cannot be fetched.
        StoppedError
            If `Attempts.stop` was set meanwhile.
        """
        image = np.empty(box.shape, dtype=self._info.dtype, order="F")
        for chunk in chunks_of(self._info, box):
            shared = intersection(chunk, box)
            image[slices(shared, box)] = self._read_chunk(chunk)[slices(shared, chunk)]
        return image

    def _read_chunk(self, chunk: Box) -> NDArray[Any]:
        name = chunk_name(self._info, chunk)
        try:
            return self._attempts.repeat(name, lambda: self._decode(chunk, self._fetch(chunk)))
        except StoppedError:
            raise
        except AbsentError as error:
            if self._fill_missing:
                logger.warning("%s: chunk %s: %s; taken as zeros", self._info.address, name, error)
                return np.zeros(chunk.shape, dtype=self._info.dtype)
            raise DdgmError(
                f"chunk {name} of {self._info.address} is missing ({error}): check the source, or "
                "set fill_missing to fill missing chunks with zeros"
            ) from error
        except RefusedError as error:
            raise DdgmError(
                f"chunk {name} of {self._info.address} may not be read ({error}): check that the "
                "source is public or credentials are set (fill_missing would fill missing chunks "
                "with zeros, but not this one)"
            ) from error
        except Exception as error:  # see Attempts.repeat
            raise DdgmError(
                f"chunk {name} of {self._info.address} could not be read in "
                f"{self._attempts.retries + 1} attempts, last because of {one_line(error)}: check "
                "the source and try again (fill_missing would fill missing chunks with zeros, but "
                "not a damaged or unreadable one)"
            ) from error

    def _fetch(self, chunk: Box) -> bytes:
        if self._info.sharding is None:
            return self._storage.get(chunk_name(self._info, chunk))
        reader = self._shard_reader()
        point = [indices.start for indices in chunk_ranges(self._info, chunk)]
        grid = [len(indices) for indices in chunk_ranges(self._info, self._info.bounds)]
        label = int(compressed_morton_code(point, grid))
        place = reader.exists(label, path=self._info.key, return_byte_range=True)
        if place is None:
            shard = reader.get_filename(label)
            raise AbsentError(f"shard {posixpath.join(self._info.key, shard)} does not hold it")
        path, start, length = place
        if length == 0:
            raise AbsentError(f"it has no bytes in shard {path}")
        content = self._storage.get(path, start, start + length)
        if reader.spec.data_encoding == "raw":
            return content
        plain: bytes = compression.decompress(content, reader.spec.data_encoding, filename=path)
        return plain

    def _decode(self, chunk: Box, content: bytes) -> NDArray[Any]:
        image: NDArray[Any] = chunks.decode(
            content,
            self._info.encoding,
            shape=(*chunk.shape, 1),
            dtype=self._info.dtype,
            block_size=self._info.block_size,
        )
        if image.size != math.prod(chunk.shape) or image.dtype != self._info.dtype:
            raise ValueError(
                f"it decodes to {image.shape} voxels of type {image.dtype} instead of "
                f"{chunk.shape} of type {self._info.dtype}"
            )
        return image.reshape(chunk.shape, order="F")

    def _shard_reader(self) -> Any:
        if not hasattr(self._local, "reader"):
            spec = ShardingSpecification.from_dict(dict(self._info.sharding or {}))
            self._local.reader = ShardReader(self._info.address, _ShardIndices(self._storage), spec)
        return self._local.reader


class _ShardIndices:
    """What cloud-volume's ShardReader fetches indices from, in place of cloud-volume's cache."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def download_as(
        self, requests: list[dict[str, Any]], progress: object = None
    ) -> dict[tuple[str, int, int], bytes | None]:
        """Fetch byte ranges of files; None where there is no such file."""
        answers: dict[tuple[str, int, int], bytes | None] = {}
        for request in requests:
            place = request["path"], request["start"], request["end"]
            try:
                answers[place] = self._storage.get(*place)
            except AbsentError:
                answers[place] = None
        return answers


def _fetch_info(address: str, attempts: Attempts) -> Mapping[str, Any]:
    storage = Storage(address, attempts)
    try:
        content = attempts.repeat(f"{address}/info", partial(storage.get, "info"))
    except AbsentError as error:
        raise DdgmError(
            f"{address} has no info file ({error}): give the address of a Neuroglancer-precomputed "
            "volume, the folder that holds `info`"
        ) from error
    except RefusedError as error:
        raise DdgmError(
            f"{address}/info may not be read ({error}): check the address, and that it is public "
            "or credentials are set"
        ) from error
    except Exception as error:  # see Attempts.repeat
        raise DdgmError(
            f"{address}/info could not be read in {attempts.retries + 1} attempts, last because of "
            f"{one_line(error)}: check the address and the network"
        ) from error
    try:
        info = json.loads(content)
    except ValueError as error:
        raise _not_precomputed(address, error) from error
    if not isinstance(info, dict):
        raise _not_precomputed(address, TypeError("it is not a JSON object"))
    return info


def _not_precomputed(address: str, error: Exception) -> DdgmError:
    return DdgmError(
        f"{address}/info does not describe a precomputed image ({one_line(error)}): give the "
        "address of a Neuroglancer-precomputed volume"
    )


def _check_encoding(info: SourceInfo) -> None:
    if info.encoding not in chunks.SUPPORTED_ENCODINGS:
        known = ", ".join(chunks.SUPPORTED_ENCODINGS)
        raise DdgmError(
            f"{info.address} is encoded as {info.encoding} at mip {info.mip}: cloud-volume decodes "
            f"{known}"
        )
    try:
        chunks.check_installed(info.encoding)
    except ImportError as error:
        raise DdgmError(
            f"{info.address} is encoded as {info.encoding} at mip {info.mip}, which needs another "
            f"package: {one_line(error)}"
        ) from error


def triple(values: Iterable[Any]) -> Triple:
    """Return three values as whole numbers."""
    a, b, c = (int(value) for value in values)
    return a, b, c


def intersection(a: Box, b: Box) -> Box:
    """Return the voxels that two overlapping boxes share."""
    return Box(triple(map(max, a.start, b.start)), triple(map(min, a.stop, b.stop)))


def slices(box: Box, within: Box) -> tuple[slice, slice, slice]:
    """Return where `box` lies in an array (axes x, y, z) that holds `within`."""
    x, y, z = (
        slice(a - o, b - o) for a, b, o in zip(box.start, box.stop, within.start, strict=True)
    )
    return x, y, z
