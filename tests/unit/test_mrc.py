"""MRC files: which axis is which, voxel sizes in Å, and what the values mean."""

import os

import mrcfile
import numpy as np
import pytest
import torch

from ddgm.contrast import check_contrast
from ddgm.denoiser import Normalisation
from ddgm.engine import make_operator
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.mrc import Import, export_stack, export_volume, import_stack, open_mrc, read_angles
from ddgm.sinograms import normalise_measurement
from ddgm.synthetic import make_volume
from ddgm.tilt_series import create_tilt_series, open_tilt_series
from ddgm.volume import create_volume

GREY = Normalisation(mean=130.0, std=30.0)
ANGLES = (-40.0, -10.0, 20.0)
SECTIONS, DETECTOR = 11, 17


def write_stack(path, data, pixel_size=160.0):
    """Write (view, row, column) with a pixel size in Å, by the library that others use."""
    with mrcfile.new(path) as file:
        file.set_data(data)
        file.set_image_stack()
        file.voxel_size = pixel_size
    return open_mrc(path)


@pytest.fixture
def views():
    """Noise: no two views, rows or columns are alike."""
    shape = (len(ANGLES), SECTIONS, DETECTOR)
    return np.random.default_rng(0).normal(3000, 100, shape).astype(np.float32)


def imported(stack, path, angles=ANGLES, **settings):
    settings = {"depth": 8, "values": "grey", **settings}
    return import_stack(stack, path, angles, Import(**settings), GREY)


def test_rows_of_the_views_are_sections_if_the_tilt_axis_is_y(tmp_path, views):
    series = imported(write_stack(tmp_path / "a.mrc", views), tmp_path / "a.zarr")
    np.testing.assert_array_equal(series.read(0, SECTIONS), views.transpose(1, 0, 2))
    assert series.geometry == TiltGeometry(8, DETECTOR, ANGLES, DETECTOR)
    assert series.voxel_size == (16, 16, 16)


def test_columns_of_the_views_are_sections_if_the_tilt_axis_is_x(tmp_path, views):
    stack = write_stack(tmp_path / "a.mrc", views.transpose(0, 2, 1).copy())
    series = imported(stack, tmp_path / "a.zarr", tilt_axis="x")
    np.testing.assert_array_equal(series.read(0, SECTIONS), views.transpose(1, 0, 2))


def test_a_bright_spot_is_where_the_files_axes_say(tmp_path):
    # Near the first section, at the beginning of the depth, near the end of the detector.
    shape, spot = (6, 12, 24), (1, 2, 19)
    image = np.zeros(shape, np.float32)
    image[spot] = 1000
    geometry = TiltGeometry.limited_angle(shape[1:], views=21)
    projected = make_operator(geometry, fused=False).forward(torch.from_numpy(image)).numpy()
    stack = write_stack(tmp_path / "a.mrc", projected.transpose(1, 0, 2).copy())
    series = imported(stack, tmp_path / "a.zarr", geometry.angles, depth=shape[1])
    # What the docstring says of the sign: it moves towards the end of the detector with the tilt.
    track = series.array[spot[0]].argmax(axis=1)
    flat = (spot[2] - 11.5) * np.cos(np.deg2rad(geometry.angles))
    assert np.polyfit(geometry.angles, track - flat, 1)[0] > 0
    operator = make_operator(series.geometry, fused=False)
    back = operator.adjoint(torch.from_numpy(series.array[:])).numpy()
    assert np.unravel_index(back.argmax(), shape) == spot

    volume = create_volume(
        tmp_path / "v.zarr", shape, "float32", axes="yzx", voxel_size=(10, 16, 16), origin=(0, 0, 0)
    )
    volume.array[:] = back
    export_volume(volume, tmp_path / "v.mrc")
    with mrcfile.open(tmp_path / "v.mrc") as file:
        assert file.is_volume()
        y, z, x = spot
        assert np.unravel_index(file.data.argmax(), file.data.shape) == (z, y, x)
        assert file.voxel_size.item() == pytest.approx((160, 100, 160))
        assert file.header.dmax == back.max()
        assert file.header.dmean == pytest.approx(back.mean(), rel=1e-5)
        assert file.header.rms == pytest.approx(back.std(), rel=1e-4)


