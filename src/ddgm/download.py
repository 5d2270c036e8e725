"""Copy a box out of a Neuroglancer-precomputed volume into a local Zarr v3 array.

The work is divided into tiles of whole source chunks. Worker threads fetch and decode tiles; the
calling thread alone writes them, because Zarr chunks and source chunks do not coincide and two
writers would lose each other's half of a shared Zarr chunk. Everything goes to
``<destination>.partial``: first a tile's data reach the disk, then the tile is recorded in a
journal there, and only a complete volume is renamed to the destination.

cloud-volume decodes chunks and finds them within shards, cloud-files (its storage layer) moves the
bytes. Their own retries (7 attempts with waits of up to a minute, and HTTP requests without any
time limit) are switched off in favour of the ones here, and so is cloud-volume's cut-out, which
names a box of voxels where the user needs the name of a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import logging
import math
import os
import posixpath
import random
import shutil
import threading
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import zarr
from tqdm import tqdm
from zarr.storage import LocalStore

from ddgm.errors import DdgmError
from ddgm.volume import Box, Triple, Volume, check_axes, create_volume, open_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from requests.adapters import HTTPAdapter
    from zarr.abc.buffer import Buffer

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_DELAY = 30.0  # seconds between two attempts
_POLL = 0.1  # seconds within which a waiting thread notices that the download has stopped
_MOST_REDIRECTS = 10


class _AbsentError(Exception):
    """The source has no such file, or an empty one."""


class _RefusedError(Exception):
    """The server will not hand the file out; asking again would not help."""


class _StoppedError(Exception):
    """The download has failed or was interrupted elsewhere."""


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
    for _ in range(_MOST_REDIRECTS + 1):
        info = _fetch_info(address, _Attempts(timeout, retries, delay, threading.Event()))
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
        raise DdgmError(f"{address} has no mip {mip}: choose one of {there}")
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
            chunk_size=_triple(scale["chunk_sizes"][0]),
            voxel_size=(
                float(scale["resolution"][0]),
                float(scale["resolution"][1]),
                float(scale["resolution"][2]),
            ),
            dtype=dtype,
            encoding=str(scale["encoding"]).lower(),
            key=str(scale["key"]),
            sharding=scale.get("sharding"),
            block_size=_triple(scale.get("compressed_segmentation_block_size", (8, 8, 8))),
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


def download(
    source: str,
    destination: str | Path,
    *,
    mip: int,
    box: Box,
    axes: str = "yzx",
    workers: int = 8,
    fill_missing: bool = False,
    timeout: float = 60.0,
    retries: int = 5,
    progress: bool = True,
    delay: float = 0.5,
    tile_bytes: int = 8 * 2**20,
) -> Volume:
    """Copy a box of a precomputed volume into a local Zarr v3 array.

    A download that was killed or failed continues where it stopped when it is called again with
    the same source, mip, box and axes. A complete destination of these settings is returned as it
    is.

    Memory in flight is bounded by ``workers + 2`` tiles (being fetched, or waiting to be written)
    of at most `tile_bytes`, or of one source chunk where that is larger.

    Parameters
    ----------
    source
        Address of the volume; see `read_info`.
    destination
        Folder of the Zarr array to make. Until it is complete, the data are in
        ``<destination>.partial``.
    mip
        Index of the source's scale; 0 is the finest.
    box
        What to copy, in voxels of that mip (x, y, z).
    axes
        Order of the source axes in the array: (tilt axis, depth, detector axis).
    workers
        Number of threads that fetch.
    fill_missing
        Take chunks that the source does not have (HTTP 404), or that are empty, as zeros instead of
        failing. Damaged and unreadable chunks fail in any case.
    timeout
        Limit of one attempt to fetch one chunk, in seconds.
    retries
        How often a failed attempt is repeated.
    progress
        Show a progress bar on stderr.
    delay
        Seconds before the first repetition; doubled each time, with some jitter.
    tile_bytes
        Largest size of a tile in bytes. Tiles are the unit of resuming.

    Returns
    -------
    Volume
        The complete volume, open for reading, of the source's data type and the shape of `box` in
        the order of `axes`. Its attributes also name ``source``, ``mip``, ``box`` and
        ``fill_missing``.

    Raises
    ------
    DdgmError
        If the source cannot be read or is not as needed (see `read_info`), the box reaches out of
        it, a chunk is missing, damaged or cannot be fetched, the destination holds something else,
        or another process is downloading to it.
    """
    check_axes(axes)
    if workers < 1 or retries < 0 or timeout <= 0:
        raise DdgmError(
            f"workers is {workers}, retries {retries}, timeout {timeout}: at least 1 worker, no "
            "fewer than 0 retries and a timeout above 0 s are needed"
        )
    destination = Path(destination)
    finished = _finished(destination, clean_address(source), mip, box, axes, fill_missing)
    if finished is not None:
        logger.info("%s is complete already", destination)
        shutil.rmtree(_staging_path(destination), ignore_errors=True)
        return finished

    info = read_info(source, mip, timeout=timeout, retries=retries, delay=delay)
    check_box(info, box)
    tile_shape = choose_tile_shape(info, box, tile_bytes)
    tiles = plan_tiles(info, box, tile_shape)
    settings = {
        "source": clean_address(source),
        "data": info.address,
        "mip": mip,
        "box": {"start": list(box.start), "stop": list(box.stop)},
        "axes": axes,
        "dtype": str(info.dtype),
        "grid_origin": list(info.bounds.start),
        "chunk_size": list(info.chunk_size),
        "tile_shape": list(tile_shape),
    }
    stop = threading.Event()
    reader = _ChunkReader(info, fill_missing, _Attempts(timeout, retries, delay, stop), workers)
    with _exclusive(_staging_path(destination)):
        staging = _Staging(_staging_path(destination), settings, fill_missing, info, box, axes)
        todo = [tile for tile in tiles if tile.start not in staging.recorded]
        logger.info(
            "%s of %s: %d tiles, %d of them on disk already",
            box,
            info.address,
            len(tiles),
            len(tiles) - len(todo),
        )
        voxels = math.prod(box.shape)
        with (
            contextlib.closing(_fetch(reader, todo, workers, stop)) as fetched,
            tqdm(
                total=voxels,
                initial=voxels - sum(math.prod(tile.shape) for tile in todo),
                desc=f"download {destination.name}",
                unit="vx",
                unit_scale=True,
                disable=not progress,
            ) as bar,
        ):
            for tile, image in fetched:
                staging.write(tile, image)
                bar.update(math.prod(tile.shape))
        staging.finish(destination)
    return open_volume(destination)


def clean_address(source: str) -> str:
    """Return an address without ``precomputed://`` and without a slash at its end."""
    address = source.strip().removeprefix("precomputed://")
    return address.removesuffix("|neuroglancer-precomputed:").rstrip("/")


