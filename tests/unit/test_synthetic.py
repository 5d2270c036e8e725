import json
from pathlib import Path

import numpy as np
import pytest
from cloudvolume import CloudVolume
from scipy.ndimage import grey_closing

from ddgm.errors import DdgmError
from ddgm.synthetic import (
    _cells,
    _grow_neurites,
    _warped_positions,
    make_volume,
    write_precomputed,
)

SHAPE = (128, 128, 128)


@pytest.fixture(scope="module")
def volume():
    return make_volume(SHAPE, seed=7)


def neighbour_difference(volume, axis):
    return np.abs(np.diff(volume.astype(np.float32), axis=axis)).mean()


def section_correlation(volume, axis, distance):
    sections = np.moveaxis(volume, axis, 0)
    return np.corrcoef(sections[:-distance].ravel(), sections[distance:].ravel())[0, 1]


def test_same_seed_same_volume_and_another_seed_another():
    first, again, other = (make_volume((40, 32, 24), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2


def test_does_not_touch_the_global_random_state():
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    make_volume((8, 8, 8), seed=0)
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 2), (33, 18, 7)])
def test_shapes_that_are_no_multiple_of_anything(shape):
    volume = make_volume(shape, seed=4)
    assert volume.shape == shape
    assert volume.dtype == np.uint8


def test_histogram_is_that_of_fibsem(volume):
    # The FIB-25 sample at 16 nm has mean 130, standard deviation 32 to 33, skew 0.1 to 0.2,
    # percentiles 5 and 95 of 82 and 185.
    assert volume.dtype == np.uint8
    grey = volume.astype(np.float64)
    assert 118 < grey.mean() < 142
    assert 27 < grey.std() < 39
    skew = ((grey - grey.mean()) ** 3).mean() / grey.std() ** 3
    assert -0.5 < skew < 0.6
    low, high = np.percentile(grey, [5, 95])
    assert 72 < low < 92
    assert 170 < high < 200
    assert np.mean((grey == 0) | (grey == 255)) < 1e-3


def test_membranes_are_thin_dark_and_separate_light_cells(volume):
    # A thin dark line, and no dark bulk, is what a closing by 5 voxels removes.
    closed = grey_closing(volume, size=(5, 5, 5)).astype(np.int32)
    thin_and_dark = closed - volume > 30
    assert 0.08 < thin_and_dark.mean() < 0.40
    assert volume[thin_and_dark].mean() < 115


def test_no_axis_is_special(volume):
    differences = [neighbour_difference(volume, axis) for axis in range(3)]
    assert max(differences) < 1.12 * min(differences)
    assert 5.5 < np.mean(differences) < 9.5  # FIB-25: 6.6 to 7.8


@pytest.mark.parametrize("axis", range(3))
def test_sections_resemble_their_neighbours_only(volume, axis):
    assert 0.93 < section_correlation(volume, axis, 1) < 0.975  # FIB-25: 0.947 to 0.962
    assert 0.40 < section_correlation(volume, axis, 5) < 0.68  # FIB-25: 0.51 to 0.59
    assert abs(section_correlation(volume, axis, 64)) < 0.15


@pytest.mark.parametrize("axis", range(3))
def test_every_section_has_structure(volume, axis):
    others = tuple(a for a in range(3) if a != axis)
    spread = volume.std(axis=others)
    mean = volume.mean(axis=others)
    assert spread.min() > 20
    assert np.ptp(mean) < 45  # no section stands out, the faces included


def test_blocks_of_the_computation_leave_no_seams(volume):
    for axis in range(3):
        step = np.abs(np.diff(volume.astype(np.float32), axis=axis))
        by_plane = step.mean(axis=tuple(a for a in range(3) if a != axis))
        seam = np.arange(len(by_plane)) % 4 == 3  # from the last voxel of a block to the next
        assert by_plane[seam].mean() == pytest.approx(by_plane[~seam].mean(), rel=0.03)


