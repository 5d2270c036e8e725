import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import ome_zarr_models.v05
import pytest
import yaozarrs
import zarr
from cloudvolume import CloudVolume

from ddgm.errors import DdgmError
from ddgm.export import export_ome_zarr, export_precomputed
from ddgm.volume import create_volume, open_volume

ORDERS = ["".join(order) for order in itertools.permutations("xyz")]
BOTH = pytest.mark.parametrize("export", [export_ome_zarr, export_precomputed])


def random_image(shape, dtype="uint8", seed=0):
    """Noise (x, y, z)."""
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def make_volume(path, image, *, axes="yzx", size=(8, 8, 8), origin=(0, 0, 0), chunks=(8, 99, 99)):
    """A volume on disk; image, voxel size and origin in the order x, y, z."""
    order = ["xyz".index(axis) for axis in axes]
    volume = create_volume(
        path,
        [image.shape[axis] for axis in order],
        image.dtype,
        axes=axes,
        voxel_size=[size[axis] for axis in order],
        origin=[origin[axis] for axis in order],
        chunks=chunks,
    )
    volume.array[...] = image.transpose(order)
    return open_volume(path)


def block_means(image, edges=(2, 2, 2), start=(0, 0, 0)):
    """Means, in double precision, over blocks that begin at multiples of their edges."""
    sums, counts = image.astype(float), np.ones(image.shape)
    for axis, (edge, first) in enumerate(zip(edges, start, strict=True)):
        coordinates = np.arange(first, first + image.shape[axis])
        cuts = np.flatnonzero(np.diff(coordinates // edge, prepend=first // edge - 1))
        sums, counts = (np.add.reduceat(each, cuts, axis=axis) for each in (sums, counts))
    return sums / counts


def open_image(path):
    """Read an OME-Zarr image by readers that are not ours: levels, scales and translations."""
    yaozarrs.validate_zarr_store(str(path))
    group = zarr.open_group(str(path), mode="r")
    multiscale = ome_zarr_models.v05.Image.from_zarr(group).ome_attributes.multiscales[0]
    arrays, scales, translations = [], [], []
    for dataset in multiscale.datasets:
        scale, translation = dataset.coordinateTransformations
        arrays.append(group[dataset.path])
        scales.append(scale.scale)
        translations.append(translation.translation)
    return multiscale, arrays, np.array(scales), np.array(translations)


def open_layer(path, mip=0):
    return CloudVolume(f"file://{path}", mip=mip, progress=False, cache=False)


def read_layer(path, mip=0):
    return np.asarray(open_layer(path, mip)[:])[..., 0]


@pytest.mark.parametrize("axes", ORDERS)
def test_values_are_those_of_the_source_whatever_the_order_of_axes(tmp_path, axes):
    image = random_image((70, 20, 33))
    volume = make_volume(tmp_path / "v", image, axes=axes, size=(4, 5, 6), origin=(100, -20, 3))
    export_ome_zarr(volume, tmp_path / "v.ome.zarr", levels=1)
    multiscale, (array,), (scale,), (translation,) = open_image(tmp_path / "v.ome.zarr")
    np.testing.assert_array_equal(array[...], image.transpose(2, 1, 0))
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        (name, "space", "nanometer") for name in "zyx"
    ]
    assert scale.tolist() == [6, 5, 4]
    assert translation.tolist() == [3 * 6, -20 * 5, 100 * 4]
    export_precomputed(volume, tmp_path / "layer", levels=1)
    layer = open_layer(tmp_path / "layer")
    assert list(layer.resolution) == [4, 5, 6]
    assert list(layer.voxel_offset) == [100, -20, 3]
    np.testing.assert_array_equal(np.asarray(layer[100:170, -20:0, 3:36])[..., 0], image)


def test_the_metadata_of_an_ome_zarr_image_are_complete(tmp_path):
    volume = make_volume(tmp_path / "v", random_image((9, 8, 7)))
    export_ome_zarr(volume, tmp_path / "a.ome.zarr")
    export_ome_zarr(volume, tmp_path / "b", name="liver")
    first, (array,), _, _ = open_image(tmp_path / "a.ome.zarr")
    assert (first.name, first.type) == ("a", "mean")
    assert "2 × 2 × 2" in first.metadata["description"]
    assert array.metadata.zarr_format == 3
    assert open_image(tmp_path / "b")[0].name == "liver"
    attributes = zarr.open_group(str(tmp_path / "b"), mode="r").attrs.asdict()
    assert set(attributes) == {"ome"}
    assert set(attributes["ome"]) == {"version", "multiscales"}
    assert attributes["ome"]["version"] == "0.5"


@BOTH
@pytest.mark.parametrize(("dtype", "tolerance"), [("uint8", 0.5), ("float32", 1e-6)])
@pytest.mark.parametrize("shape", [(16, 8, 24), (17, 9, 23), (20, 1, 3)])
def test_a_level_holds_the_means_of_the_one_before(tmp_path, export, dtype, tolerance, shape):
    image = random_image(shape, dtype)
    export(make_volume(tmp_path / "v", image), tmp_path / "out", levels=4)
    if export is export_ome_zarr:
        levels = [array[...].transpose(2, 1, 0) for array in open_image(tmp_path / "out")[1]]
    else:
        levels = [read_layer(tmp_path / "out", mip) for mip in range(4)]
    assert len(levels) == 4
    for finer, coarser in itertools.pairwise(levels):
        assert coarser.dtype == dtype
        expected = block_means(finer)
        assert coarser.shape == expected.shape
        np.testing.assert_allclose(coarser, expected, rtol=0, atol=tolerance)


def test_means_of_float_levels_are_those_of_the_volume(tmp_path):
    image = random_image((32, 16, 24), "float32")
    export_ome_zarr(make_volume(tmp_path / "v", image), tmp_path / "out", levels=4)
    _, arrays, _, _ = open_image(tmp_path / "out")
    expected = block_means(image, (8, 8, 8)).transpose(2, 1, 0)
    np.testing.assert_allclose(arrays[3][...], expected, atol=1e-6)


@BOTH
def test_means_of_integers_are_rounded_without_bias(tmp_path, export):
    image = np.zeros((2, 2, 10), np.uint8)
    # Sums of eight voxels: 4 (a half), 5, 12 (one and a half), 255 · 8, 255 · 8 − 3.
    for block, values in enumerate([[1] * 4, [1] * 5, [3] * 4, [255] * 8, [255] * 7 + [252]]):
        cube = np.zeros(8, np.uint8)
        cube[: len(values)] = values
        image[:, :, 2 * block : 2 * block + 2] = cube.reshape(2, 2, 2)
    export(make_volume(tmp_path / "v", image), tmp_path / "out", levels=2)
    if export is export_ome_zarr:
        means = open_image(tmp_path / "out")[1][1][...]
    else:
        means = read_layer(tmp_path / "out", 1)
    assert means.ravel().tolist() == [0, 1, 2, 255, 255]


def test_a_place_is_the_same_in_all_levels(tmp_path):
    # Each voxel holds a linear function of its place, which the mean over a block keeps.
    size, origin, shape = (4.5, 8, 3), (7, -3, 100), (48, 4, 16)
    places = [
        (first + np.arange(n)) * edge for first, n, edge in zip(origin, shape, size, strict=True)
    ]
    x, y, z = np.meshgrid(*places, indexing="ij")
    image = (x + 3 * y - 2 * z).astype("float32")
    volume = make_volume(tmp_path / "v", image, size=size, origin=origin)
    export_ome_zarr(volume, tmp_path / "out", levels=5)
    _, arrays, scales, translations = open_image(tmp_path / "out")
    # 4 voxels along y are halved twice, 16 along z four times.
    assert (scales / scales[0])[:, 1].tolist() == [1, 2, 4, 4, 4]
    assert (scales / scales[0])[:, 0].tolist() == [1, 2, 4, 8, 16]
    for array, scale, translation in zip(arrays, scales, translations, strict=True):
        index = np.indices(array.shape).reshape(3, -1).T
        place = index * scale + translation
        expected = place @ np.array([-2, 3, 1])
        np.testing.assert_allclose(array[...].ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize("origin", [(0, 0, 0), (7, -3, 102), (-1, -6, 5)])
def test_coarse_voxels_of_a_layer_are_where_its_offset_says(tmp_path, origin):
    image = random_image((40, 21, 6), "float32")
    volume = make_volume(tmp_path / "v", image, size=(4.5, 8, 3), origin=origin)
    export_precomputed(volume, tmp_path / "out", levels=3)
    finer, start = image, origin
    for mip in range(1, 3):
        layer = open_layer(tmp_path / "out", mip)
        finer, start = block_means(finer, start=start), [at // 2 for at in start]
        assert list(layer.resolution) == [4.5 * 2**mip, 8 * 2**mip, 3 * 2**mip]
        assert list(layer.voxel_offset) == start
        np.testing.assert_allclose(read_layer(tmp_path / "out", mip), finer, atol=1e-6)


@BOTH
def test_a_volume_of_several_blocks(tmp_path, export):
    # More than two blocks of 128 voxels in the first coarse level, chunks that meet nothing.
    image = random_image((270, 40, 90), seed=3)
    volume = make_volume(tmp_path / "v", image, origin=(5, 0, 1), chunks=(8, 90, 100))
    export(volume, tmp_path / "out", workers=2)
    start = (0, 0, 0) if export is export_ome_zarr else (5, 0, 1)
    if export is export_ome_zarr:
        levels = [array[...].transpose(2, 1, 0) for array in open_image(tmp_path / "out")[1]]
    else:
        levels = [read_layer(tmp_path / "out", mip) for mip in range(4)]
    np.testing.assert_array_equal(levels[0], image)
    np.testing.assert_array_equal(levels[1], np.rint(block_means(image, start=start)))
    assert max(levels[-1].shape) <= 64 < max(levels[-2].shape)


def test_a_source_chunk_is_read_once_if_memory_allows(tmp_path):
    image = random_image((100, 40, 90))
    volume = make_volume(tmp_path / "v", image, chunks=(8, 90, 100))
    reads = []

    class Counting(zarr.storage.WrapperStore):
        async def get(self, key, *args, **kwargs):
            reads.append(key)
            return await super().get(key, *args, **kwargs)

    store = Counting(volume.array.store)
    counted = type(volume)(
        zarr.open_array(store, mode="r"), volume.axes, volume.voxel_size, volume.origin
    )
    export_ome_zarr(counted, tmp_path / "out")
    chunks = [key for key in reads if key.startswith("c/")]
    assert len(chunks) == len(set(chunks)) == 5


@BOTH
def test_what_exists_is_not_replaced(tmp_path, export):
    volume = make_volume(tmp_path / "v", random_image((4, 4, 4)))
    (tmp_path / "out").mkdir()
    with pytest.raises(DdgmError, match=r"out exists already; remove it"):
        export(volume, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@BOTH
def test_settings_that_make_no_sense_are_refused(tmp_path, export):
    volume = make_volume(tmp_path / "v", random_image((4, 4, 4)))
    with pytest.raises(DdgmError, match=r"levels = 0 of resolution must be at least 1"):
        export(volume, tmp_path / "out", levels=0)
    with pytest.raises(DdgmError, match=r"levels = 5 is too many: 3 already lead"):
        export(volume, tmp_path / "out", levels=5)
    with pytest.raises(DdgmError, match=r"workers = 0 must be"):
        export(volume, tmp_path / "out", workers=0)
    odd = make_volume(tmp_path / "odd", np.zeros((2, 2, 2), "float64"))
    with pytest.raises(DdgmError, match=r"odd has voxels of type float64: only uint8"):
        export(odd, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@BOTH
def test_a_damaged_volume_leaves_nothing_and_can_be_mended(tmp_path, export):
    image = random_image((20, 20, 20))
    volume = make_volume(tmp_path / "v", image)
    chunk = tmp_path / "v" / "c" / "1" / "0" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(b"nonsense" + content[8:])
    with pytest.raises(DdgmError, match=r"volume .*v: voxels \[.*\] could not be read") as caught:
        export(volume, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out*"))
    chunk.write_bytes(content)
    export(volume, tmp_path / "out")
    assert (tmp_path / "out").is_dir()


def in_subprocess(code, *arguments, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


LIMITED = """
import resource, sys
import ddgm.export
from ddgm.errors import DdgmError
from ddgm.volume import open_volume
volume = open_volume(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    getattr(ddgm.export, sys.argv[1])(volume, sys.argv[3])
except DdgmError as error:
    print(error)
"""


@BOTH
def test_a_failure_to_write_is_one_line_and_leaves_nothing(tmp_path, export):
    image = random_image((64, 64, 64))
    volume = make_volume(tmp_path / "v", image)
    process = in_subprocess(LIMITED, export.__name__, tmp_path / "v", tmp_path / "out")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert output == (
        f"{tmp_path / 'out'} could not be written (File too large); mend that and run again: it "
        "begins anew\n"
    )
    assert not list(tmp_path.glob("out*"))
    export(volume, tmp_path / "out", levels=1)
    assert (tmp_path / "out").is_dir()


KILLED = """
import os, sys
import ddgm.export
from ddgm.volume import open_volume
from tqdm import tqdm
export = getattr(ddgm.export, sys.argv[1])
class Dying(tqdm):
    def update(self, n=1):
        os.kill(os.getpid(), 9)
ddgm.export.tqdm = Dying
export(open_volume(sys.argv[2]), sys.argv[3], levels=2)
"""


@BOTH
def test_what_a_killed_run_left_is_removed(tmp_path, export):
    image = random_image((70, 20, 20))
    volume = make_volume(tmp_path / "v", image)
    process = in_subprocess(KILLED, export.__name__, tmp_path / "v", tmp_path / "out")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    left = tmp_path / "out.partial"
    assert left.is_dir()
    (left / "stray").write_text("from another time")
    export(volume, tmp_path / "out", levels=2)
    assert not left.exists()
    assert not (tmp_path / "out" / "stray").exists()
    if export is export_ome_zarr:
        open_image(tmp_path / "out")
    else:
        np.testing.assert_array_equal(read_layer(tmp_path / "out"), image)


@BOTH
def test_a_relative_path_is_made_with_its_parents(tmp_path, export, monkeypatch, capsys):
    volume = make_volume(tmp_path / "v", random_image((4, 4, 4)))
    monkeypatch.chdir(tmp_path)
    export(volume, Path("deep") / "a name" / "out", progress=True)
    assert (tmp_path / "deep" / "a name" / "out").is_dir()
    assert os.listdir(tmp_path / "deep" / "a name") == ["out"]
    assert "100%" in capsys.readouterr().err
