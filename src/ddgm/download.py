"""Copy a box out of a Neuroglancer-precomputed volume into a local Zarr v3 array.

The work is divided into tiles of whole source chunks. Worker threads fetch and decode tiles; the
calling thread alone writes them, because Zarr chunks and source chunks do not coincide and two
writers would lose each other's half of a shared Zarr chunk. Everything goes to
``<destination>.partial``: first a tile's data reach the disk, then the tile is recorded in a
journal there, and only a complete volume is renamed to the destination.
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
import shutil
import threading
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from tqdm import tqdm
from zarr.storage import LocalStore

from ddgm.archive import sync, write_durably
from ddgm.errors import DdgmError
from ddgm.precomputed import (
    ChunkReader,
    SourceInfo,
    check_box,
    chunk_ranges,
    chunks_of,
    clean_address,
    intersection,
    read_info,
    slices,
    triple,
)
from ddgm.storage import Attempts, one_line
from ddgm.volume import Box, Triple, Volume, check_axes, create_volume, open_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from zarr.abc.buffer import Buffer

logger = logging.getLogger(__name__)


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
    reader = ChunkReader(info, fill_missing, Attempts(timeout, retries, delay, stop), workers)
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
    grid = [len(indices) for indices in chunk_ranges(info, box)]
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
    return triple(shape)


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
    return [intersection(group, box) for group in chunks_of(info, box, tile_shape)]


def _fetch(
    reader: ChunkReader, tiles: list[Box], workers: int, stop: threading.Event
) -> Generator[tuple[Box, NDArray[Any]], None, None]:
    """Yield tiles as they arrive, at most ``workers + 2`` of them in memory."""
    waiting = iter(tiles)
    pending: dict[Future[NDArray[Any]], Box] = {}
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ddgm-download")
    try:
        while True:
            for tile in itertools.islice(waiting, workers + 2 - len(pending)):
                pending[pool.submit(reader.read, tile)] = tile
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
            self._store.sync_folders()

    def write(self, tile: Box, image: NDArray[Any]) -> None:
        """Write a tile (axes x, y, z), wait until it is on disk, and record it."""
        region = slices(tile, self._box)
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
        sync(destination.parent)
        shutil.rmtree(self._root)

    def _resumes(self, settings: Mapping[str, Any], fill_missing: bool) -> bool:
        path = self._root / "settings.json"
        if not path.exists():
            return False
        try:
            found = json.loads(path.read_text())
            array = zarr.open_array(str(self._root / "volume"), mode="r", zarr_format=3)
            filled = bool(array.attrs["fill_missing"])
            _read_journal(self._root / "tiles.txt")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("discarding %s: unreadable (%s)", self._root, one_line(error))
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
        sync(self._root / "volume" / "zarr.json")
        sync(self._root / "volume")
        write_durably(self._root / "settings.json", json.dumps(settings, indent=2).encode())
        sync(self._root)


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
        write_durably(path, value.to_bytes())
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
            sync(folder)
        self._touched.clear()


def _read_journal(path: Path) -> set[Triple]:
    """Read the recorded tiles and cut off a line that was not written to its end."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    return {triple(line.split()) for line in whole.decode().splitlines()}


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
        except OSError as error:  # some network file systems know no locks
            logger.warning(
                "%s cannot be locked (%s): see that nothing else writes it", folder, error
            )
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