def choose_tile_shape(info: SourceInfo, box: Box, tile_bytes: int) -> Triple:
    """Group chunks into tiles.

    Parameters
    ----------
    info
        The volume.
    box
        What will be downloaded, in voxels.
    tile_bytes
        Largest size of a tile in bytes; a single chunk may be larger.

    Returns
    -------
    tuple of 3 ints
        Chunks per tile along x, y, z; tiles as close to cubes as doubling allows, since those touch
        the fewest Zarr chunks twice.
    """
    grid = [hi - lo for lo, hi in _chunk_ranges(info, box)]
    shape = [1, 1, 1]
    while True:
        growing = [axis for axis in range(3) if shape[axis] < grid[axis]]
        if not growing:
            break
        axis = min(growing, key=lambda i: shape[i] * info.chunk_size[i])
        larger = [min(n * 2, grid[i]) if i == axis else n for i, n in enumerate(shape)]
        if math.prod(larger) * math.prod(info.chunk_size) * info.dtype.itemsize > tile_bytes:
            break
        shape = larger
    return _triple(shape)


def plan_tiles(info: SourceInfo, box: Box, tile_shape: Triple) -> list[Box]:
    """Divide a box into tiles of whole chunks, clipped to the box.

    Parameters
    ----------
    info
        The volume.
    box
        What to download, in voxels.
    tile_shape
        Chunks per tile along x, y, z.

    Returns
    -------
    list of Box
        Disjoint boxes of voxels that make up `box`. No chunk belongs to two of them.
    """
    return [
        _clip(_chunk_box(info, corner, tile_shape), box)
        for corner in _corners(_chunk_ranges(info, box), tile_shape)
    ]


