import os
import subprocess
import sys
import textwrap

import filelock
import numpy as np
import platformdirs
import pytest
import safetensors.torch
import torch

from ddgm import eigenbasis, engine
from ddgm.eigenbasis import FORMAT, Eigenbasis
from ddgm.engine import (
    cached_eigenbasis,
    cached_path,
    default_cache,
    largest_block,
    make_operator,
)
from ddgm.fused import FusedOperator
from ddgm.geometry import TiltGeometry
from ddgm.projector import Projector, system_matrix
from ddgm.strip_projector import StripProjector

SYMMETRIC = TiltGeometry.limited_angle((9, 12), views=8, detector=14)
ASYMMETRIC = TiltGeometry(9, 7, (-71.0, -40.0, 0.0, 20.0, 33.0), 11)

SYMMETRIC_TILTS = {
    "limited_angle": SYMMETRIC,
    "unsorted": TiltGeometry(8, 8, (30.0, -10.0, 0.0, 10.0, -30.0), 8),
    "zero_tilt": TiltGeometry(8, 9, (0.0,), 9),
    "twice": TiltGeometry(8, 8, (-20.0, 20.0, -20.0, 20.0), 12),
    "all_around": TiltGeometry.limited_angle((10, 7), views=6, max_tilt=90),
}
ASYMMETRIC_TILTS = {
    "one_side": TiltGeometry(8, 8, (0.0, 10.0, 20.0), 8),
    "missing_view": TiltGeometry(8, 8, (-20.0, -10.0, 0.0, 20.0), 8),
    "shifted": TiltGeometry(8, 8, (-19.9, 0.0, 20.0), 8),
    "uneven_repeats": TiltGeometry(8, 8, (-20.0, -20.0, 20.0), 8),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def difference(one, other):
    return float((one - other).norm() / other.norm())


def same(one, other):
    """Tell whether two eigenbases are the same to the last bit."""
    return torch.equal(one.eigenvalues, other.eigenvalues) and all(
        torch.equal(v, w) for v, w in zip(one.vectors, other.vectors, strict=True)
    )


@pytest.fixture
def no_decomposition(monkeypatch):
    """Make whatever computes an eigenbasis fail."""

    def refuse(*args, **kwargs):
        raise AssertionError("the eigenbasis is computed")

    monkeypatch.setattr(eigenbasis, "decompose", refuse)


class TestSymmetry:
    @pytest.mark.parametrize("name", SYMMETRIC_TILTS)
    def test_with_symmetric_tilts_the_normal_matrix_commutes_with_flips(self, name):
        geometry = SYMMETRIC_TILTS[name]
        assert geometry.flip_symmetric
        assert max(self.broken_by_flips(geometry)) < 1e-4

    @pytest.mark.parametrize("name", ASYMMETRIC_TILTS)
    def test_with_asymmetric_tilts_it_does_not(self, name):
        geometry = ASYMMETRIC_TILTS[name]
        assert not geometry.flip_symmetric
        assert min(self.broken_by_flips(geometry)) > 1e-3

    @staticmethod
    def broken_by_flips(geometry):
        matrix = system_matrix(geometry).toarray().astype(np.float64)
        normal_matrix = matrix.T @ matrix
        pixels = np.arange(normal_matrix.shape[0]).reshape(geometry.image_shape)
        for axis in (0, 1):
            order = np.flip(pixels, axis).ravel()
            change = normal_matrix[np.ix_(order, order)] - normal_matrix
            yield np.abs(change).max() / np.abs(normal_matrix).max()

    def test_tilts_that_are_symmetric_but_for_rounding_are_symmetric(self):
        third = 100 / 3
        assert TiltGeometry(8, 8, (-third, third * (1 + 1e-15)), 8).flip_symmetric

    @pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
    def test_an_image_of_one_row_or_column_is_not_folded(self, shape, tmp_path):
        geometry = TiltGeometry.limited_angle(shape, views=5, detector=9)
        assert not geometry.flip_symmetric
        basis = make_operator(geometry, cache=tmp_path).eigenbasis
        assert len(basis.vectors) == 1

    def test_the_largest_block_is_a_quarter_of_the_image_or_all_of_it(self):
        assert largest_block(SYMMETRIC) == 5 * 6
        assert largest_block(ASYMMETRIC) == 9 * 7
        # It is what is decomposed.
        for geometry in (SYMMETRIC, ASYMMETRIC):
            basis = eigenbasis.decompose(
                system_matrix(geometry),
                geometry.image_shape,
                symmetric=geometry.flip_symmetric,
            )
            assert max(len(v) for v in basis.vectors) == largest_block(geometry)

    def test_the_papers_images_have_an_eigenbasis_and_larger_ones_have_none(self):
        assert largest_block(TiltGeometry.limited_angle((128, 128))) <= engine.LARGEST_BLOCK
        assert largest_block(TiltGeometry.limited_angle((256, 256))) > engine.LARGEST_BLOCK
        assert largest_block(TiltGeometry(64, 64, (0.0, 1.0), 64)) <= engine.LARGEST_BLOCK
        assert largest_block(TiltGeometry(128, 128, (0.0, 1.0), 64)) > engine.LARGEST_BLOCK


class TestMakeOperator:
    @pytest.mark.parametrize("geometry", [SYMMETRIC, ASYMMETRIC])
    def test_large_images_get_loops_with_the_same_results(self, geometry, tmp_path, monkeypatch):
        monkeypatch.setattr(engine, "LARGEST_BLOCK", largest_block(geometry))
        small = make_operator(geometry, cache=tmp_path)
        monkeypatch.setattr(engine, "LARGEST_BLOCK", largest_block(geometry) - 1)
        large = make_operator(geometry, cache=tmp_path)
        assert isinstance(small, FusedOperator)
        assert isinstance(large, StripProjector)
        assert small.eigenbasis is not None
        assert large.eigenbasis is None

        image, data = normal(3, *geometry.image_shape), normal(3, *geometry.sinogram_shape, seed=1)
        assert difference(small.forward(image), large.forward(image)) < 1e-3
        assert difference(small.adjoint(data), large.adjoint(data)) < 1e-3
        assert small.max_step_size == pytest.approx(large.max_step_size, rel=5e-3)
        step_size = 0.7 * small.max_step_size
        once = small.descend(image, small.right_side(data), step_size, 25)
        loop = large.descend(image, large.right_side(data), step_size, 25)
        assert difference(once, loop) < 1e-4
        weight = 0.05 * small.norm**2
        once, _ = small.proximal(image, small.right_side(data), weight)
        loop, _ = large.proximal(image, large.right_side(data), weight)
        # Conjugate gradients stop at a hundredth of their first residual.
        assert difference(once, loop) < 3e-2

    def test_large_images_leave_the_cache_alone(self, tmp_path, monkeypatch, no_decomposition):
        monkeypatch.setattr(engine, "LARGEST_BLOCK", 1)
        make_operator(SYMMETRIC, cache=tmp_path / "cache")
        assert not (tmp_path / "cache").exists()

    def test_the_second_operator_of_a_geometry_reads_the_eigenbasis(self, tmp_path, request):
        first = make_operator(SYMMETRIC, cache=tmp_path)
        request.getfixturevalue("no_decomposition")
        second = make_operator(SYMMETRIC, cache=str(tmp_path))
        assert same(first.eigenbasis, second.eigenbasis)


class TestCache:
    def test_a_basis_is_computed_once_and_then_read(self, tmp_path, request):
        path = cached_path(SYMMETRIC, tmp_path)
        assert not path.exists()
        computed = cached_eigenbasis(SYMMETRIC, tmp_path)
        assert same(Eigenbasis.load(path), computed)
        written = path.stat().st_mtime_ns
        request.getfixturevalue("no_decomposition")
        assert same(cached_eigenbasis(SYMMETRIC, tmp_path), computed)
        assert path.stat().st_mtime_ns == written
        with pytest.raises(AssertionError, match="computed"):
            cached_eigenbasis(ASYMMETRIC, tmp_path)

    def test_a_computed_basis_is_laid_out_like_one_that_was_read(self, tmp_path):
        computed = cached_eigenbasis(ASYMMETRIC, tmp_path)
        read = cached_eigenbasis(ASYMMETRIC, tmp_path)
        strides = [v.stride() for v in computed.vectors]
        assert strides == [v.stride() for v in read.vectors]

    def test_every_geometry_has_its_own_file(self, tmp_path):
        geometries = [
            TiltGeometry(8, 8, (-10.0, 10.0), 8),
            TiltGeometry(9, 8, (-10.0, 10.0), 8),
            TiltGeometry(8, 9, (-10.0, 10.0), 8),
            TiltGeometry(8, 8, (-10.0, 10.0), 9),
            TiltGeometry(8, 8, (-10.0, 10.00001), 8),
            TiltGeometry(8, 8, (10.0, -10.0), 8),
            TiltGeometry(8, 8, (-10.0, 0.0, 10.0), 8),
        ]
        paths = {cached_path(geometry, tmp_path) for geometry in geometries}
        assert len(paths) == len(geometries)
        assert {path.parent for path in paths} == {tmp_path}

    def test_equal_geometries_share_a_file_whatever_their_numbers_are_made_of(self, tmp_path):
        path = cached_path(TiltGeometry(8, 8, (-10.0, 0.0, 10.0), 8), tmp_path)
        for angles in (
            (-10, 0, 10),
            tuple(np.array([-10, 0, 10])),
            tuple(np.array([-10, 0, 10], np.float32)),
        ):
            assert cached_path(TiltGeometry(8, 8, angles, 8), tmp_path) == path
        assert cached_path(TiltGeometry(np.int64(8), 8, (-10.0, 0.0, 10.0), 8), tmp_path) == path

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no eigenbasis",
            {"format": "ddgm-eigenbasis/0", "image_shape": "[9, 12]"},
            {"format": FORMAT},
            "half",
        ],
    )
    def test_a_damaged_or_foreign_file_is_replaced(self, tmp_path, content):
        path = cached_path(SYMMETRIC, tmp_path)
        expected = cached_eigenbasis(SYMMETRIC, tmp_path)
        if isinstance(content, dict):
            safetensors.torch.save_file({"x": torch.zeros(2)}, path, metadata=content)
        else:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
        assert same(cached_eigenbasis(SYMMETRIC, tmp_path), expected)
        assert same(Eigenbasis.load(path), expected)

    def test_the_folder_comes_from_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DDGM_CACHE_DIR", str(tmp_path / "from" / "environment"))
        assert default_cache() == tmp_path / "from" / "environment"
        path = cached_path(SYMMETRIC)
        assert path.parent == default_cache()
        make_operator(SYMMETRIC)
        assert path.is_file()

    def test_a_given_folder_comes_before_that_of_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DDGM_CACHE_DIR", str(tmp_path / "environment"))
        cached_eigenbasis(SYMMETRIC, tmp_path / "given")
        assert cached_path(SYMMETRIC, tmp_path / "given").is_file()
        assert not (tmp_path / "environment").exists()

    @pytest.mark.parametrize("value", [None, ""])
    def test_without_one_it_is_in_the_users_cache(self, monkeypatch, value):
        if value is None:
            monkeypatch.delenv("DDGM_CACHE_DIR", raising=False)
        else:
            monkeypatch.setenv("DDGM_CACHE_DIR", value)
        assert default_cache() == platformdirs.user_cache_path("ddgm")


