import json
import math

import numpy as np
import pytest

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry


def test_limited_angle_spaces_tilts_evenly_with_both_ends_included():
    geometry = TiltGeometry.limited_angle((64, 96), views=5, max_tilt=60)
    assert geometry.angles == (-60.0, -30.0, 0.0, 30.0, 60.0)


def test_the_default_is_the_geometry_of_the_paper():
    geometry = TiltGeometry.limited_angle((128, 1568))
    assert geometry.views == 128
    assert (geometry.angles[0], geometry.angles[-1]) == (-60.0, 60.0)
    np.testing.assert_allclose(np.diff(geometry.angles), 120 / 127, rtol=1e-12)
    assert geometry.image_shape == (128, 1568)
    assert geometry.sinogram_shape == (128, 1568)


def test_the_detector_is_as_wide_as_the_image_unless_given():
    assert TiltGeometry.limited_angle((10, 20), views=3).detector == 20
    assert TiltGeometry.limited_angle((10, 20), views=3, detector=31).sinogram_shape == (3, 31)


def test_tilts_need_not_be_evenly_spaced_or_sorted():
    geometry = TiltGeometry(4, 5, (90.0, -12.5, 0.0), 6)
    assert geometry.angles == (90.0, -12.5, 0.0)
    assert geometry.sinogram_shape == (3, 6)


@pytest.mark.parametrize(
    "geometry",
    [
        TiltGeometry.limited_angle((12, 34), views=7, max_tilt=51.3),
        TiltGeometry.limited_angle((12, 34), views=7, detector=50),
        TiltGeometry(1, 1, (0.1,), 1),
    ],
)
def test_a_geometry_survives_json(geometry):
    text = json.dumps(geometry.as_dict())
    again = TiltGeometry.from_dict(json.loads(text))
    assert again == geometry
    assert hash(again) == hash(geometry)


@pytest.mark.parametrize("key", ["height", "width", "angles", "detector"])
def test_a_missing_key_is_refused_by_name(key):
    values = TiltGeometry.limited_angle((12, 34), views=3).as_dict()
    del values[key]
    with pytest.raises(DdgmError, match=key):
        TiltGeometry.from_dict(values)


def test_an_unknown_key_is_refused_by_name():
    values = TiltGeometry.limited_angle((12, 34), views=3).as_dict() | {"pitch": 1.0}
    with pytest.raises(DdgmError, match="pitch"):
        TiltGeometry.from_dict(values)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        pytest.param(lambda: TiltGeometry(0, 5, (0.0,), 5), ("height", "0"), id="no_rows"),
        pytest.param(lambda: TiltGeometry(5, -3, (0.0,), 5), ("width", "-3"), id="negative_width"),
        pytest.param(lambda: TiltGeometry(5, 5, (0.0,), 0), ("detector", "0"), id="no_detector"),
        pytest.param(lambda: TiltGeometry(5, 5, (), 5), ("view",), id="no_tilts"),
        pytest.param(lambda: TiltGeometry(5, 5, (0.0, 90.5), 5), ("90.5",), id="tilt_above_90"),
        pytest.param(
            lambda: TiltGeometry(5, 5, (-120.0, 0.0), 5), ("-120",), id="tilt_below_minus_90"
        ),
        pytest.param(lambda: TiltGeometry(5, 5, (0.0, math.nan), 5), ("nan",), id="tilt_nan"),
        pytest.param(
            lambda: TiltGeometry.limited_angle((5, 5), views=3, max_tilt=95),
            ("95",),
            id="max_tilt_above_90",
        ),
        pytest.param(lambda: TiltGeometry.limited_angle((5, 5), views=0), ("view",), id="no_views"),
        pytest.param(
            lambda: TiltGeometry.limited_angle((5, 5), views=-2),
            ("view", "-2"),
            id="negative_views",
        ),
    ],
)
def test_an_impossible_geometry_is_refused_in_one_line_that_names_the_value(build, named):
    with pytest.raises(DdgmError) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message
    for word in named:
        assert word in message
