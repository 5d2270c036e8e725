"""Tables of sweeps: what is in which grid, and which points share a job."""

from pathlib import Path

import pytest

from ddgm.errors import DdgmError
from ddgm.sweep_tables import GRIDS, describe, group_points, read_table

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
    assert first.name == "K=25,eta=0.50,rescaled=true"  # exact, as it becomes a file's name
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


def test_each_job_has_its_share_of_the_points_in_order(table):
    points = read_table(table("K\n" + "".join(f"{k}\n" for k in range(1, 8))))
    groups = group_points(points, 3)
    assert list(groups) == ["K=1..K=3", "K=4..K=6", "K=7..K=7"]
    assert [point for group in groups.values() for point in group] == points


def test_with_one_point_a_job_a_new_row_leaves_the_other_jobs_alone(table):
    before = group_points(read_table(table("K\n1\n2\n")), 1)
    after = group_points(read_table(table("K\n1\n5\n2\n")), 1)
    assert list(before) == ["K=1", "K=2"]
    assert set(after) - set(before) == {"K=5"}


def test_settings_in_words():
    assert describe({"K": 25, "sigma_1": 3.0, "zeta": 0.05, "rescaled": True}) == (
        "K = 25, sigma_1 = 3, zeta = 0.05, rescaled = true"
    )


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.tsv")), ids=lambda path: path.stem)
def test_the_tables_of_the_repository_have_three_grids_each_within_the_next(path):
    coarse, medium, full = (read_table(path, grid) for grid in GRIDS)
    assert len(coarse) < len(medium) < len(full)
    names = [{point.name for point in points} for points in (coarse, medium, full)]
    assert names[0] < names[1] < names[2]