# What the scripts below begin with: real processes, forked because importing PyTorch takes seconds.
PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
import astra, filelock, torch
torch.set_num_threads(1)  # threads do not survive a fork
from ddgm import eigenbasis
from ddgm.engine import cached_eigenbasis, cached_path
from ddgm.geometry import TiltGeometry

folder = Path(sys.argv[1])
geometry = TiltGeometry.limited_angle((9, 12), views=8, detector=14)
decompose = eigenbasis.decompose

def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    os._exit(3)

def fork(work, *args):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # whatever happens, it does not stay
        try:
            work(*args)
            os._exit(0)
        finally:
            os._exit(1)
    return pid
"""

TOGETHER = """
def slow(*args, **kwargs):
    with open(folder / "computed", "a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(0.5)  # long enough for the others to come and wait
    return decompose(*args, **kwargs)

def work(number):
    eigenbasis.decompose = slow
    (folder / f"ready_{number}").touch()
    wait_for((folder / "go").exists)
    cached_eigenbasis(geometry, folder / "cache").save(folder / f"basis_{number}")

pids = [fork(work, number) for number in range(3)]
wait_for(lambda: len(list(folder.glob("ready_*"))) == 3)
(folder / "go").touch()
sys.exit(max(os.waitpid(pid, 0)[1] for pid in pids) != 0)
"""

KILLED = """
def stuck(*args, **kwargs):
    (folder / "computing" / "stuck").touch()
    time.sleep(60)

def stuck_halfway(path, target):
    os.truncate(path, os.path.getsize(path) // 2)
    (folder / "writing" / "stuck").touch()
    time.sleep(60)

def work(when):
    if when == "computing":
        eigenbasis.decompose = stuck
    else:
        os.replace = stuck_halfway
    cached_eigenbasis(geometry, folder / when)

for when in ("computing", "writing"):
    (folder / when).mkdir()
    pid = fork(work, when)
    wait_for((folder / when / "stuck").exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def run(script, folder):
    script = PREAMBLE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestProcesses:
    def test_processes_that_start_together_compute_a_basis_once(self, tmp_path):
        run(TOGETHER, tmp_path)
        computed = (tmp_path / "computed").read_text().splitlines()
        assert len(computed) == 1
        expected = cached_eigenbasis(SYMMETRIC, tmp_path / "cache")
        for number in range(3):
            assert same(Eigenbasis.load(tmp_path / f"basis_{number}"), expected)

    def test_a_process_killed_at_work_leaves_nothing_that_is_taken_for_a_result(self, tmp_path):
        run(KILLED, tmp_path)
        expected = cached_eigenbasis(SYMMETRIC, tmp_path / "elsewhere")
        assert list((tmp_path / "writing").glob("*.partial"))  # else it was not killed in time
        for when in ("computing", "writing"):
            path = cached_path(SYMMETRIC, tmp_path / when)
            assert not path.exists()
            # The lock of the dead process holds nobody up either.
            assert same(cached_eigenbasis(SYMMETRIC, tmp_path / when), expected)
            assert same(Eigenbasis.load(path), expected)
            assert not list(path.parent.glob("*.partial"))


def test_a_complete_file_is_read_while_another_process_holds_the_lock(tmp_path):
    expected = cached_eigenbasis(SYMMETRIC, tmp_path)
    with filelock.FileLock(cached_path(SYMMETRIC, tmp_path).with_suffix(".lock")):
        assert same(cached_eigenbasis(SYMMETRIC, tmp_path), expected)


def test_at_a_useful_size_fused_steps_are_a_hundred_looped_ones(tmp_path):
    geometry = TiltGeometry.limited_angle((64, 64))
    fused, looped = make_operator(geometry, cache=tmp_path), Projector(geometry)
    torch.manual_seed(0)
    start, data = torch.randn(2, 64, 64), 45 * torch.randn(2, *geometry.sinogram_shape)
    step_size = 0.7 * looped.max_step_size
    found = fused.descend(start, fused.right_side(data), step_size, 100)
    expected = looped.descend(start, looped.right_side(data), step_size, 100)
    assert (found - expected).norm() < 1e-4 * expected.norm()