def chunks_of(info: SourceInfo, region: Box) -> list[Box]:
    """List the chunks of the volume that overlap a box of voxels, clipped to the volume only."""
    return [
        _clip(_chunk_box(info, corner, (1, 1, 1)), info.bounds)
        for corner in _corners(_chunk_ranges(info, region), (1, 1, 1))
    ]


def chunk_name(info: SourceInfo, chunk: Box) -> str:
    """Return the path of a chunk's file under the address, as the precomputed format names it."""
    extents = (f"{a}-{b}" for a, b in zip(chunk.start, chunk.stop, strict=True))
    return posixpath.join(info.key, "_".join(extents))


def public_address(address: str) -> str:
    """Return the HTTPS address under which a public ``gs://`` or ``s3://`` bucket can be read.

    Other addresses are returned as they are. An S3 bucket becomes part of the host name, because
    only so does the name lead to the bucket's region; one with dots in its name does not fit the
    certificate and becomes part of the path.
    """
    protocol, _, rest = address.partition("://")
    if protocol == "gs":
        return f"https://storage.googleapis.com/{rest}"
    if protocol == "s3":
        if rest.startswith(("http://", "https://")):
            return rest
        bucket, _, path = rest.partition("/")
        if "." in bucket:
            return f"https://s3.amazonaws.com/{rest}"
        return f"https://{bucket}.s3.amazonaws.com/{path}"
    return address


