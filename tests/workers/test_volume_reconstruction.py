"""Volumes by real workers: equal to the undivided reconstruction, whatever happens to them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaozarrs
import zarr
from cases import GREY, make_case
from distributed import LocalCluster

from ddgm import volume_reconstruction
from ddgm.blending import BlendedDenoiser
from ddgm.cluster import ClusterSettings, connect
from ddgm.denoiser import load_denoiser
from ddgm.engine import make_operator
from ddgm.errors import DdgmError, SettingError
from ddgm.methods import DDGM, DDRM, Algebraic, Proximal
from ddgm.pretrained import network_path
from ddgm.reconstruction import reconstruct
from ddgm.sinograms import normalise_measurement
from ddgm.tilt_series import open_tilt_series
from ddgm.volume import open_volume
from ddgm.volume_reconstruction import Blending, reconstruct_sections

HERE = Path(__file__).parent


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def undivided(case, method):
    """Reconstruct all sections at once in this process; in grey values."""
    operator = make_operator(case.series.geometry, fused=False)
    data = torch.from_numpy(case.series.read(0, case.series.sections))
    result = reconstruct(
        method,
        operator,
        normalise_measurement(operator, data, GREY),
        BlendedDenoiser.of(load_denoiser("fib25-16nm"), patch=32, stride=24),
        noise_std=case.series.noise_std / GREY.std,
        seed=4,
        batch=100,
    )
    return result.images.numpy() * GREY.std + GREY.mean


@pytest.mark.parametrize(
    ("method", "limit"),
    [
        (DDGM(N=3, K=2, step_size=1e-4), 1e-4),
        (Algebraic(K=20, step_size=1e-4), 1e-4),
        # Rounding decides after which step conjugate gradients have come down to a hundredth.
        (Proximal(N=3), 5e-3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_volume_is_the_undivided_reconstruction(case, client, tmp_path, method, limit):
    volume = case.reconstruct(tmp_path / "volume.zarr", client, method)
    error = np.asarray(volume.array) - undivided(case, method)
    assert np.sqrt(np.square(error).mean()) < limit * GREY.std
    assert volume.shape == case.truth.shape
    assert (volume.axes, volume.voxel_size, volume.origin) == ("zyx", (16, 16, 16), (2, 0, 7))
    made = volume.array.attrs["reconstruction"]
    assert made["evaluations"]["network"] == len(method.schedule())
    assert len(made["data_error"]) == len(made["seconds"]) == case.series.sections
    assert list(tmp_path.iterdir()) == [tmp_path / "volume.zarr"]


def test_the_workers_and_their_number_change_no_bit(case, whole, tmp_path):
    with connect(ClusterSettings(workers=1), device="cpu", cores=1) as workers:
        alone = case.reconstruct(tmp_path / "alone.zarr", workers.client)
    np.testing.assert_array_equal(alone.array, whole.array)


def test_the_batch_changes_rounding_only(case, client, whole, tmp_path):
    other = case.reconstruct(
        tmp_path / "other.zarr", client, batch=3, blending=Blending(patch=32, stride=24, batch=5)
    )
    np.testing.assert_allclose(other.array, whole.array, atol=1e-3 * GREY.std)


def test_grey_values_are_rounded_and_clipped(case, client, whole, tmp_path):
    rounded = case.reconstruct(tmp_path / "rounded.zarr", client, dtype="uint8")
    assert rounded.dtype == np.uint8
    expected = np.clip(np.rint(np.asarray(whole.array)), 0, 255)
    np.testing.assert_array_equal(rounded.array, expected)


def test_a_worker_killed_in_the_middle_changes_no_bit(case, whole, tmp_path):
    path = tmp_path / "volume.zarr"
    killed = []

    def kill():
        wait_for(lambda: list((tmp_path / "volume.zarr.partial/finished").glob("*.json")))
        process = next(worker for worker, keys in workers.client.processing().items() if keys)
        pid = workers.client.run(os.getpid, workers=[process])[process]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    with connect(ClusterSettings(workers=2), device="cpu", cores=2) as workers:
        thread = threading.Thread(target=kill)
        thread.start()
        volume = case.reconstruct(path, workers.client)
        thread.join()
    assert killed
    np.testing.assert_array_equal(volume.array, whole.array)


SCRIPT = """
    import sys
    from pathlib import Path

    from ddgm.cluster import ClusterSettings, connect
    from ddgm.tilt_series import open_tilt_series
    from ddgm.volume import open_volume

    sys.path.insert(0, {here!r})
    from cases import Case

    if __name__ == "__main__":
        folder = Path({folder!r})
        case = Case(open_tilt_series(folder / "series.zarr"), open_volume(folder / "truth.zarr"))
        with connect(ClusterSettings(workers=1), device="cpu", cores=1) as workers:
            case.reconstruct(folder / "volume.zarr", workers.client, **{settings!r})