def test_bytes_of_a_volume_stay_what_they_are(tmp_path):
    values = np.arange(4 * 8 * 8).reshape(4, 8, 8).astype(np.uint8)
    volume = create_volume(
        tmp_path / "v", values.shape, "uint8", axes="yzx", voxel_size=(8, 8, 8), origin=(0, 0, 0)
    )
    volume.array[:] = values
    export_volume(volume, tmp_path / "v.mrc")
    np.testing.assert_array_equal(open_mrc(tmp_path / "v.mrc").data, values.transpose(1, 0, 2))
    with pytest.raises(DdgmError, match="exists already"):
        export_volume(volume, tmp_path / "v.mrc")


def test_a_series_comes_back_from_a_stack_as_it_was(tmp_path):
    geometry = TiltGeometry(8, DETECTOR, ANGLES, DETECTOR)
    series = create_tilt_series(tmp_path / "a.zarr", 5, geometry, voxel_size=(16, 16, 16))
    values = np.random.default_rng(1).normal(size=(5, 3, DETECTOR)).astype(np.float32)
    series.array[:] = values
    export_stack(series, tmp_path / "a.st")
    back = imported(
        open_mrc(tmp_path / "a.st"), tmp_path / "b.zarr", read_angles(tmp_path / "a.tlt")
    )
    np.testing.assert_array_equal(back.read(0, 5), values)
    assert back.geometry == geometry
    assert back.voxel_size == series.voxel_size


def test_binning_takes_means_and_longer_steps(tmp_path, views):
    stack = write_stack(tmp_path / "a.mrc", views, pixel_size=80.0)
    series = imported(stack, tmp_path / "a.zarr", binning=2)
    means = views[:, :10, :16].reshape(3, 5, 2, 8, 2).mean(axis=(2, 4)).transpose(1, 0, 2)
    np.testing.assert_allclose(series.read(0, 5), means / 2, rtol=1e-6)
    assert series.pixel_size == 16


def test_some_sections_only(tmp_path, views):
    stack = write_stack(tmp_path / "a.mrc", views)
    series = imported(stack, tmp_path / "a.zarr", sections=(3, 7))
    np.testing.assert_array_equal(series.read(0, 4), views.transpose(1, 0, 2)[3:7])
    assert series.origin == (3, 0, 0)
    with pytest.raises(DdgmError, match="sections 9 to 12 \\(excluded\\) of 11"):
        imported(stack, tmp_path / "b.zarr", sections=(9, 12))


@pytest.fixture(scope="module")
def tissue():
    """Made-up tissue of another seed than the reference: 16 sections of 48 × 400, normalised."""
    image = make_volume((400, 48, 16), seed=5).transpose(2, 1, 0).astype(np.float32)
    return torch.from_numpy((image - image.mean()) / image.std())


@pytest.fixture(scope="module")
def clean(tissue):
    """What a microscope sees of it: views of tissue that goes on beyond the field of view."""
    angles = TiltGeometry.limited_angle((1, 1), views=31).angles
    operator = make_operator(TiltGeometry(48, 400, angles, 160), fused=False)
    return angles, operator.forward(tissue).numpy()


@pytest.mark.parametrize("values", ["relative", "intensity"])
@pytest.mark.parametrize("invert", [False, True])
def test_gain_and_offsets_are_found(tmp_path, clean, values, invert):
    angles, projected = clean
    rng = np.random.default_rng(3)
    noisy = projected + rng.normal(0, 4.1, projected.shape).astype(np.float32)
    measured = (-1 if invert else 1) * noisy.transpose(1, 0, 2) * 0.002
    measured += rng.uniform(0, 1, (len(angles), 1, 1)).astype(np.float32)
    if values == "intensity":
        measured = 5000 * np.exp(measured)
    stack = write_stack(tmp_path / "a.mrc", measured.astype(np.float32))
    series = imported(stack, tmp_path / "a.zarr", angles, depth=48, values=values, invert=invert)
    found = series.array.attrs["source"]["gain_found"]
    assert found == pytest.approx(GREY.std / 0.002, rel=0.1)
    check_contrast(series, GREY)
    assert series.geometry.width == 404  # (160 + 48 sin 60°) / cos 60°
    operator = make_operator(series.geometry, fused=False)
    data = normalise_measurement(operator, torch.from_numpy(series.read(0, 16)), GREY).numpy()
    expected = noisy - noisy.mean(axis=(0, 2), keepdims=True)
    assert np.corrcoef(data.ravel(), expected.ravel())[0, 1] > 0.999
    assert data.std() == pytest.approx(expected.std(), rel=0.1)


