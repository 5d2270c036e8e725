import gzip
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from cloudvolume import CloudVolume, chunks
from cloudvolume.datasource.precomputed.common import compressed_morton_code
from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

from ddgm import storage
from ddgm.download import choose_tile_shape, download, plan_tiles
from ddgm.errors import DdgmError
from ddgm.precomputed import chunk_name, chunks_of, parse_info, read_info
from ddgm.volume import Box, open_volume

OFFSET = (100, 20, 7)
SHAPE = (70, 50, 45)  # no multiple of the chunk
CHUNK = (16, 16, 16)
WHOLE = Box(OFFSET, tuple(o + n for o, n in zip(OFFSET, SHAPE, strict=True)))
UNALIGNED = Box((103, 22, 11), (151, 61, 45))
ONE_CHUNK = 16**3  # tile_bytes that makes every chunk a tile
VICTIM = "8_8_8/116-132_36-52_23-39"

# Short waits between attempts, so that the tests are short.
QUICK = {"mip": 0, "workers": 4, "retries": 3, "delay": 0.01, "progress": False}


class Server(ThreadingHTTPServer):
    """Serves a folder the way a bucket does, and misbehaves where it is told to.

    `faults` maps a path to a list of faults, used up one per request, or to one fault for ever.
    """

    daemon_threads = True

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = Path(root)
        self.faults = {}
        self.latency = 0.0
        self.requests = Counter()
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, path):
        with self.lock:
            self.requests[path] += 1
            fault = self.faults.get(path)
            if isinstance(fault, list):
                return fault.pop(0) if fault else None
            return fault

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # headers and body in one packet: otherwise each answer costs 40 ms

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        path = self.path.lstrip("/")
        fault = server.fault(path)
        if path != "info":
            time.sleep(server.latency)
        if isinstance(fault, int):
            self.answer(fault, b"")
            return
        if fault == "stall":
            server.released.wait(30)
            self.close_connection = True
            return
        if fault == "reset":
            self.close_connection = True
            return
        file, encoding = server.root / path, None
        if not file.exists():
            file, encoding = server.root / f"{path}.gz", "gzip"
        if not file.exists():
            self.answer(404, b"")
            return
        content = file.read_bytes()
        if fault == "empty":
            self.answer(200, b"")
        elif fault == "corrupt":
            self.answer(200, content[:40] + b"\0\1\2\3" * 20 + content[120:], encoding)
        elif fault == "truncated":
            self.answer(200, content[: len(content) // 2], encoding, len(content))
        elif fault == "truncated without notice":
            self.answer(200, content[: len(content) // 2], encoding)
        elif fault == "drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for i in range(len(content)):
                self.wfile.write(content[i : i + 1])
                self.wfile.flush()
                if server.released.wait(0.05):
                    break
            self.close_connection = True
        elif "Range" in self.headers and fault != "no ranges":
            first, last = re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
            self.answer(206, content[int(first) : int(last) + 1], encoding)
        else:
            self.answer(200, content, encoding)

    def answer(self, status, content, encoding=None, announced=None):
        self.send_response(status)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(announced or len(content)))
        self.end_headers()
        self.wfile.write(content)
        if announced:
            self.close_connection = True


def make_info(encoding="raw", **changes):
    return (
        CloudVolume.create_new_info(
            num_channels=1,
            layer_type="image",
            data_type="uint8",
            encoding=encoding,
            resolution=(8, 8, 8),
            voxel_offset=OFFSET,
            volume_size=SHAPE,
            chunk_size=CHUNK,
            max_mip=1,
        )
        | changes
    )


def make_image():
    # No voxel is zero, so that a chunk that was filled with zeros shows.
    return np.random.default_rng(1).integers(1, 256, SHAPE, dtype=np.uint8)


def cut(image, box, axes):
    """What the download of `box` must hold."""
    region = tuple(slice(a - o, b - o) for a, b, o in zip(box.start, box.stop, OFFSET, strict=True))
    return image[region].transpose(["xyz".index(axis) for axis in axes])


@pytest.fixture(scope="module")
def image():
    return make_image()


@pytest.fixture(scope="module")
def raw_volume(tmp_path_factory, image):
    root = tmp_path_factory.mktemp("raw")
    volume = CloudVolume(f"file://{root}", info=make_info(), mip=0, compress="gzip", progress=False)
    volume.commit_info()
    volume[:] = image[..., np.newaxis]
    return root


@pytest.fixture(scope="module")
def jpeg_volume(tmp_path_factory, image):
    root = tmp_path_factory.mktemp("jpeg")
    volume = CloudVolume(f"file://{root}", info=make_info("jpeg"), mip=0, progress=False)
    volume.commit_info()
    volume[:] = image[..., np.newaxis]
    return root


def write_sharded(root, image, encoding, data_encoding):
    """Write the first mip of a sharded volume."""
    spec = ShardingSpecification(
        "neuroglancer_uint64_sharded_v1",
        preshift_bits=1,
        hash="identity",
        minishard_bits=1,
        shard_bits=6,
        minishard_index_encoding="gzip",
        data_encoding=data_encoding,
    )
    info = make_info(encoding)
    info["scales"][0]["sharding"] = {
        name: int(value) if isinstance(value, np.integer) else value
        for name, value in spec.to_dict().items()
    }
    (root / "8_8_8").mkdir()
    (root / "info").write_text(json.dumps(info))
    source = parse_info(info, f"file://{root}", 0)
    grid = [-(-n // c) for n, c in zip(SHAPE, CHUNK, strict=True)]
    encoded = {}
    for chunk in chunks_of(source, WHOLE):
        point = [(a - o) // c for a, o, c in zip(chunk.start, OFFSET, CHUNK, strict=True)]
        label = int(compressed_morton_code(point, grid))
        encoded[label] = chunks.encode(cut(image, chunk, "xyz")[..., np.newaxis], encoding)
    for name, content in spec.synthesize_shards(encoded).items():
        (root / "8_8_8" / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def sharded_volume(tmp_path_factory, image):
    return write_sharded(tmp_path_factory.mktemp("sharded"), image, "raw", "gzip")


@pytest.fixture(scope="module")
def sharded_jpeg_volume(tmp_path_factory, image):
    """As the hemibrain's electron micrographs are stored."""
    return write_sharded(tmp_path_factory.mktemp("sharded_jpeg"), image, "jpeg", "raw")


@pytest.fixture
def serve(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    servers = []

    def start(root):
        server = Server(root)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(serve, raw_volume):
    return serve(raw_volume)


def source_info():
    return parse_info(make_info(), "file:///nowhere", 0)


# Planning


def test_tiles_make_up_the_box_and_share_no_chunk():
    info = source_info()
    for shape in [(1, 1, 1), (2, 1, 3), (9, 9, 9)]:
        tiles = plan_tiles(info, UNALIGNED, shape)
        count = np.zeros(UNALIGNED.shape, dtype=int)
        for tile in tiles:
            assert UNALIGNED.contains(tile)
            count[
                tuple(
                    slice(a - o, b - o)
                    for a, b, o in zip(tile.start, tile.stop, UNALIGNED.start, strict=True)
                )
            ] += 1
        assert (count == 1).all()
        fetched = [chunk for tile in tiles for chunk in chunks_of(info, tile)]
        assert sorted(map(str, fetched)) == sorted(map(str, chunks_of(info, UNALIGNED)))


def test_tiles_grow_towards_cubes_within_their_budget():
    info = source_info()
    assert choose_tile_shape(info, WHOLE, 1) == (1, 1, 1)
    assert choose_tile_shape(info, WHOLE, 8 * ONE_CHUNK) == (2, 2, 2)
    assert choose_tile_shape(info, WHOLE, 2**30) == (5, 4, 3)
    flat = replace(info, chunk_size=(64, 64, 1))
    assert choose_tile_shape(flat, WHOLE, 64 * 64 * 8) == (1, 1, 8)


# What is copied


@pytest.mark.parametrize("axes", ["yzx", "zyx", "xyz"])
def test_the_array_holds_the_box_in_the_order_of_its_axes(tmp_path, raw_volume, image, axes):
    volume = download(
        f"precomputed://file://{raw_volume}/",
        tmp_path / "v.zarr",
        box=UNALIGNED,
        axes=axes,
        **QUICK,
    )
    np.testing.assert_array_equal(volume.array[...], cut(image, UNALIGNED, axes))
    assert volume.dtype == np.uint8
    assert volume.axes == axes
    assert volume.voxel_size == (8.0, 8.0, 8.0)
    assert volume.origin == tuple(UNALIGNED.start["xyz".index(axis)] for axis in axes)
    attributes = volume.array.attrs.asdict()
    assert attributes["source"] == f"file://{raw_volume}"
    assert attributes["mip"] == 0
    assert attributes["box"] == {"start": [103, 22, 11], "stop": [151, 61, 45]}
    assert attributes["fill_missing"] is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.zarr"]
    assert not list((tmp_path / "v.zarr").rglob(".*"))


@pytest.mark.parametrize("tile_bytes", [ONE_CHUNK, 5 * ONE_CHUNK, 2**23])
def test_every_chunk_is_requested_once(tmp_path, server, image, tile_bytes):
    volume = download(server.address, tmp_path / "v", box=UNALIGNED, tile_bytes=tile_bytes, **QUICK)
    np.testing.assert_array_equal(volume.array[...], cut(image, UNALIGNED, "yzx"))
    info = read_info(server.address, 0)
    expected = {chunk_name(info, chunk) for chunk in chunks_of(info, UNALIGNED)}
    seen = {path: n for path, n in server.requests.items() if path != "info"}
    assert seen == dict.fromkeys(expected, 1)


def test_a_jpeg_volume_is_decoded(tmp_path, serve, jpeg_volume):
    server = serve(jpeg_volume)
    volume = download(server.address, tmp_path / "v", box=UNALIGNED, axes="xyz", **QUICK)
    reference = CloudVolume(f"file://{jpeg_volume}", progress=False)
    region = tuple(slice(a, b) for a, b in zip(UNALIGNED.start, UNALIGNED.stop, strict=True))
    np.testing.assert_array_equal(volume.array[...], np.asarray(reference[region])[..., 0])


@pytest.mark.parametrize("protocol", ["file", "http"])
def test_a_sharded_volume_is_read(tmp_path, serve, sharded_volume, image, protocol):
    address = f"file://{sharded_volume}" if protocol == "file" else serve(sharded_volume).address
    volume = download(address, tmp_path / "v", box=UNALIGNED, tile_bytes=ONE_CHUNK, **QUICK)
    np.testing.assert_array_equal(volume.array[...], cut(image, UNALIGNED, "yzx"))
    reference = CloudVolume(f"file://{sharded_volume}", progress=False)
    region = tuple(slice(a, b) for a, b in zip(UNALIGNED.start, UNALIGNED.stop, strict=True))
    assert (np.asarray(reference[region])[..., 0] == cut(image, UNALIGNED, "xyz")).all()


@pytest.mark.parametrize("axes", ["yzx", "xyz"])
def test_a_public_bucket_with_a_sharded_jpeg_volume_is_read_without_credentials(
    tmp_path, monkeypatch, serve, sharded_jpeg_volume, jpeg_volume, axes
):
    server = serve(sharded_jpeg_volume)
    public = storage.public_address
    monkeypatch.setattr(
        storage,
        "public_address",
        lambda address: public(address).replace(
            "https://storage.googleapis.com/bucket/em", server.address
        ),
    )
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setattr(storage, "secretpath", lambda name: str(tmp_path / "secrets" / name))
    volume = download(
        "precomputed://gs://bucket/em",
        tmp_path / "v",
        box=UNALIGNED,
        axes=axes,
        tile_bytes=5 * ONE_CHUNK,
        **QUICK,
    )
    # The same chunks, one a file, as cloud-volume reads them.
    reference = CloudVolume(f"file://{jpeg_volume}", progress=False)
    expected = np.asarray(reference[tuple(map(slice, UNALIGNED.start, UNALIGNED.stop))])[..., 0]
    np.testing.assert_array_equal(
        volume.array[...], expected.transpose(["xyz".index(axis) for axis in axes])
    )
    assert volume.array.attrs["source"] == "gs://bucket/em"
    assert all(path == "info" or path.endswith(".shard") for path in server.requests)


def test_a_shard_that_is_missing_or_served_without_ranges_fails(tmp_path, serve, sharded_volume):
    server = serve(sharded_volume)
    shard = sorted((sharded_volume / "8_8_8").iterdir())[0].name
    server.faults[f"8_8_8/{shard}"] = 404
    with pytest.raises(DdgmError, match=r"8_8_8/100-116_20-36_7-23 .* is missing .*fill_missing"):
        download(server.address, tmp_path / "v", box=WHOLE, **QUICK)
    volume = download(server.address, tmp_path / "v", box=WHOLE, fill_missing=True, **QUICK)
    assert 0 < (volume.array[...] == 0).mean() < 0.5
    server.faults[f"8_8_8/{shard}"] = "no ranges"
    with pytest.raises(DdgmError, match="HTTP 200 instead of 206"):
        download(server.address, tmp_path / "w", box=WHOLE, **QUICK)


# What is refused before anything is fetched


def test_a_box_that_reaches_out_names_the_box_and_the_bounds(tmp_path, server):
    box = Box((100, 20, 7), (171, 70, 52))
    with pytest.raises(DdgmError) as error:
        download(server.address, tmp_path / "v", box=box, **QUICK)
    assert "(100, 20, 7)–(171, 70, 52)" in str(error.value)
    assert "(100, 20, 7)–(170, 70, 52)" in str(error.value)
    assert "mip 0" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_info_file_that_cannot_be_had_is_refused(tmp_path, server):
    call = {"box": WHOLE, **QUICK, "retries": 1}
    with pytest.raises(DdgmError, match="has no info file"):
        download(f"{server.address}/elsewhere", tmp_path / "v", **call)
    server.faults["info"] = 403
    with pytest.raises(DdgmError, match=r"info may not be read .*HTTP 403"):
        download(server.address, tmp_path / "v", **call)
    server.faults["info"] = "corrupt"
    with pytest.raises(DdgmError, match="does not describe"):
        download(server.address, tmp_path / "v", **call)
    server.faults["info"] = [500, 500]
    with pytest.raises(DdgmError, match=r"could not be read in 2 attempts.*HTTPError: 500"):
        download(server.address, tmp_path / "v", **call)
    assert not list(tmp_path.iterdir())


def test_a_redirect_to_another_host_is_followed(tmp_path, server, image):
    root = tmp_path / "moved"
    root.mkdir()
    (root / "info").write_text(json.dumps({"redirect": f"precomputed://{server.address}"}))
    volume = download(f"file://{root}", tmp_path / "v", box=UNALIGNED, **QUICK)
    np.testing.assert_array_equal(volume.array[...], cut(image, UNALIGNED, "yzx"))
    assert volume.array.attrs["source"] == f"file://{root}"


# Faults of the source


@pytest.mark.parametrize(
    ("fault", "timeout"),
    [
        ([500, 503], 10.0),
        (["truncated"], 10.0),
        (["truncated without notice"], 10.0),
        (["corrupt"], 10.0),
        (["reset", "reset"], 10.0),
        (["stall"], 0.4),
        (["drip"], 0.4),
    ],
    ids=str,
)
def test_a_passing_fault_is_overcome(tmp_path, server, image, fault, timeout):
    requests = len(fault) + 1
    server.faults[VICTIM] = fault
    volume = download(server.address, tmp_path / "v", box=UNALIGNED, timeout=timeout, **QUICK)
    np.testing.assert_array_equal(volume.array[...], cut(image, UNALIGNED, "yzx"))
    assert server.requests[VICTIM] == requests


@pytest.mark.parametrize("fill_missing", [False, True])
@pytest.mark.parametrize(
    ("fault", "timeout", "cause"),
    [
        (500, 10.0, "HTTPError: 500"),
        ("truncated", 10.0, "bytes read"),
        ("truncated without notice", 10.0, "Decompression failed"),
        ("corrupt", 10.0, "Decompression failed"),
        ("reset", 10.0, "ConnectionError"),
        ("stall", 0.3, "within 0.3 s|timed out"),
        ("drip", 0.3, "within 0.3 s"),
        (302, 10.0, "HTTP 302"),
        (204, 10.0, "HTTP 204"),
        (403, 10.0, "HTTP 403"),
    ],
    ids=str,
)
def test_a_lasting_fault_names_the_chunk(tmp_path, server, fault, timeout, cause, fill_missing):
    server.faults[VICTIM] = fault
    with pytest.raises(DdgmError, match=cause) as error:
        download(
            server.address,
            tmp_path / "v",
            box=UNALIGNED,
            timeout=timeout,
            fill_missing=fill_missing,
            **(QUICK | {"retries": 1}),
        )
    assert VICTIM in str(error.value)
    assert server.address in str(error.value)
    assert "fill_missing" in str(error.value)
    assert "\n" not in str(error.value)
    assert server.requests[VICTIM] == (1 if fault == 403 else 2)
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("fault", [404, "empty"])
def test_a_missing_chunk_fails_unless_it_may_be_filled(tmp_path, server, image, fault, caplog):
    server.faults[VICTIM] = fault
    call = {"box": UNALIGNED, "tile_bytes": ONE_CHUNK, "axes": "xyz", **QUICK}
    with pytest.raises(DdgmError, match=r"is missing .* set fill_missing") as error:
        download(server.address, tmp_path / "v", **call)
    assert VICTIM in str(error.value)
    assert server.address in str(error.value)
    assert server.requests[VICTIM] == 1
    assert not (tmp_path / "v").exists()

    # What was fetched before the failure is kept.
    before = Counter(server.requests)
    recorded = (tmp_path / "v.partial" / "tiles.txt").read_text().splitlines()
    volume = download(server.address, tmp_path / "v", fill_missing=True, **call)
    refetched = sum((server.requests - before).values()) - 1
    assert refetched == len(chunks_of(source_info(), UNALIGNED)) - len(recorded)
    assert VICTIM in caplog.text

    expected = cut(image, UNALIGNED, "xyz").copy()
    expected[13:29, 14:30, 12:28] = 0
    np.testing.assert_array_equal(volume.array[...], expected)
    assert volume.array.attrs["fill_missing"] is True

    with pytest.raises(DdgmError, match="already holds"):
        download(server.address, tmp_path / "v", **call)


@pytest.mark.parametrize("begun_without", [False, True])
def test_filled_tiles_are_not_taken_over_by_a_download_that_may_not_fill(
    tmp_path, server, image, begun_without
):
    call = {"box": UNALIGNED, "tile_bytes": ONE_CHUNK, **QUICK, "workers": 1}
    server.faults[VICTIM] = 404
    if begun_without:
        with pytest.raises(DdgmError, match="is missing"):
            download(server.address, tmp_path / "v", **call)
    server.faults["8_8_8/148-164_52-68_39-52"] = 500
    with pytest.raises(DdgmError, match="148-164_52-68_39-52"):
        download(server.address, tmp_path / "v", fill_missing=True, **call)
    assert "116 36 23" in recorded_tiles(tmp_path / "v.partial")
    server.faults.clear()
    volume = download(server.address, tmp_path / "v", **call)
    np.testing.assert_array_equal(volume.array[...], cut(image, UNALIGNED, "yzx"))
    assert volume.array.attrs["fill_missing"] is False


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "empty", "absent"])
def test_damage_in_local_jpeg_files_is_found(tmp_path, jpeg_volume, damage):
    root = tmp_path / "source"
    (root / "8_8_8").mkdir(parents=True)
    (root / "info").write_bytes((jpeg_volume / "info").read_bytes())
    for path in (jpeg_volume / "8_8_8").iterdir():
        (root / "8_8_8" / path.name).write_bytes(path.read_bytes())
    victim = next(root.glob(f"{VICTIM}*"))
    content = victim.read_bytes()
    if victim.suffix == ".gz":
        content = gzip.decompress(content)
        victim.unlink()
        victim = victim.with_suffix("")
    if damage == "absent":
        victim.unlink(missing_ok=True)
    else:
        victim.write_bytes(
            {"truncated": content[:-50], "corrupt": b"no JPEG", "empty": b""}[damage]
        )
    with pytest.raises(DdgmError, match=VICTIM):
        download(f"file://{root}", tmp_path / "v", box=UNALIGNED, **QUICK)


# Resuming


def recorded_tiles(staging):
    try:
        return (staging / "tiles.txt").read_text().splitlines()
    except FileNotFoundError:
        return []


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def start_download(address, destination, box, **settings):
    """Run a download in a process of its own."""
    program = f"""
        from ddgm.download import download
        from ddgm.volume import Box
        download({address!r}, {str(destination)!r}, box=Box({box.start}, {box.stop}), **{settings})
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ,
        # Tests may run in the background of a shell, which makes its jobs ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_killed_download_continues_with_the_missing_tiles(tmp_path, server, image):
    call = QUICK | {"tile_bytes": ONE_CHUNK}
    staging = tmp_path / "v.partial"
    server.latency = 0.05
    process = start_download(server.address, tmp_path / "v", WHOLE, **call)
    wait_for(lambda: len(recorded_tiles(staging)) >= 20)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "v").exists()

    # The journal may end in the middle of a line, and a Zarr chunk in a temporary file.
    with (staging / "tiles.txt").open("ab") as journal:
        journal.write(b"164 6")
    (staging / "volume" / "c").mkdir(exist_ok=True)
    (staging / "volume" / "c" / ".0.abc.tmp").write_bytes(b"half")
    recorded = len(recorded_tiles(staging)) - 1
    server.requests.clear()
    server.latency = 0.0
    volume = download(server.address, tmp_path / "v", box=WHOLE, **call)
    requests = server.requests.total() - server.requests["info"]
    assert 20 <= recorded < 60
    assert requests == 60 - recorded
    np.testing.assert_array_equal(volume.array[...], cut(image, WHOLE, "yzx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v"]
    assert not list((tmp_path / "v").rglob(".*"))

    # Once more: complete, so nothing is fetched, not even the info file.
    server.requests.clear()
    download(server.address, tmp_path / "v", box=WHOLE, **call)
    assert server.requests.total() == 0


def test_an_interrupt_ends_a_stalled_download_promptly(tmp_path, server):
    server.faults[VICTIM] = "stall"
    settings = {**QUICK, "workers": 1, "timeout": 60.0, "tile_bytes": ONE_CHUNK}
    process = start_download(server.address, tmp_path / "v", UNALIGNED, **settings)
    wait_for(lambda: server.requests[VICTIM] == 1)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert b"KeyboardInterrupt" in errors
    assert recorded_tiles(tmp_path / "v.partial")


@pytest.mark.parametrize(
    "change",
    [{"axes": "zyx"}, {"box": Box((104, 22, 11), (151, 61, 45))}, {"tile_bytes": 2**23}],
    ids=str,
)
def test_staging_of_other_settings_is_discarded(tmp_path, server, image, caplog, change):
    call = {"box": UNALIGNED, "axes": "yzx", "tile_bytes": ONE_CHUNK, **QUICK}
    server.faults[VICTIM] = 404
    with pytest.raises(DdgmError):
        download(server.address, tmp_path / "v", **call)
    assert recorded_tiles(tmp_path / "v.partial")
    server.faults.clear()
    server.requests.clear()
    call |= change
    with caplog.at_level(logging.INFO, logger="ddgm"):
        volume = download(server.address, tmp_path / "v", **call)
    assert "discarding" in caplog.text
    assert "other settings" in caplog.text
    np.testing.assert_array_equal(volume.array[...], cut(image, call["box"], call["axes"]))
    chunk_count = len(chunks_of(source_info(), call["box"]))
    assert server.requests.total() == chunk_count + 1


def test_staging_that_cannot_be_read_is_discarded(tmp_path, server, image):
    call = {"box": UNALIGNED, "tile_bytes": ONE_CHUNK, **QUICK}
    server.faults[VICTIM] = 404
    with pytest.raises(DdgmError):
        download(server.address, tmp_path / "v", **call)
    (tmp_path / "v.partial" / "volume" / "zarr.json").write_text("")
    server.faults.clear()
    volume = download(server.address, tmp_path / "v", **call)
    np.testing.assert_array_equal(volume.array[...], cut(image, UNALIGNED, "yzx"))


def test_two_downloads_to_one_destination_do_not_meet(tmp_path, server):
    server.faults[VICTIM] = "stall"
    call = {**QUICK, "timeout": 60.0}
    process = start_download(server.address, tmp_path / "v", UNALIGNED, **call)
    try:
        wait_for(lambda: server.requests[VICTIM] == 1)
        with pytest.raises(DdgmError, match="another process is downloading"):
            download(server.address, tmp_path / "v", box=UNALIGNED, **call)
    finally:
        process.kill()
        process.communicate()


def test_a_destination_of_other_settings_is_left_alone(tmp_path, server, image):
    download(server.address, tmp_path / "v", box=UNALIGNED, **QUICK)
    with pytest.raises(DdgmError, match="already holds a volume of other settings"):
        download(server.address, tmp_path / "v", box=WHOLE, **QUICK)
    with pytest.raises(DdgmError, match="already holds a volume of other settings"):
        download(server.address, tmp_path / "v", box=UNALIGNED, axes="zyx", **QUICK)
    kept = open_volume(tmp_path / "v").array[...]
    np.testing.assert_array_equal(kept, cut(image, UNALIGNED, "yzx"))


def test_progress_is_shown_on_stderr(tmp_path, server, capsys):
    download(server.address, tmp_path / "v", box=UNALIGNED, **(QUICK | {"progress": True}))
    captured = capsys.readouterr()
    assert "100%" in captured.err
    assert captured.out == ""
