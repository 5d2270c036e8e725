"""Evaluation sets, the training stream and the statistics of a volume."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ddgm.denoiser import Normalisation
from ddgm.errors import DdgmError
from ddgm.patches import (
    PatchSet,
    StepSampler,
    TrainingPatches,
    draw_positions,
    extract_patches,
    section_ranges,
)
from ddgm.statistics import (
    check_normalised,
    load_statistics,
    save_statistics,
    volume_statistics,
)
from ddgm.volume import create_volume, open_volume

UNIT = Normalisation(mean=0.0, std=1.0)


def write_volume(path, values):
    volume = create_volume(
        path,
        values.shape,
        values.dtype,
        axes="yzx",
        voxel_size=(16, 16, 16),
        origin=(0, 0, 0),
        chunks=(8, 16, 16),
    )
    volume.array[:] = values
    return open_volume(path)


@pytest.fixture
def volume(tmp_path):
    """Voxels that tell where they are: 10000 · section + 100 · row + column."""
    section, row, column = np.meshgrid(*map(np.arange, (20, 40, 50)), indexing="ij")
    return write_volume(tmp_path / "v.zarr", (10000 * section + 100 * row + column).astype("u4"))


def test_statistics_agree_with_numpy_on_chunks_that_do_not_divide_the_volume(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (11, 37, 45)).astype(np.uint8)
    values[5:] //= 3
    found = volume_statistics(write_volume(tmp_path / "v.zarr", values))
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(), rel=1e-12)


def test_statistics_do_not_cancel_far_from_zero(tmp_path):
    values = 1e6 + np.random.default_rng(0).normal(size=(9, 20, 20))
    found = volume_statistics(write_volume(tmp_path / "v.zarr", values))
    assert found.std == pytest.approx(values.std(), rel=1e-9)


def test_statistics_of_a_constant_volume_are_refused(tmp_path):
    with pytest.raises(DdgmError, match="constant"):
        volume_statistics(write_volume(tmp_path / "v.zarr", np.full((4, 8, 8), 7, np.uint8)))


def test_statistics_name_the_place_of_a_value_that_is_not_finite(tmp_path):
    values = np.ones((9, 20, 20), np.float32)
    values[8, 17, 3] = np.nan
    with pytest.raises(DdgmError, match=r"not finite at \(8, 16, 0\)"):
        volume_statistics(write_volume(tmp_path / "v.zarr", values))


@pytest.mark.parametrize(
    ("low", "high", "fits"),
    [
        (60, 200, True),  # what the network was trained on, about
        (70, 215, True),
        (0.2, 0.8, False),  # another range
        (60, 75, False),  # no contrast
        (120, 255, False),
    ],
)
def test_images_of_other_grey_values_than_the_networks_are_refused(low, high, fits):
    grey = low + (high - low) * torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0))
    images = (grey - 130) / 40
    if fits:
        check_normalised(images)
    else:
        with pytest.raises(DdgmError, match=r"instead of about 0 and 1: their grey values"):
            check_normalised(images)


def test_statistics_survive_their_file(tmp_path):
    statistics = Normalisation(mean=129.62621080500898, std=33.23373717238242)
    save_statistics(statistics, tmp_path / "s.json")
    assert load_statistics(tmp_path / "s.json") == statistics


@pytest.mark.parametrize(("sections", "gap"), [(2, 0), (3, 1), (10, 3), (156, 8), (10000, 16)])
def test_validation_and_test_sections_are_apart_by_the_gap(sections, gap):
    ranges = section_ranges(sections, gap)
    assert len(ranges["validation"]) == len(ranges["test"]) >= 1
    assert ranges["validation"].start == 0
    assert ranges["test"].stop == sections
    assert ranges["test"].start - ranges["validation"].stop >= gap


def test_a_gap_that_leaves_no_sections_is_refused():
    with pytest.raises(DdgmError, match="at most 8"):
        section_ranges(10, 9)


def test_sections_are_not_drawn_twice_before_all_are_used():
    positions = draw_positions((30, 40, 40), 16, 25, range(10, 20), seed=1)
    for first, last in itertools.pairwise([0, 10, 20]):
        assert sorted(positions[first:last, 0]) == list(range(10, 20))
    assert set(positions[:, 0]) <= set(range(10, 20))


def test_positions_reach_every_place_that_a_patch_fits_in():
    positions = draw_positions((4, 18, 19), 16, 400, range(4), seed=0)
    assert set(positions[:, 1]) == {0, 1, 2}
    assert set(positions[:, 2]) == {0, 1, 2, 3}


def test_patches_are_what_lies_at_their_positions_and_sets_are_disjoint(volume):
    sets = {
        name: extract_patches(volume, name=name, size=16, count=12, gap=2, seed=3)
        for name in ("validation", "test")
    }
    for patches in sets.values():
        assert patches.images.shape == (12, 16, 16)
        for image, (section, row, column) in zip(patches.images, patches.positions, strict=True):
            assert image[0, 0] == 10000 * section + 100 * row + column
            assert image[-1, -1] == 10000 * section + 100 * (row + 15) + column + 15
    voxels = [set(patches.images.ravel().tolist()) for patches in sets.values()]
    assert not voxels[0] & voxels[1]


def test_the_same_seed_gives_the_same_set_and_another_seed_another(volume):
    def draw(seed):
        return extract_patches(volume, name="test", size=16, count=6, gap=2, seed=seed).positions

    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_a_patch_larger_than_the_sections_is_refused(volume):
    with pytest.raises(DdgmError, match=r"41 does not fit in sections of 40 × 50"):
        extract_patches(volume, name="test", size=41, count=1, gap=0, seed=0)
    with pytest.raises(DdgmError, match=r"41 does not fit in sections of 40 × 50"):
        TrainingPatches(volume.array.store.root, 41, UNIT, 0)


def test_a_set_survives_its_file(tmp_path, volume):
    patches = extract_patches(volume, name="test", size=16, count=3, gap=0, seed=0)
    patches.save(tmp_path / "p.npz")
    loaded = PatchSet.load(tmp_path / "p.npz")
    assert np.array_equal(loaded.images, patches.images)
    assert np.array_equal(loaded.positions, patches.positions)
    assert loaded.voxel_size == 16.0


def test_normalised_images_have_the_units_of_the_network():
    patches = PatchSet(np.array([[[10, 20], [30, 40]]], np.uint8), np.zeros((1, 3), np.int64), 16.0)
    expected = torch.tensor([[[-1.0, 0.0], [1.0, 2.0]]])
    torch.testing.assert_close(patches.normalised(Normalisation(20.0, 10.0)), expected)


@pytest.fixture
def stream(volume):
    return TrainingPatches(
        volume.array.store.root, 8, UNIT, 5, brick=(4, 16, 16), bricks=3, patches_per_brick=10
    )


def test_training_patches_come_in_all_eight_orientations_and_stay_in_one_section(stream):
    orientations = set()
    for index in range(200):
        patch = stream[index].numpy()
        assert len(set((patch // 10000).ravel())) == 1
        down, right = patch[1, 0] - patch[0, 0], patch[0, 1] - patch[0, 0]
        assert sorted(abs(np.array([down, right]))) == [1, 100]
        orientations.add((down, right))
    assert len(orientations) == 8


def test_every_place_in_the_volume_is_equally_likely(volume):
    stream = TrainingPatches(
        volume.array.store.root, 8, UNIT, 5, brick=(4, 16, 16), bricks=3, patches_per_brick=2
    )
    corners = np.array([stream[index].numpy().min() for index in range(6000)]).astype(int)
    for places, begin in ((20, corners // 10000), (33, corners // 100 % 100), (43, corners % 100)):
        expected = 6000 / places
        counts = np.bincount(begin, minlength=places)
        assert len(counts) == places
        # Two patches share a brick, which makes the spread wider than Poisson's.
        assert np.abs(counts - expected).max() < 6 * np.sqrt(2 * expected)


def test_a_training_patch_depends_on_its_index_alone(stream, volume):
    again = TrainingPatches(
        volume.array.store.root, 8, UNIT, 5, brick=(4, 16, 16), bricks=3, patches_per_brick=10
    )
    expected = [stream[index] for index in range(70)]
    for index in (69, 0, 35):
        assert torch.equal(again[index], expected[index])


def test_a_stream_can_be_sent_to_processes_that_are_not_forked(stream):
    copy = pickle.loads(pickle.dumps(stream))
    assert torch.equal(copy[17], stream[17])


def test_patches_of_pixels_that_are_not_square_are_refused(tmp_path):
    made = create_volume(
        tmp_path / "v.zarr", (4, 20, 20), "u1", axes="yzx", voxel_size=(8, 40, 8), origin=(0, 0, 0)
    )
    with pytest.raises(DdgmError, match="40 nm deep and 8 nm wide"):
        extract_patches(made, name="test", size=16, count=1, gap=0, seed=0)


def test_batches_are_the_same_with_and_without_worker_processes(stream):
    def first_batches(workers):
        loader = DataLoader(stream, batch_sampler=StepSampler(4), num_workers=workers)
        return torch.stack(list(itertools.islice(loader, 6)))

    assert torch.equal(first_batches(0), first_batches(2))


def test_processes_share_each_step_between_them():
    whole = StepSampler(6, step=3)
    parts = [iter(StepSampler(6, step=3, rank=rank, replicas=3)) for rank in range(3)]
    for batch in itertools.islice(whole, 4):
        assert [index for part in parts for index in next(part)] == batch


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(DdgmError, match="batch 7 cannot be divided among 2"):
        StepSampler(7, replicas=2)