def test_a_given_gain_is_taken(tmp_path, clean):
    angles, projected = clean
    stack = write_stack(tmp_path / "a.mrc", projected.transpose(1, 0, 2).copy())
    options = {"depth": 48, "values": "relative", "gain": 30.0}
    series = imported(stack, tmp_path / "a.zarr", angles, **options)
    operator = make_operator(series.geometry, fused=False)
    data = normalise_measurement(operator, torch.from_numpy(series.read(0, 16)), GREY).numpy()
    expected = projected - projected.mean(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(data, expected, atol=2e-3)


def test_an_interrupted_import_goes_on(tmp_path, views, monkeypatch):
    monkeypatch.setattr("ddgm.mrc._BLOCK_BYTES", 1)  # blocks of one chunk
    stack = write_stack(tmp_path / "a.mrc", views)
    whole = imported(stack, tmp_path / "whole.zarr").read(0, SECTIONS)
    broken = views.copy()
    broken[1, 9, 4] = np.nan
    damaged = write_stack(tmp_path / "b.mrc", broken)
    with pytest.raises(DdgmError, match="view 1 holds values that are not finite"):
        imported(damaged, tmp_path / "b.zarr")
    assert len(list((tmp_path / "b.zarr.partial" / "finished").iterdir())) == 1
    # The rest comes from the file as it is now; of what is finished nothing is read again.
    mended = views.copy()
    mended[:, :8] = 0
    times = (tmp_path / "b.mrc").stat()
    with mrcfile.open(tmp_path / "b.mrc", mode="r+") as file:
        file.data[:] = mended
    os.utime(tmp_path / "b.mrc", ns=(times.st_atime_ns, times.st_mtime_ns))
    series = imported(open_mrc(tmp_path / "b.mrc"), tmp_path / "b.zarr")
    np.testing.assert_array_equal(series.read(0, SECTIONS), whole)
    assert not (tmp_path / "b.zarr.partial").exists()


def test_a_finished_import_is_taken_if_it_is_the_same(tmp_path, views):
    stack = write_stack(tmp_path / "a.mrc", views)
    first = imported(stack, tmp_path / "a.zarr").identity
    assert imported(stack, tmp_path / "a.zarr").identity == first
    with pytest.raises(DdgmError, match="of another stack, or was made with other settings"):
        imported(stack, tmp_path / "a.zarr", depth=9)


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_an_unknown_pixel_size_is_asked_for(tmp_path, views, size):
    stack = write_stack(tmp_path / "a.mrc", views, pixel_size=size)
    with pytest.raises(DdgmError, match=r"does not know the pixel size .* give --pixel-size"):
        imported(stack, tmp_path / "a.zarr")
    assert imported(stack, tmp_path / "a.zarr", pixel_size=16.0).pixel_size == 16


def test_what_is_wrong_with_a_stack_is_named(tmp_path, views):
    stack = write_stack(tmp_path / "a.mrc", views)
    with pytest.raises(DdgmError, match="has 3 views, and there are 2 angles"):
        imported(stack, tmp_path / "b.zarr", ANGLES[:2])
    negative = write_stack(tmp_path / "n.mrc", views - 3000)
    with pytest.raises(DdgmError, match="intensities that are not positive"):
        imported(negative, tmp_path / "b.zarr", values="intensity")
    with pytest.raises(DdgmError, match="too narrow to find the gain by"):
        imported(stack, tmp_path / "c.zarr", values="relative")
    with pytest.raises(DdgmError, match="no such file"):
        open_mrc(tmp_path / "none.mrc")
    (tmp_path / "text.mrc").write_text("Not a stack.\n" * 200)
    with pytest.raises(DdgmError, match=r"text\.mrc: not an MRC file"):
        open_mrc(tmp_path / "text.mrc")
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "a.mrc").read_bytes()[:-100])
    with pytest.raises(DdgmError, match=r"cut\.mrc: not an MRC file, or a damaged one"):
        open_mrc(tmp_path / "cut.mrc")
    (tmp_path / "a.tlt").write_text("-40\n\n-10 degrees\n")
    with pytest.raises(DdgmError, match="line 3 is '-10 degrees'; one angle in degrees a line"):
        read_angles(tmp_path / "a.tlt")


def test_values_of_another_unit_are_refused(tmp_path, views):
    series = imported(write_stack(tmp_path / "a.mrc", views), tmp_path / "a.zarr")
    with pytest.raises(
        DdgmError, match=r"mean grey value of .*, and the network's images have 130"
    ):
        check_contrast(open_tilt_series(series.path), GREY)
