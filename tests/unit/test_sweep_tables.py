"""Tables of sweeps: what is in which grid, and which points share a job."""

import shlex
from pathlib import Path

import pytest
from snakemake.target_jobs import parse_target_jobs_cli_args
from snakemake_interface_executor_plugins.utils import TargetSpec, encode_target_jobs_cli_args

from ddgm.errors import DdgmError
from ddgm.sweep_tables import GRIDS, JOBS, describe, group_points, read_table

TABLES = Path(__file__).parents[2] / "config" / "sweeps"


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "table.tsv"
        path.write_text(text)
        return path

    return write


def test_points_have_the_values_and_the_text_of_the_table(table):
    path = table("# A comment.\nK\teta\trescaled\n\n25\t0.50\ttrue\n 3\t1\tfalse \n")
    first, second = read_table(path)
    assert first.values == {"K": 25, "eta": 0.5, "rescaled": True}
    assert second.values == {"K": 3, "eta": 1, "rescaled": False}
    assert [type(value) for value in first.values.values()] == [int, float, bool]
    assert first.text == {"K": "25", "eta": "0.50", "rescaled": "true"}  # exact: a file's name
    assert (first.line, second.line) == (4, 5)


def test_a_finer_grid_has_the_points_of_the_coarser_ones(table):
    path = table("K\tgrid\n1\tfull\n2\tcoarse\n3\tmedium\n4\t\n5\n")
    found = {grid: [p.values["K"] for p in read_table(path, grid)] for grid in GRIDS}
    assert found == {"coarse": [2, 4, 5], "medium": [2, 3, 4, 5], "full": [1, 2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("# only this\n", "empty"),
        ("grid\ncoarse\n", "'grid'"),
        ("K\tK\n1\t2\n", "once"),
        ("K N\n1 2\n", "tabs"),
        ("K\tN\n1\n", "line 2: 1 values between tabs; the first line has 2"),
        ("K\tN\n1\t2\t3\n", "line 2: 3 values"),
        ("K\n1e3\n", "line 2: K = '1e3'"),
        ("K\n007\n", "line 2: K = '007'"),
        ("K\nyes\n", "line 2: K = 'yes'"),
        ("K\n../x\n", "line 2: K = '../x'"),
        ("K\n\t\n1\t\n", "line 3: 2 values"),
        ("K\n1\n2\n1\n", "line 4: K = 1 is on line 2 already"),
        ("eta\n1\n1.0\n", "line 3: eta = 1 is on line 2 already"),
        ("K\tgrid\n1\tfine\n", "line 2: grid = 'fine'; it takes coarse, medium, full"),
        ("K\tgrid\n1\tfull\n", "no point is in the coarse grid"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(table, text, named):
    path = table(text)
    with pytest.raises(DdgmError) as caught:
        read_table(path, "coarse")
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DdgmError, match=r"none\.tsv"):
        read_table(tmp_path / "none.tsv")


GRID = "K\tsigma_1\tN\n" + "".join(
    f"{K}\t{sigma}\t{N}\n" for N in (50, 100) for sigma in (1, 3) for K in (5, 10, 25)
)


@pytest.mark.parametrize(
    ("by", "jobs", "first"),
    [
        ("point", 12, "K=5_sigma_1=1_N=50"),
        ("line", 4, "sigma_1=1_N=50"),
        ("sweep", 1, "all"),
    ],
)
def test_each_point_is_in_one_job(table, by, jobs, first):
    points = read_table(table(GRID))
    groups = group_points(points, by)
    assert len(groups) == jobs
    assert next(iter(groups)) == first
    assert [point for group in groups.values() for point in group] == points


@pytest.mark.parametrize("by", JOBS)
def test_a_row_more_concerns_one_job_wherever_it_is_put(table, by):
    lines = GRID.splitlines(keepends=True)
    before = group_points(read_table(table(GRID)), by)
    before = {job: [point.text for point in group] for job, group in before.items()}
    for at in range(1, len(lines) + 1):
        longer = table("".join([*lines[:at], "7\t3\t50\n", *lines[at:]]))
        after = group_points(read_table(longer), by)
        after = {job: [point.text for point in group] for job, group in after.items()}
        assert len([job for job, texts in after.items() if before.get(job) != texts]) == 1


def test_a_sweep_over_one_parameter_is_one_line(table):
    assert list(group_points(read_table(table("K\n1\n2\n")), "line")) == ["all"]


@pytest.mark.parametrize("by", JOBS)
@pytest.mark.parametrize("path", sorted(TABLES.glob("*.tsv")), ids=lambda path: path.stem)
def test_the_name_of_a_job_reaches_a_cluster_unchanged(path, by):
    for job in group_points(read_table(path), by):
        target = TargetSpec("sweep_x_point", {"points": job})
        argument = encode_target_jobs_cli_args([target])
        assert parse_target_jobs_cli_args(shlex.split(" ".join(argument))) == [target]


def test_settings_in_words():
    assert describe({"K": 25, "sigma_1": 3.0, "zeta": 0.05, "rescaled": True}) == (
        "K = 25, sigma_1 = 3, zeta = 0.05, rescaled = true"
    )


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.tsv")), ids=lambda path: path.stem)
def test_the_tables_of_the_repository_have_three_grids_each_within_the_next(path):
    coarse, medium, full = (read_table(path, grid) for grid in GRIDS)
    assert len(coarse) < len(medium) < len(full)
    names = [{tuple(point.text.items()) for point in each} for each in (coarse, medium, full)]
    assert names[0] < names[1] < names[2]