def _fetch(
    reader: _ChunkReader, tiles: list[Box], workers: int, stop: threading.Event
) -> Generator[tuple[Box, NDArray[Any]], None, None]:
    """Yield tiles as they arrive, at most ``workers + 2`` of them in memory."""
    waiting = iter(tiles)
    pending: dict[Future[NDArray[Any]], Box] = {}
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ddgm-download")
    try:
        while True:
            for tile in itertools.islice(waiting, workers + 2 - len(pending)):
                pending[pool.submit(reader.read_tile, tile)] = tile
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            errors = []
            while done:  # emptied as it goes, or it would keep tiles in memory that are on disk
                future = done.pop()
                tile = pending.pop(future)
                error = future.exception()
                if error is None:
                    yield tile, future.result()
                else:
                    errors.append(error)
                del future
            if errors:
                raise errors[0]
    finally:
        # Workers look at `stop` while they wait for a server, so this does not take long.
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Attempts:
    """How often and how long to try.

    Attributes
    ----------
    timeout
        Limit of one attempt in seconds.
    retries
        How often a failed attempt is repeated.
    delay
        Seconds before the first repetition.
    stop
        Ends every wait once it is set.
    """

    timeout: float
    retries: int
    delay: float
    stop: threading.Event

    def repeat(self, what: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it succeeds, or raise what it raised last."""
        for number in itertools.count():
            if self.stop.is_set():
                raise _StoppedError
            try:
                return attempt()
            except (_AbsentError, _RefusedError, _StoppedError):
                raise
            except Exception as error:  # decoders and storage libraries raise whatever they like
                if number >= self.retries:
                    raise
                pause = min(self.delay * 2**number, _LONGEST_DELAY) * random.uniform(0.75, 1.25)
                logger.warning(
                    "%s: %s; trying again in %.1f s (%d of %d)",
                    what,
                    _one_line(error),
                    pause,
                    number + 1,
                    self.retries,
                )
                self.stop.wait(pause)
        raise AssertionError("unreachable")

    def within_timeout(self, request: Callable[[], T]) -> T:
        """Call `request` in a thread of its own and give it up after the time limit.

        Time limits of sockets bound the wait for the next byte only, and the clients for gs:// and
        s3:// have limits and retries of their own. An abandoned thread ends with its socket; being
        a daemon it does not keep the process.
        """
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(request())
            except BaseException as error:  # handed to the waiting thread, whatever it is
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True, name="ddgm-request").start()
        for _ in range(math.ceil(self.timeout / _POLL)):
            wait([outcome], timeout=min(_POLL, self.timeout))
            if outcome.done():
                return outcome.result()
            if self.stop.is_set():
                raise _StoppedError
        raise TimeoutError(f"no complete answer within {self.timeout:g} s")


class _Storage:
    """The files under an address; safe to share between threads.

    Raises
    ------
    DdgmError
        If the address is not one that cloud-files understands.
    """

    def __init__(self, address: str, attempts: _Attempts, connections: int = 1) -> None:
        self._attempts = attempts
        self._files = _cloud_files(address, attempts.timeout, connections)

    def get(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Fetch a file, or some bytes of it, in one attempt and undo its transport compression."""
        from cloudfiles import compression

        request = {"path": path, "start": start, "end": end}
        # The content is checked against the server's hash in here, where it sends one.
        (answer,) = self._attempts.within_timeout(lambda: self._files.get([request], raw=True))
        content = answer["content"]
        if content is None:
            raise _AbsentError("no such file")
        if len(content) == 0:
            raise _AbsentError("the file is empty")
        if start is not None and end is not None and len(content) != end - start:
            raise OSError(f"{len(content)} bytes arrived instead of {end - start}")
        plain: bytes = compression.decompress(content, answer["compress"], filename=path)
        if len(plain) == 0:
            raise _AbsentError("the file is empty once decompressed")
        return plain

    def download_as(
        self, requests: list[dict[str, Any]], progress: object = None
    ) -> dict[tuple[str, int, int], bytes | None]:
        """Stand in for cloud-volume's cache where its ShardReader fetches indices."""
        answers: dict[tuple[str, int, int], bytes | None] = {}
        for request in requests:
            place = request["path"], request["start"], request["end"]
            try:
                answers[place] = self.get(*place)
            except _AbsentError:
                answers[place] = None
        return answers


class _ChunkReader:
    """Fetches and decodes the chunks of a volume; safe to share between threads."""

    def __init__(
        self, info: SourceInfo, fill_missing: bool, attempts: _Attempts, workers: int
    ) -> None:
        self._info = info
        self._fill_missing = fill_missing
        self._attempts = attempts
        self._storage = _Storage(info.address, attempts, connections=workers)
        # ShardReader's caches of indices are not thread-safe.
        self._local = threading.local()

    def read_tile(self, tile: Box) -> NDArray[Any]:
        """Return the voxels of a box, in the order x, y, z."""
        image = np.empty(tile.shape, dtype=self._info.dtype, order="F")
        for chunk in chunks_of(self._info, tile):
            shared = _clip(chunk, tile)
            image[_slices(shared, tile)] = self._read_chunk(chunk)[_slices(shared, chunk)]
        return image

    def _read_chunk(self, chunk: Box) -> NDArray[Any]:
        name = chunk_name(self._info, chunk)
        try:
            return self._attempts.repeat(name, lambda: self._decode(chunk, self._fetch(chunk)))
        except _StoppedError:
            raise
        except _AbsentError as error:
            if self._fill_missing:
                logger.warning("%s: chunk %s: %s; taken as zeros", self._info.address, name, error)
                return np.zeros(chunk.shape, dtype=self._info.dtype)
            raise DdgmError(
                f"chunk {name} of {self._info.address} is missing ({error}): check the source, or "
                "set fill_missing to fill missing chunks with zeros"
            ) from error
        except _RefusedError as error:
            raise DdgmError(
                f"chunk {name} of {self._info.address} may not be read ({error}): check that the "
                "source is public or credentials are set (fill_missing would fill missing chunks "
                "with zeros, but not this one)"
            ) from error
        except Exception as error:  # see _Attempts.repeat
            raise DdgmError(
                f"chunk {name} of {self._info.address} could not be read in "
                f"{self._attempts.retries + 1} attempts, last because of {_one_line(error)}: check "
                "the source and try again (fill_missing would fill missing chunks with zeros, but "
                "not a damaged or unreadable one)"
            ) from error

    def _fetch(self, chunk: Box) -> bytes:
        if self._info.sharding is None:
            return self._storage.get(chunk_name(self._info, chunk))
        from cloudfiles import compression
        from cloudvolume.datasource.precomputed.common import compressed_morton_code

        reader = self._shard_reader()
        bounds, size = self._info.bounds, self._info.chunk_size
        point = [(c - o) // n for c, o, n in zip(chunk.start, bounds.start, size, strict=True)]
        grid = [-(-n // s) for n, s in zip(bounds.shape, size, strict=True)]
        label = int(compressed_morton_code(point, grid))
        place = reader.exists(label, path=self._info.key, return_byte_range=True)
        if place is None:
            shard = reader.get_filename(label)
            raise _AbsentError(f"shard {posixpath.join(self._info.key, shard)} does not hold it")
        path, start, length = place
        if length == 0:
            raise _AbsentError(f"it has no bytes in shard {path}")
        content = self._storage.get(path, start, start + length)
        if reader.spec.data_encoding == "raw":
            return content
        plain: bytes = compression.decompress(content, reader.spec.data_encoding, filename=path)
        return plain

    def _decode(self, chunk: Box, content: bytes) -> NDArray[Any]:
        from cloudvolume import chunks

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
            from cloudvolume.datasource.precomputed import sharding

            spec = sharding.ShardingSpecification.from_dict(dict(self._info.sharding or {}))
            self._local.reader = sharding.ShardReader(self._info.address, self._storage, spec)
        return self._local.reader


class _Staging:
    """The unfinished download in ``<destination>.partial``.

    It holds the folder ``volume`` (the Zarr array), ``settings.json`` (written last when it is set
    up, so that it vouches for the array) and ``tiles.txt``, the journal: the first voxel of each
    tile whose data are on disk, one per line.
    """

    def __init__(
        self,
        root: Path,
        settings: Mapping[str, Any],
        fill_missing: bool,
        info: SourceInfo,
        box: Box,
        axes: str,
    ) -> None:
        self._root = root
        self._axes = axes
        self._box = box
        self._order = tuple("xyz".index(axis) for axis in axes)
        if not self._resumes(settings, fill_missing):
            self._set_up(settings, fill_missing, info)
        self._journal = root / "tiles.txt"
        self.recorded = _read_journal(self._journal)
        for leftover in (root / "volume").rglob(".*.tmp"):
            leftover.unlink()
        self._store = _DurableStore(root / "volume")
        self._array = zarr.open_array(self._store, mode="r+", zarr_format=3)
        # Chunks filled from now on must never pass for fetched ones, not even after a crash.
        if self._array.attrs["fill_missing"] != fill_missing:
            self._array.attrs["fill_missing"] = fill_missing
            self._write_settings(settings, fill_missing)

    def write(self, tile: Box, image: NDArray[Any]) -> None:
        """Write a tile (axes x, y, z), wait until it is on disk, and record it."""
        region = _slices(tile, self._box)
        self._array[tuple(region[i] for i in self._order)] = image.transpose(self._order)
        self._store.sync_folders()
        with self._journal.open("ab") as journal:
            journal.write(("{} {} {}\n".format(*tile.start)).encode())
            journal.flush()
            os.fsync(journal.fileno())
        self.recorded.add(tile.start)

    def finish(self, destination: Path) -> None:
        """Move the complete volume to its destination in one step."""
        self._store.sync_folders()
        (self._root / "volume").rename(destination)
        _sync(destination.parent)
        shutil.rmtree(self._root)

    def _resumes(self, settings: Mapping[str, Any], fill_missing: bool) -> bool:
        path = self._root / "settings.json"
        if not path.exists():
            return False
        try:
            found = json.loads(path.read_text())
            array = zarr.open_array(str(self._root / "volume"), mode="r", zarr_format=3)
            filled = bool(found.pop("fill_missing")) or bool(array.attrs["fill_missing"])
            _read_journal(self._root / "tiles.txt")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("discarding %s: unreadable (%s)", self._root, _one_line(error))
            return False
        if found != settings:
            logger.warning("discarding %s: it was made with other settings", self._root)
            return False
        if filled and not fill_missing:
            logger.warning("discarding %s: it was made with fill_missing", self._root)
            return False
        return True

    def _set_up(self, settings: Mapping[str, Any], fill_missing: bool, info: SourceInfo) -> None:
        # The settings go first: without them a half-wiped staging is not taken for a good one.
        (self._root / "settings.json").unlink(missing_ok=True)
        for entry in self._root.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        create_volume(
            self._root / "volume",
            [self._box.shape[i] for i in self._order],
            info.dtype,
            axes=self._axes,
            voxel_size=[info.voxel_size[i] for i in self._order],
            origin=[self._box.start[i] for i in self._order],
            attributes={
                "source": settings["source"],
                "mip": settings["mip"],
                "box": settings["box"],
                "fill_missing": fill_missing,
            },
        )
        _sync(self._root / "volume" / "zarr.json")
        _sync(self._root / "volume")
        self._write_settings(settings, fill_missing)

    def _write_settings(self, settings: Mapping[str, Any], fill_missing: bool) -> None:
        content = json.dumps({**settings, "fill_missing": fill_missing}, indent=2)
        _write_durably(self._root / "settings.json", content.encode())
        _sync(self._root)


class _DurableStore(LocalStore):
    """A local Zarr store whose values are on disk before they replace older ones.

    Zarr's own store renames a finished file into place, which is enough for a killed process; but
    without waiting for the disk, a power failure may leave the new name with no content, and with
    it the loss of what neighbouring tiles had put into that Zarr chunk.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._touched: set[Path] = set()

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value and wait for the disk."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a value and wait for the disk."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_durably(path, value.to_bytes())
        self._touched.add(path.parent)

    def sync_folders(self) -> None:
        """Bring the names of everything written since the last call to the disk."""
        folders = {
            folder
            for touched in self._touched
            for folder in (touched, *touched.parents)
            if folder.is_relative_to(self.root)
        }
        for folder in folders:
            _sync(folder)
        self._touched.clear()


def _write_durably(path: Path, content: bytes) -> None:
    """Replace a file in one step, by content that is on disk already."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_journal(path: Path) -> set[Triple]:
    """Read the recorded tiles and cut off a line that was not written to its end."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    return {_triple(line.split()) for line in whole.decode().splitlines()}


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DdgmError(
                f"another process is downloading to {folder}: wait for it, or stop it"
            ) from error
        yield
    finally:
        os.close(handle)


def _staging_path(destination: Path) -> Path:
    return destination.with_name(destination.name + ".partial")


def _finished(
    destination: Path, address: str, mip: int, box: Box, axes: str, fill_missing: bool
) -> Volume | None:
    """Return the volume at the destination if it is what would be downloaded, None if none."""
    if not destination.exists():
        return None
    if destination.is_dir() and not any(destination.iterdir()):
        return None  # an empty folder gives way to the rename
    volume = open_volume(destination)
    attributes = volume.array.attrs.asdict()
    wanted = {
        "source": address,
        "mip": mip,
        "box": {"start": list(box.start), "stop": list(box.stop)},
    }
    same = all(attributes.get(key) == value for key, value in wanted.items())
    if not same or volume.axes != axes or (attributes.get("fill_missing") and not fill_missing):
        raise DdgmError(
            f"{destination} already holds a volume of other settings: remove it, or choose another "
            "destination"
        )
    return volume


def _fetch_info(address: str, attempts: _Attempts) -> Mapping[str, Any]:
    storage = _Storage(address, attempts)
    try:
        content = attempts.repeat(f"{address}/info", partial(storage.get, "info"))
    except _AbsentError as error:
        raise DdgmError(
            f"{address} has no info file ({error}): give the address of a Neuroglancer-precomputed "
            "volume, the folder that holds `info`"
        ) from error
    except _RefusedError as error:
        raise DdgmError(
            f"{address}/info may not be read ({error}): check the address, and that it is public "
            "or credentials are set"
        ) from error
    except Exception as error:  # see _Attempts.repeat
        raise DdgmError(
            f"{address}/info could not be read in {attempts.retries + 1} attempts, last because of "
            f"{_one_line(error)}: check the address and the network"
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
        f"{address}/info does not describe a precomputed image ({_one_line(error)}): give the "
        "address of a Neuroglancer-precomputed volume"
    )


def _check_encoding(info: SourceInfo) -> None:
    from cloudvolume import chunks

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
            f"package: {_one_line(error)}"
        ) from error


def _cloud_files(address: str, timeout: float, connections: int) -> Any:
    """Make a CloudFiles whose requests are attempted once and cannot hang for ever."""
    from cloudfiles import CloudFiles, paths
    from cloudfiles.exceptions import UnsupportedProtocolError

    unreadable = DdgmError(
        f"{address} is not an address that can be read: it must begin with gs://, https://, s3:// "
        "or file://"
    )
    if "://" in address and paths.get_protocol(address) is None:
        raise unreadable  # cloud-files would look for a local folder of that name
    try:
        extracted = paths.extract(paths.normalize(address))
    except UnsupportedProtocolError as error:
        raise unreadable from error
    if extracted.format != "precomputed":
        raise DdgmError(
            f"{address} is in the format {extracted.format}: a Neuroglancer-precomputed volume is "
            "needed"
        )
    if extracted.protocol in ("gs", "s3") and not _has_credentials(extracted):
        address = public_address(address)
    adapter = _timed_adapter(timeout, connections)

    class OneAttemptFiles(CloudFiles):  # type: ignore[misc]
        def _get_connection(self) -> Any:
            connection = super()._get_connection()
            once = getattr(type(connection).get_file, "__wrapped__", None)
            if once is not None:
                connection.get_file = partial(once, connection)
            if hasattr(connection, "session"):
                connection.session.mount("http://", adapter)
                connection.session.mount("https://", adapter)
            return connection

    return OneAttemptFiles(address, progress=False, green=False)


def _has_credentials(extracted: Any) -> bool:
    """Tell whether credentials for a bucket are configured where cloud-files looks for them.

    Without this check Google's and Amazon's clients go looking for a metadata server, and then
    refuse to read public buckets.
    """
    from cloudfiles.secrets import secretpath

    kind, variables = {
        "gs": ("google", ["GOOGLE_APPLICATION_CREDENTIALS"]),
        "s3": ("aws", ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"]),
    }[extracted.protocol]
    files = (f"{kind}-secret.json", f"{extracted.bucket}-{kind}-secret.json")
    return any(os.environ.get(name) for name in variables) or any(
        os.path.exists(secretpath(name)) for name in files
    )


def _timed_adapter(timeout: float, connections: int) -> HTTPAdapter:
    """Make an HTTP adapter that limits waits and lets no odd answer pass for a file.

    cloud-files takes 403 for "no such file", accepts any status below 400, and believes that a
    server which ignored the byte range has sent that range.
    """
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    class TimedAdapter(HTTPAdapter):
        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            kwargs["timeout"] = timeout
            response = super().send(request, *args, **kwargs)
            status = response.status_code
            if status in (401, 403):
                response.close()
                raise _RefusedError(f"HTTP {status} {response.reason}")
            expected = 206 if "Range" in request.headers else 200
            if status < 400 and status != expected and not response.is_redirect:
                response.close()
                raise OSError(f"HTTP {status} instead of {expected}")
            return response

    return TimedAdapter(pool_connections=1, pool_maxsize=connections + 2)


def _one_line(error: BaseException) -> str:
    """Put an exception's type and message on one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _triple(values: Any) -> Triple:
    a, b, c = (int(value) for value in values)
    return a, b, c


def _chunk_ranges(info: SourceInfo, box: Box) -> list[tuple[int, int]]:
    """Return the half-open ranges of chunk indices that a box overlaps, along x, y, z."""
    return [
        ((start - origin) // size, -((origin - stop) // size))
        for start, stop, origin, size in zip(
            box.start, box.stop, info.bounds.start, info.chunk_size, strict=True
        )
    ]


def _corners(ranges: list[tuple[int, int]], step: Triple) -> Iterator[Triple]:
    """Yield the first chunk index of each block of `step` chunks, x changing fastest."""
    x, y, z = (range(lo, hi, n) for (lo, hi), n in zip(ranges, step, strict=True))
    for k, j, i in itertools.product(z, y, x):
        yield i, j, k


def _chunk_box(info: SourceInfo, corner: Triple, shape: Triple) -> Box:
    """Return the voxels of `shape` chunks from the chunk index `corner` on, not clipped."""
    origin, size = info.bounds.start, info.chunk_size
    return Box(
        _triple(o + i * s for o, i, s in zip(origin, corner, size, strict=True)),
        _triple(o + (i + n) * s for o, i, n, s in zip(origin, corner, shape, size, strict=True)),
    )


def _clip(box: Box, limits: Box) -> Box:
    return Box(_triple(map(max, box.start, limits.start)), _triple(map(min, box.stop, limits.stop)))


def _slices(box: Box, within: Box) -> tuple[slice, slice, slice]:
    """Return where `box` lies in an array (axes x, y, z) that holds `within`."""
    x, y, z = (
        slice(a - o, b - o) for a, b, o in zip(box.start, box.stop, within.start, strict=True)
    )
    return x, y, z