"""


def driver(folder, **settings):
    script = folder / "driver.py"
    script.write_text(
        textwrap.dedent(SCRIPT.format(here=str(HERE), folder=str(folder), settings=settings))
    )
    return subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_driver_killed_in_the_middle_leaves_what_is_finished(whole, client, tmp_path):
    case = make_case(tmp_path)
    partial = tmp_path / "volume.zarr.partial"
    process = driver(tmp_path)
    wait_for(lambda: len(list((partial / "finished").glob("*.json"))) >= 2)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=30)
    assert not any(each.is_running() for each in children), "workers outlive their driver"
    assert not (tmp_path / "volume.zarr").exists()
    finished = {path.name: path.stat().st_mtime_ns for path in (partial / "finished").iterdir()}
    chunks = {
        path: path.stat().st_mtime_ns
        for name in finished
        for path in (partial / "array" / "c" / str(int(name.split(".")[0]) // 2)).rglob("*")
        if path.is_file()
    }
    assert 2 <= len(finished) < 5
    assert chunks

    volume = case.reconstruct(tmp_path / "volume.zarr", client)
    np.testing.assert_array_equal(volume.array, whole.array)
    for path, written in chunks.items():
        kept = tmp_path / "volume.zarr" / path.relative_to(partial / "array")
        assert kept.stat().st_mtime_ns == written


def test_an_unfinished_volume_with_other_settings_is_left_alone(client, tmp_path):
    case = make_case(tmp_path)
    zarr.open_array(case.series.path, mode="r+")[8, 3] = np.nan
    with pytest.raises(DdgmError, match=r"view 3 .* of section 8 is missing"):
        case.reconstruct(tmp_path / "volume.zarr", client)
    assert not (tmp_path / "volume.zarr").exists()
    with pytest.raises(DdgmError, match="holds unfinished work with another method, seed"):
        case.reconstruct(tmp_path / "volume.zarr", client, DDGM(N=2, K=2, step_size=1e-4), seed=5)


def test_another_network_or_series_of_the_same_name_is_not_mixed_in(client, tmp_path):
    case = make_case(tmp_path)
    network = tmp_path / "network.safetensors"
    network.write_bytes(network_path("fib25-16nm").read_bytes())
    zarr.open_array(case.series.path, mode="r+")[8, 3] = np.nan
    with pytest.raises(DdgmError, match="section 8 is missing"):
        case.reconstruct(tmp_path / "volume.zarr", client, network=network)
    content = bytearray(network.read_bytes())
    content[-1] ^= 1
    network.write_bytes(content)
    with pytest.raises(DdgmError, match="unfinished work with another network"):
        case.reconstruct(tmp_path / "volume.zarr", client, network=network)
    # Another program's series has nothing in its description that would differ.
    description = case.series.path / "zarr.json"
    description.write_bytes(description.read_bytes())
    with pytest.raises(DdgmError, match="unfinished work with another network, series"):
        case.reconstruct(tmp_path / "volume.zarr", client, network=network)


def test_unfinished_work_of_other_code_is_not_gone_on_with(client, tmp_path):
    case = make_case(tmp_path)
    zarr.open_array(case.series.path, mode="r+")[8, 3] = np.nan
    with pytest.raises(DdgmError, match="section 8 is missing"):
        case.reconstruct(tmp_path / "volume.zarr", client, code="one")
    with pytest.raises(DdgmError, match="unfinished work with another code"):
        case.reconstruct(tmp_path / "volume.zarr", client, code="two")


def test_a_worker_that_comes_back_to_a_later_run_of_the_name_writes_nothing(
    case, client, whole, tmp_path, monkeypatch
):
    path, jobs = tmp_path / "volume.zarr", []
    ask = volume_reconstruction._reconstruct
    monkeypatch.setattr(
        volume_reconstruction, "_reconstruct", lambda job, *rest: jobs.append(job) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        case.reconstruct(path, client, seed=5)
    shutil.rmtree(tmp_path / "volume.zarr.partial")

    def late(job, *rest):
        reconstruct_sections(jobs[0], 0, 2)
        assert not job.workplace.is_finished(0)
        ask(job, *rest)

    monkeypatch.setattr(volume_reconstruction, "_reconstruct", late)
    np.testing.assert_array_equal(case.reconstruct(path, client).array, whole.array)


def test_workers_that_do_not_come_back_end_the_run(case, tmp_path, monkeypatch):
    monkeypatch.setattr(volume_reconstruction, "_PATIENCE", 1.0)
    with connect(ClusterSettings(workers=1), device="cpu", cores=1) as workers:
        workers.client.cluster.scale(0)
        wait_for(lambda: not workers.client.scheduler_info()["workers"])
        with pytest.raises(DdgmError, match=r"worker processes are gone .* run again"):
            case.reconstruct(tmp_path / "volume.zarr", workers.client)


def test_workers_of_elsewhere_are_waited_for(case, whole, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(volume_reconstruction, "_PATIENCE", 1.0)
    with LocalCluster(
        n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        settings = ClusterSettings(kind="address", address=cluster.scheduler_address, threads=1)

        def come():
            wait_for(lambda: "no worker has been at work for 1 s" in caplog.text)
            cluster.scale(1)

        thread = threading.Thread(target=come)
        thread.start()
        with connect(settings) as workers:
            volume = case.reconstruct(tmp_path / "volume.zarr", workers.client)
        thread.join()
    np.testing.assert_array_equal(volume.array, whole.array)


def test_a_volume_that_exists_is_not_written_over(case, client, whole):
    with pytest.raises(DdgmError, match=r"whole\.zarr exists already; remove it"):
        case.reconstruct(Path(str(whole.array.store_path.store.root)), client)


def test_a_write_that_fails_names_the_sections_and_the_rest_is_kept(case, tmp_path):
    def limit():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    with connect(ClusterSettings(workers=1), device="cpu", cores=1) as workers:
        workers.client.run(limit)
        with pytest.raises(DdgmError, match=r"sections \d to \d could not be written \(File too"):
            case.reconstruct(tmp_path / "volume.zarr", workers.client)
    assert not (tmp_path / "volume.zarr").exists()
    assert not list((tmp_path / "volume.zarr.partial" / "finished").iterdir())


def test_workers_that_do_not_see_the_folder_are_named(case, tmp_path):
    def go_blind():
        # Worker processes of another machine: nothing of this one's paths exists there.
        from ddgm.workplace import Workplace

        Workplace.array = property(lambda self: Path("/nowhere"))

    with connect(ClusterSettings(workers=1), device="cpu", cores=1) as workers:
        workers.client.run(go_blind)
        with pytest.raises(DdgmError, match="they need the same paths"):
            case.reconstruct(tmp_path / "volume.zarr", workers.client)


def test_workers_without_the_memory_end_the_run_with_advice(case, tmp_path):
    settings = ClusterSettings(workers=1, memory="250MiB")
    with (
        connect(settings, device="cpu", cores=1) as workers,
        pytest.raises(DdgmError, match=r"the workers that took on one batch died .* more memory"),
    ):
        case.reconstruct(tmp_path / "volume.zarr", workers.client)


@pytest.mark.parametrize(
    ("method", "settings", "complaint"),
    [
        (DDRM(), {}, "ddrm needs the eigenbasis of the projector, which a slab is too large"),
        (DDGM(step_size=0.1), {}, r"step_size = 0.1 is outside \(0, "),
        (DDGM(sigma_1=99.0), {}, "sigma_1 = 99.0 is outside the noise levels"),
        (None, {"network": None}, "needs a denoising network; none was given"),
        (None, {"network": "none.safetensors"}, "network .*none.safetensors: no such file"),
        (None, {"blending": Blending(patch=20)}, "patch = 20 must be a positive multiple"),
        (None, {"batch": 0}, "batch = 0 of sections must be at least 1"),
        (None, {"dtype": "int16"}, "dtype = 'int16' must be one of uint8, float32"),
    ],
)
def test_settings_that_will_not_do_are_refused_beforehand(
    case, client, tmp_path, method, settings, complaint
):
    with pytest.raises(DdgmError, match=complaint):
        case.reconstruct(tmp_path / "volume.zarr", client, method, **settings)
    assert not list(tmp_path.iterdir())


def test_the_noise_level_is_that_of_the_series_or_estimated_from_it(case, client, tmp_path):
    case = make_case(tmp_path)

    def noise_std(**settings):
        path = tmp_path / f"volume{len(list(tmp_path.iterdir()))}.zarr"
        volume = case.reconstruct(path, client, Proximal(N=2), **settings)
        return volume.array.attrs["reconstruction"]["noise_std"]

    assert noise_std() == pytest.approx(2.0)
    assert noise_std(noise_std=33.2) == pytest.approx(1.0)
    del zarr.open_array(case.series.path, mode="r+").attrs["noise_std"]
    case = type(case)(open_tilt_series(case.series.path), case.truth)
    assert noise_std() == pytest.approx(2.0, rel=0.3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@pytest.mark.parametrize("method", [DDGM(N=3, K=2, step_size=1e-4), Proximal(N=3)], ids=str)
def test_workers_with_gpus_give_what_the_cpu_gives(case, client, tmp_path, method):
    with connect(ClusterSettings(), device="cuda") as workers:
        assert len(workers.client.scheduler_info()["workers"]) == torch.cuda.device_count()
        volume = case.reconstruct(tmp_path / "gpu.zarr", workers.client, method, device="cuda")
    expected = np.asarray(case.reconstruct(tmp_path / "cpu.zarr", client, method).array)
    # ASTRA's matrix on the GPU is in single precision, and rounding decides when gradients stop.
    error = np.asarray(volume.array) - expected
    assert np.sqrt(np.square(error).mean()) < 0.02 * GREY.std


def test_the_guides_example_reconstructs_a_measured_series(tmp_path):
    make_case(tmp_path)
    guide = (HERE.parents[1] / "docs" / "volumes.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True)
    yaozarrs.validate_zarr_store(str(tmp_path / "volume.ome.zarr"))
    truth = np.asarray(open_volume(tmp_path / "truth.zarr").array, dtype=float)
    error = np.asarray(open_volume(tmp_path / "volume.zarr").array) - truth
    assert np.square(error).mean() < 0.5 * truth.var()


def test_a_setting_error_keeps_its_message_between_processes(client):
    def fail():
        raise SettingError("K", 0, "must be at least 1")

    with pytest.raises(SettingError, match=r"^K = 0 must be at least 1$"):
        client.submit(fail, pure=False).result()


def test_a_finished_volume_opens_as_any_other(whole):
    path = Path(str(whole.array.store_path.store.root))
    np.testing.assert_array_equal(open_volume(path).array, whole.array)
