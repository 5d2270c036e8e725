import json
import resource
import shutil
import subprocess
import sys
import textwrap

import pytest
import zarr

from ddgm.errors import DdgmError
from ddgm.workplace import Workplace

SETTINGS = {"K": 3, "shape": (4, 8, 8)}


def begun(tmp_path):
    place = Workplace.open(tmp_path / "out.zarr", SETTINGS)
    if not place.array.exists():
        zarr.create_array(place.array, shape=(4, 8, 8), chunks=(2, 8, 8), dtype="f4")
    return place


def test_the_array_appears_when_all_of_it_is_there(tmp_path):
    place = begun(tmp_path)
    for first in (0, 2):
        assert not place.is_finished(first)
        with place.writing_sections(first, first + 2):
            zarr.open_array(place.array)[first : first + 2] = first + 1
        place.finish(first, {"seconds": 1})
        assert not place.target.exists()
    assert place.finished() == {0: {"seconds": 1}, 2: {"seconds": 1}}
    place.close()
    assert zarr.open_array(place.target)[3, 0, 0] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_unfinished_work_goes_on_with_the_same_settings(tmp_path):
    begun(tmp_path).finish(2, {})
    assert begun(tmp_path).is_finished(2)
    assert not begun(tmp_path).is_finished(0)


def test_unfinished_work_with_other_settings_is_left_alone(tmp_path):
    begun(tmp_path).finish(2, {})
    with pytest.raises(DdgmError, match=r"unfinished work with another K, batch; remove the fold"):
        Workplace.open(tmp_path / "out.zarr", {**SETTINGS, "K": 4, "batch": 1})
    assert begun(tmp_path).is_finished(2)


def test_a_batch_of_nothing_but_fill_values_is_written_too(tmp_path):
    place = begun(tmp_path)
    with place.writing_sections(0, 2):
        zarr.open_array(place.array)[0:2] = 0
    place.finish(0, {})
    assert place.is_finished(0)


def test_records_of_an_array_that_has_got_its_name_are_not_taken_for_another(tmp_path):
    # As if killed while the workplace is removed, and the array was removed afterwards.
    place = begun(tmp_path)
    place.finish(0, {})
    place.array.rename(place.target)
    with pytest.raises(DdgmError, match="exists already"):
        begun(tmp_path)
    shutil.rmtree(place.target)
    assert not begun(tmp_path).is_finished(0)


def test_another_of_the_same_name_is_told_apart(tmp_path):
    first = begun(tmp_path)
    assert begun(tmp_path).is_current()
    assert first.is_current()
    shutil.rmtree(first.folder)
    assert not first.is_current()
    assert begun(tmp_path).is_current()
    assert not first.is_current()


def test_a_full_disk_at_the_start_is_named(tmp_path):
    script = f"""
        import resource, signal
        from ddgm.workplace import Workplace
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        Workplace.open({str(tmp_path / "out.zarr")!r}, {SETTINGS!r})
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.PIPE, check=False
    )
    complaint = ended.stderr.decode().splitlines()[-1]
    assert "DdgmError" in complaint
    assert "its settings could not be written (File too large)" in complaint


def test_two_processes_do_not_make_the_same_array(tmp_path):
    place = begun(tmp_path)
    script = f"""
        from ddgm.workplace import Workplace
        with Workplace.open({str(place.target)!r}, {SETTINGS!r}).held():
            print("held", flush=True)
            input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DdgmError, match="another process is making it"), place.held():
            pass
        other.kill()
    with place.held():
        pass


def test_records_are_ordered_by_their_numbers(tmp_path):
    place = begun(tmp_path)
    for part in (10, 9, 100):
        place.finish(part, {"part": part})
    assert list(place.finished()) == [9, 10, 100]


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(DdgmError, match="exists already; remove it, or choose another name"):
        Workplace.open(tmp_path / "out.zarr", SETTINGS)


def test_more_than_the_disk_holds_is_refused_beforehand(tmp_path):
    place = begun(tmp_path)
    place.check_space(1000)
    with pytest.raises(DdgmError, match=r"1e\+09 GB are to be written, and .* GB are free there"):
        place.check_space(10**18)


def test_a_write_that_fails_is_one_line_and_leaves_no_record(tmp_path):
    # A limit on the size of files is the one way for a full disk that needs no privileges.
    place = begun(tmp_path)
    script = f"""
        import resource, signal, numpy, zarr
        from ddgm.errors import DdgmError
        from ddgm.workplace import Workplace
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        place = Workplace.open({str(place.target)!r}, {json.loads(json.dumps(SETTINGS))!r})
        array = zarr.open_array(place.array)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            with place.writing_sections(0, 2):
                array[0:2] = numpy.random.default_rng(0).random((2, 8, 8))
            place.finish(0, {{}})
        except DdgmError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert "sections 0 to 1 could not be written (File too large)" in result.stdout
    assert "run again: what is finished is kept" in result.stdout
    assert not place.is_finished(0)
