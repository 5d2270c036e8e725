import json

import numpy as np
import pytest
import zarr

from ddgm.errors import DdgmError
from ddgm.volume import Box, create_volume, open_volume


def test_box_knows_its_shape_and_what_it_contains():
    box = Box((10750, 6500, 9000), (11750, 16500, 10000))
    assert box.shape == (1000, 10000, 1000)
    assert str(box) == "(10750, 6500, 9000)–(11750, 16500, 10000)"
    assert box.contains(box)
    assert box.contains(Box((10750, 6500, 9000), (10751, 6501, 9001)))
    assert not box.contains(Box((10749, 6500, 9000), (10751, 6501, 9001)))
    assert not box.contains(Box((10750, 6500, 9000), (10751, 6501, 10001)))


def test_box_takes_what_json_and_yaml_give():
    assert Box([1, 2, 3], [np.int64(4), 5.0, 6]) == Box((1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize(
    ("start", "stop"),
    [((0, 0, 0), (1, 0, 1)), ((0, 0, 5), (1, 1, 4)), ((0, 0), (1, 1)), ((0, 0, 0.5), (1, 1, 1))],
)
def test_box_refuses_empty_and_malformed_corners(start, stop):
    with pytest.raises(DdgmError):
        Box(start, stop)


def test_a_volume_is_read_as_it_was_written(tmp_path):
    made = create_volume(
        tmp_path / "deep" / "v.zarr",
        (5, 70, 130),
        np.uint16,
        axes="zyx",
        voxel_size=(8, 8.5, 4),
        origin=(100, -20, 3),
        attributes={"source": "here"},
    )
    image = np.arange(5 * 70 * 130, dtype=np.uint16).reshape(5, 70, 130)
    made.array[...] = image
    volume = open_volume(tmp_path / "deep" / "v.zarr")
    assert volume.shape == (5, 70, 130)
    assert volume.dtype == np.uint16
    assert volume.axes == "zyx"
    assert volume.voxel_size == (8.0, 8.5, 4.0)
    assert volume.origin == (100, -20, 3)
    assert volume.array.chunks == (5, 64, 64)
    assert volume.array.attrs["source"] == "here"
    np.testing.assert_array_equal(volume.array[2], image[2])
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0] = 0
    metadata = json.loads((tmp_path / "deep" / "v.zarr" / "zarr.json").read_text())
    assert metadata["dimension_names"] == ["z", "y", "x"]
    assert metadata["attributes"]["voxel_size_nm"] == [8.0, 8.5, 4.0]
    assert metadata["attributes"]["origin_voxels"] == [100, -20, 3]


def make(path, **changes):
    settings = {
        "shape": (2, 2, 2),
        "dtype": "uint8",
        "axes": "yzx",
        "voxel_size": (8, 8, 8),
        "origin": (0, 0, 0),
    }
    return create_volume(path, **(settings | changes))


@pytest.mark.parametrize(
    "changes",
    [{"axes": "yyx"}, {"axes": "yz"}, {"shape": (0, 2, 2)}, {"voxel_size": (8, 8)}],
)
def test_create_volume_refuses_what_makes_no_volume(tmp_path, changes):
    with pytest.raises(DdgmError):
        make(tmp_path / "v", **changes)
    assert not (tmp_path / "v").exists()


def test_create_volume_does_not_overwrite(tmp_path):
    make(tmp_path / "v").array[...] = 7
    with pytest.raises(DdgmError, match="already holds"):
        make(tmp_path / "v")
    assert open_volume(tmp_path / "v").array[0, 0, 0] == 7


def test_open_volume_says_what_is_wrong(tmp_path):
    with pytest.raises(DdgmError, match=r"there is no volume at .*nowhere"):
        open_volume(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DdgmError, match=r"not a Zarr v3 array"):
        open_volume(tmp_path / "empty")
    (tmp_path / "file").write_text("no zarr")
    with pytest.raises(DdgmError, match=r"not a Zarr v3 array"):
        open_volume(tmp_path / "file")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "zarr.json").write_text('{"zarr_format": 3,')
    with pytest.raises(DdgmError, match=r"not a Zarr v3 array"):
        open_volume(tmp_path / "torn")
    zarr.create_group(tmp_path / "group")
    with pytest.raises(DdgmError, match=r"not a Zarr v3 array"):
        open_volume(tmp_path / "group")
    zarr.create_array(tmp_path / "v2", shape=(2, 2, 2), dtype="u1", zarr_format=2)
    with pytest.raises(DdgmError, match=r"not a Zarr v3 array"):
        open_volume(tmp_path / "v2")
    zarr.create_array(tmp_path / "flat", shape=(2, 2), dtype="u1")
    with pytest.raises(DdgmError, match="2 dimensions"):
        open_volume(tmp_path / "flat")
    zarr.create_array(tmp_path / "unnamed", shape=(2, 2, 2), dtype="u1")
    with pytest.raises(DdgmError, match="axes"):
        open_volume(tmp_path / "unnamed")
    zarr.create_array(tmp_path / "bare", shape=(2, 2, 2), dtype="u1", dimension_names=list("yzx"))
    with pytest.raises(DdgmError, match="voxel_size_nm"):
        open_volume(tmp_path / "bare")