def test_tissue_has_its_size_in_nanometres():
    # One seed gives one tissue, sampled finely or coarsely.
    shares = []
    for voxel_size, n in ((8.0, 120), (16.0, 60)):
        rng = np.random.default_rng(0), np.random.default_rng(1)
        neurites = _grow_neurites(rng[0], (n, n, n), voxel_size)
        position = _warped_positions(rng[1], (n, n, n), voxel_size)
        _, depth = _cells(neurites, position, voxel_size)
        shares.append(np.mean(depth * voxel_size < 40.0))
    assert 0.2 < shares[0] < 0.8
    assert shares[1] == pytest.approx(shares[0], rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8)}, "three integers"),
        ({"shape": (8, 8, 0)}, "at least 1"),
        ({"shape": (8, 8, 8.0)}, "three integers"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"voxel_size": 4.0}, "from 8 to 32 nm"),
        ({"voxel_size": float("nan")}, "from 8 to 32 nm"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(DdgmError, match=message) as refusal:
        make_volume(**{"shape": (8, 8, 8), "seed": 0} | arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("voxel_size", [16.0, 12.5])
def test_round_trip_through_cloud_volume(tmp_path, capfd, voxel_size):
    array = np.random.default_rng(0).integers(0, 256, (70, 45, 33), dtype=np.uint8)
    target = tmp_path / "new" / "layer"
    write_precomputed(array, target, voxel_size=voxel_size, chunk_size=(32, 16, 64))
    assert capfd.readouterr() == ("", "")

    layer = CloudVolume(f"precomputed://file://{target}", progress=False)
    np.testing.assert_array_equal(np.asarray(layer[:, :, :])[..., 0], array)
    assert list(layer.resolution) == [voxel_size] * 3
    assert list(layer.voxel_offset) == [0, 0, 0]

    info = json.loads((target / "info").read_text())
    (scale,) = info["scales"]
    assert info["type"] == "image"
    assert scale["encoding"] == "raw"
    assert scale["chunk_sizes"] == [[32, 16, 64]]
    # Nothing but the info and gzipped chunks, and nothing left over beside it.
    files = {p.relative_to(target) for p in target.rglob("*") if p.is_file()}
    chunks = files - {Path("info")}
    assert len(chunks) == 3 * 3 * 1
    assert {p.suffix for p in chunks} == {".gz"}
    assert list(target.parent.iterdir()) == [target]


def test_relative_paths_and_arrays_in_any_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(6, 5, 4).T
    write_precomputed(array, "layer")
    layer = CloudVolume(f"precomputed://file://{tmp_path / 'layer'}", progress=False)
    np.testing.assert_array_equal(np.asarray(layer[:, :, :])[..., 0], array)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(
        "cloudvolume.frontends.precomputed.CloudVolumePrecomputed.commit_info", fail
    )
    with pytest.raises(OSError, match="disk full"):
        write_precomputed(np.zeros((8, 8, 8), np.uint8), tmp_path / "layer")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (np.zeros((4, 4, 4), np.float32), {}, "must be uint8"),
        (np.zeros((4, 4), np.uint8), {}, "shape"),
        (np.zeros((4, 0, 4), np.uint8), {}, "at least one voxel"),
        (np.zeros((4, 4, 4), np.uint8), {"voxel_size": 0.0}, "above 0 nm"),
        (np.zeros((4, 4, 4), np.uint8), {"chunk_size": (64, 64)}, "chunk_size"),
    ],
)
def test_write_refuses_what_it_cannot_store(tmp_path, volume, options, message):
    with pytest.raises(DdgmError, match=message):
        write_precomputed(volume, tmp_path / "layer", **options)
    assert list(tmp_path.iterdir()) == []


def test_write_never_replaces(tmp_path):
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "precious").touch()
    with pytest.raises(DdgmError, match="already exists"):
        write_precomputed(np.zeros((4, 4, 4), np.uint8), tmp_path / "layer")
    assert [p.name for p in (tmp_path / "layer").iterdir()] == ["precious"]
