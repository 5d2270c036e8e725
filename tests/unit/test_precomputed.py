import json

import numpy as np
import pytest

from ddgm.errors import DdgmError
from ddgm.precomputed import (
    ChunkReader,
    check_box,
    chunk_name,
    chunks_of,
    clean_address,
    parse_info,
    read_info,
)
from ddgm.storage import Attempts, StoppedError
from ddgm.volume import Box

WHOLE = Box((100, 20, 7), (170, 70, 52))
QUICK = {"retries": 1, "delay": 0.01, "timeout": 2.0}


def make_info(encoding="raw", **changes):
    """The info file of a volume whose extents are no multiples of its chunks'."""
    fine = {
        "key": "8_8_8",
        "resolution": [8, 8, 8],
        "voxel_offset": [100, 20, 7],
        "size": [70, 50, 45],
        "chunk_sizes": [[16, 16, 16]],
        "encoding": encoding,
    }
    coarse = fine | {
        "key": "16_16_8",
        "resolution": [16, 16, 8],
        "voxel_offset": [50, 10, 7],
        "size": [35, 25, 45],
    }
    info = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": [fine, coarse]}
    return info | changes


def source_info():
    return parse_info(make_info(), "file:///nowhere", 0)


@pytest.fixture
def address(tmp_path):
    root = tmp_path / "source"
    root.mkdir()
    (root / "info").write_text(json.dumps(make_info()))
    return f"file://{root}"


def test_info_is_read(address):
    info = read_info(f"precomputed://{address}/", 1)
    assert info.address == address
    assert info.bounds == Box((50, 10, 7), (85, 35, 52))
    assert info.chunk_size == (16, 16, 16)
    assert info.voxel_size == (16.0, 16.0, 8.0)
    assert info.dtype == np.uint8
    assert info.encoding == "raw"


def test_addresses_are_cleaned():
    for address in ["gs://b/v", " precomputed://gs://b/v/", "gs://b/v/|neuroglancer-precomputed:"]:
        assert clean_address(address) == "gs://b/v"


@pytest.mark.parametrize("mip", [2, -1])
def test_a_mip_that_is_not_there_names_those_that_are(address, mip):
    there = r"choose one of 0 \(8 × 8 × 8 nm\), 1 \("
    with pytest.raises(DdgmError, match=rf"mip = {mip} does not exist at .*: {there}"):
        read_info(address, mip)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_channels": 3}, "3 channels"),
        ({"type": "segmentation"}, "of type segmentation"),
        ({"data_type": "int8"}, "voxels of type int8"),
        ({"data_type": "bytes of some sort"}, "does not describe"),
        ({"scales": 5}, "does not describe"),
    ],
)
def test_a_volume_of_another_kind_is_refused(changes, message):
    with pytest.raises(DdgmError, match=message):
        parse_info(make_info(**changes), "file:///v", 0)


def test_an_encoding_that_cannot_be_decoded_is_refused():
    with pytest.raises(DdgmError, match="encoded as avif"):
        parse_info(make_info("avif"), "file:///v", 0)


def test_an_address_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DdgmError, match="has no info file"):
        read_info(f"file://{tmp_path}/nowhere", 0, **QUICK)
    with pytest.raises(DdgmError, match="not an address"):
        read_info("ftp://host/volume", 0, **QUICK)
    with pytest.raises(DdgmError, match="in the format zarr"):
        read_info("zarr://http://127.0.0.1:9", 0, **QUICK)
    with pytest.raises(DdgmError, match=r"could not be read in 2 attempts.*Connection"):
        read_info("http://127.0.0.1:9", 0, **QUICK)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "7"])
def test_an_info_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "info").write_text(content)
    with pytest.raises(DdgmError, match="does not describe"):
        read_info(f"file://{tmp_path}", 0, **QUICK)


def test_a_redirect_in_the_info_file_is_followed(tmp_path, address):
    (tmp_path / "info").write_text(json.dumps({"redirect": f"precomputed://{address}"}))
    assert read_info(f"file://{tmp_path}", 0).address == address


def test_redirects_in_a_circle_are_refused(tmp_path, address):
    (tmp_path / "info").write_text(json.dumps({"redirect": address}))
    (tmp_path / "source" / "info").write_text(json.dumps({"redirect": f"file://{tmp_path}"}))
    with pytest.raises(DdgmError, match="redirects more than"):
        read_info(f"file://{tmp_path}", 0)


def test_a_box_must_lie_within_the_volume():
    check_box(source_info(), WHOLE)
    with pytest.raises(DdgmError, match="choose a box inside"):
        check_box(source_info(), Box((99, 20, 7), (170, 70, 52)))


def test_chunks_are_clipped_to_the_volume_and_named_as_the_format_says():
    info = source_info()
    assert len(chunks_of(info, WHOLE)) == 5 * 4 * 3
    assert chunk_name(info, chunks_of(info, WHOLE)[0]) == "8_8_8/100-116_20-36_7-23"
    assert chunk_name(info, chunks_of(info, WHOLE)[-1]) == "8_8_8/164-170_68-70_39-52"


def test_a_box_that_touches_one_voxel_of_a_chunk_needs_that_chunk():
    boxes = chunks_of(source_info(), Box((115, 20, 7), (117, 21, 8)))
    assert boxes == [Box((100, 20, 7), (116, 36, 23)), Box((116, 20, 7), (132, 36, 23))]
    assert chunks_of(source_info(), Box((115, 20, 7), (117, 21, 8)), (4, 1, 1)) == [
        Box((100, 20, 7), (164, 36, 23))
    ]


def test_the_chunk_reader_assembles_a_box_from_chunks(tmp_path, address):
    image = np.random.default_rng(1).integers(1, 256, (70, 50, 45), dtype=np.uint8)
    info = read_info(address, 0)
    folder = tmp_path / "source" / info.key
    folder.mkdir()
    for chunk in chunks_of(info, WHOLE):
        region = tuple(
            slice(a - o, b - o)
            for a, b, o in zip(chunk.start, chunk.stop, WHOLE.start, strict=True)
        )
        # The raw encoding is x fastest.
        (tmp_path / "source" / chunk_name(info, chunk)).write_bytes(image[region].tobytes("F"))
    attempts = Attempts(**QUICK)
    reader = ChunkReader(info, False, attempts, 1)
    np.testing.assert_array_equal(reader.read(WHOLE), image)
    box = Box((115, 21, 8), (169, 70, 30))
    np.testing.assert_array_equal(reader.read(box), image[15:69, 1:50, 1:23])
    attempts.stop.set()
    with pytest.raises(StoppedError):
        reader.read(box)
