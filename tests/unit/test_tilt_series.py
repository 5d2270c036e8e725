import json

import numpy as np
import pytest
import zarr

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.tilt_series import create_tilt_series, open_tilt_series

GEOMETRY = TiltGeometry.limited_angle((8, 20), views=5)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "series.zarr"
    series = create_tilt_series(
        path, 6, GEOMETRY, voxel_size=(8, 16, 16), noise_std=130.5, axes="zyx", origin=(3, 2, 1)
    )
    series.array[:] = np.random.default_rng(0).normal(size=(6, 5, 20)).astype(np.float32)
    return path


def describe(path, **attributes):
    """Change attributes as an editor would."""
    file = path / "zarr.json"
    content = json.loads(file.read_text())
    for name, value in attributes.items():
        if value is None:
            del content["attributes"][name]
        else:
            content["attributes"][name] = value
    file.write_text(json.dumps(content))


def test_what_is_written_can_be_read(path):
    series = open_tilt_series(path)
    assert series.geometry == GEOMETRY
    assert series.volume_shape == (6, 8, 20)
    assert series.voxel_size == (8, 16, 16)
    assert series.noise_std == 130.5
    assert (series.axes, series.origin) == ("zyx", (3, 2, 1))
    np.testing.assert_array_equal(series.read(2, 4), zarr.open_array(path)[2:4])


def test_a_series_of_another_program_needs_few_attributes(tmp_path):
    path = tmp_path / "own.zarr"
    array = zarr.create_array(path, data=np.ones((2, 5, 20)), zarr_format=3)
    array.attrs.update(geometry=GEOMETRY.as_dict(), voxel_size_nm=[10, 16, 16])
    series = open_tilt_series(path)
    assert series.noise_std is None
    assert series.axes == "yzx"
    assert series.read(0, 1).dtype == np.float32


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"geometry": None}, "has no attribute geometry"),
        ({"voxel_size_nm": None}, "has no attribute voxel_size_nm"),
        (
            {"geometry": {**GEOMETRY.as_dict(), "angles": [0, 1, 2, 3]}},
            r"shape \(6, 5, 20\) does not fit its geometry, .* = \(4, 20\)",
        ),
        (
            {"geometry": {**GEOMETRY.as_dict(), "detector": 21}},
            r"shape \(6, 5, 20\) does not fit its geometry, .* = \(5, 21\)",
        ),
        ({"geometry": {"height": 8}}, "its attribute geometry is wrong: .* expected"),
        ({"geometry": {**GEOMETRY.as_dict(), "angles": [0, 1, 2, 3, 120]}}, "tilt 120 must lie"),
        ({"voxel_size_nm": [16, 16]}, r"voxel_size_nm is \[16, 16\]: three numbers are needed"),
        ({"voxel_size_nm": [16, 16, 8]}, "pixels are 16 nm deep and 8 nm wide"),
        ({"voxel_size_nm": [0, 16, 16]}, "every edge must be positive"),
        ({"noise_std": -1}, "noise_std is -1; a number that is not negative is needed"),
        ({"noise_std": "much"}, "noise_std is 'much'; a number"),
        ({"origin_voxels": [0, 0, 0.5]}, r"origin_voxels is \[0, 0, 0.5\]: three whole numbers"),
        ({"axes": "yyx"}, 'axes "yyx" is not an order'),
    ],
)
def test_a_description_that_does_not_fit_is_named(path, attributes, complaint):
    describe(path, **attributes)
    with pytest.raises(DdgmError, match=complaint) as caught:
        open_tilt_series(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_integers_are_no_line_integrals(tmp_path):
    path = tmp_path / "raw.zarr"
    array = zarr.create_array(path, data=np.ones((2, 5, 20), dtype=np.uint8), zarr_format=3)
    array.attrs.update(geometry=GEOMETRY.as_dict(), voxel_size_nm=[10, 16, 16])
    with pytest.raises(DdgmError, match="its values are uint8; line integrals are floats"):
        open_tilt_series(path)


def test_nothing_there_or_something_else_is_named(tmp_path):
    with pytest.raises(DdgmError, match=r"there is no tilt series at .*none\.zarr"):
        open_tilt_series(tmp_path / "none.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DdgmError, match="not a Zarr v3 array"):
        open_tilt_series(tmp_path / "empty.zarr")


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        ((3, 2, slice(None)), np.nan, r"view 2 \(0 degrees\) of section 3 is missing: nothing was"),
        ((3, 2, 7), np.nan, "view 2 .* of section 3 holds values that are not finite"),
        ((3, 4, 7), np.inf, r"view 4 \(60 degrees\) of section 3 holds values that are not"),
        ((3, 0, slice(None)), 0, r"view 0 \(-60 degrees\) of section 3 is missing: .* zeros"),
    ],
)
def test_a_damaged_view_is_named_where_it_is_read(path, place, value, complaint):
    zarr.open_array(path, mode="r+")[place] = value
    series = open_tilt_series(path)
    series.read(0, 3)
    with pytest.raises(DdgmError, match=complaint):
        series.read(2, 5)


def test_sections_that_were_never_written_are_missing(tmp_path):
    series = create_tilt_series(tmp_path / "new.zarr", 2, GEOMETRY, voxel_size=(16, 16, 16))
    with pytest.raises(DdgmError, match="section 0 is missing: nothing was written there"):
        series.read(0, 1)


def test_a_series_is_not_written_over(path):
    with pytest.raises(DdgmError, match="already holds a Zarr array: remove it first"):
        create_tilt_series(path, 1, GEOMETRY, voxel_size=(16, 16, 16))
