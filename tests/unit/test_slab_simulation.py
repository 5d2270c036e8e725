import numpy as np
import pytest
import torch
import zarr

from ddgm.denoiser import Normalisation
from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.projector import Projector
from ddgm.slab_simulation import simulate_series
from ddgm.tilt_series import create_tilt_series, open_tilt_series
from ddgm.volume import create_volume
from ddgm.workplace import Workplace

GREY = Normalisation(mean=130.0, std=30.0)


def slab(path, values, chunks=None):
    made = create_volume(
        path,
        values.shape,
        values.dtype,
        axes="zyx",
        voxel_size=(8, 16, 16),
        origin=(5, 4, 3),
        **({} if chunks is None else {"chunks": chunks}),
    )
    made.array[:] = values
    return made


@pytest.fixture
def volume(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (7, 12, 30), dtype=np.uint8)
    return slab(tmp_path / "slab.zarr", values)


def simulated(volume, path, **settings):
    return simulate_series(
        volume, path, GREY, **{"views": 9, "noise_std": 4.0, "seed": 1, "batch": 2, **settings}
    )


def test_a_series_holds_the_line_integrals_of_grey_values(volume, tmp_path):
    series = simulated(volume, tmp_path / "clean.zarr", noise_std=0.0)
    projector = Projector(TiltGeometry.limited_angle((12, 30), views=9))
    expected = projector.forward(torch.from_numpy(volume.array[:].astype(np.float32)))
    np.testing.assert_allclose(series.read(0, 7), expected, rtol=1e-3, atol=0.5)
    assert series.geometry == projector.geometry
    assert (series.axes, series.origin, series.voxel_size) == ("zyx", (5, 4, 3), (8, 16, 16))


def test_its_noise_has_the_standard_deviation_that_it_states(volume, tmp_path):
    series = simulated(volume, tmp_path / "noisy.zarr")
    assert series.noise_std == 120.0
    noise = series.read(0, 7) - simulated(volume, tmp_path / "clean.zarr", noise_std=0).read(0, 7)
    assert noise.std() == pytest.approx(120, rel=0.05)  # of 1890 values


def test_it_does_not_depend_on_the_batch(volume, tmp_path):
    one, all_ = (simulated(volume, tmp_path / f"{batch}.zarr", batch=batch) for batch in (1, 7))
    np.testing.assert_array_equal(one.read(0, 7), all_.read(0, 7))


def test_an_interrupted_simulation_goes_on(tmp_path):
    sections = np.random.default_rng(0).normal(size=(6, 12, 30)).astype(np.float32)
    volume = slab(tmp_path / "slab.zarr", sections, chunks=(1, 12, 30))
    whole = simulated(volume, tmp_path / "whole.zarr").read(0, 6)
    volume.array[5] = np.nan
    with pytest.raises(DdgmError, match="sections 4 to 5"):
        simulated(volume, tmp_path / "series.zarr")
    assert not (tmp_path / "series.zarr").exists()
    # What was finished is not computed again: sections that were read before may be anything now.
    volume.array[:4] = 0
    volume.array[5] = sections[5]
    np.testing.assert_array_equal(simulated(volume, tmp_path / "series.zarr").read(0, 6), whole)
    assert not list(tmp_path.glob("*.partial"))


def test_an_unfinished_one_with_another_seed_is_not_mixed_in(volume, tmp_path):
    simulated(volume, tmp_path / "done.zarr")
    with pytest.raises(DdgmError, match="exists already"):
        simulated(volume, tmp_path / "done.zarr")
    begun = Workplace(tmp_path / "series.zarr")
    create_tilt_series(
        begun.array, 7, TiltGeometry.limited_angle((12, 30), views=9), voxel_size=(8, 16, 16)
    )
    (begun.folder / "settings.json").write_text('{"seed": 2}')
    with pytest.raises(DdgmError, match=r"unfinished work with another .*seed"):
        simulated(volume, tmp_path / "series.zarr")


def test_a_slab_with_values_that_are_not_finite_is_refused(tmp_path):
    values = np.ones((3, 12, 30), np.float32)
    values[2, 3, 4] = np.nan
    volume = slab(tmp_path / "slab.zarr", values)
    with pytest.raises(DdgmError, match="slab: sections 2 to 2 hold values that are not finite"):
        simulated(volume, tmp_path / "series.zarr")


def test_a_finished_series_can_be_opened_by_its_name(volume, tmp_path):
    simulated(volume, tmp_path / "series.zarr")
    assert open_tilt_series(tmp_path / "series.zarr").sections == 7
    assert zarr.open_array(tmp_path / "series.zarr", mode="r").dtype == np.float32
