"""Sweeps as their users run them: one alone, one row more, one point that fails."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ("--configfile", "config/tiny.yaml")


@pytest.fixture
def own(finished, tmp_path):
    """A copy of the finished checkout, to be changed; it has the library's source too."""
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    return type(finished)(tmp_path)


def planned(checkout, *arguments, **variables):
    """Return how many jobs of each rule a dry run plans."""
    status, output = checkout.snakemake("-n", *arguments, **variables)
    assert status == 0, output
    table = output.rpartition("Job stats:")[2]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def test_a_sweep_writes_tidy_rows_and_its_figure(finished):
    results = finished.root / "results" / "tiny"
    rows = pd.read_parquet(results / "sweeps" / "sigma1.parquet")
    assert list(zip(rows["K"], rows["sigma_1"], rows["image"], strict=True)) == [
        (1, 1, 0),
        (1, 1, 1),
        (3, 3, 0),
        (3, 3, 1),
    ]
    same = pd.read_csv(results / "sweeps" / "sigma1.csv", keep_default_na=False, na_values=[""])
    assert list(same["mse"]) == pytest.approx(list(rows["mse"]))
    assert {"ssim", "data_error", "network_evals", "held_out_error"} <= set(rows.columns)
    for name in ("sigma_1=1", "sigma_1=3"):
        for ending in ("parquet", "csv"):
            assert (results / "sweeps" / "sigma1" / "points" / f"{name}.{ending}").exists()
    for name in ("sweep_sigma1", "sweep_algebraic", "blind"):
        assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_table_1_has_the_winners_on_the_validation_images(finished):
    results = finished.root / "results" / "tiny"
    rows = pd.read_parquet(results / "sweeps" / "algebraic.parquet")
    mse = rows.groupby("K")["mse"].mean()
    choice = json.loads((results / "selected" / "algebraic.json").read_text())
    chosen = choice["settings"]
    assert choice["method"] == "algebraic"
    assert chosen["K"] == mse.idxmin()
    table = pd.read_csv(results / "tables" / "table_1.csv").set_index("method")
    assert table.loc["Algebraic", "gradient_evals"] == chosen["K"]
    listed = pd.read_csv(results / "tables" / "selected.csv").set_index("row")
    assert listed.loc["algebraic", "mse"] == pytest.approx(mse.min())
    assert listed.loc["algebraic", "images"] == 2
    assert "algebraic" in (results / "tables" / "selected.md").read_text()


def test_the_choice_without_the_truth_is_one_of_the_points(finished):
    table = pd.read_csv(finished.root / "results" / "tiny" / "tables" / "blind.csv")
    assert list(table["sweep"]) == ["algebraic"] * 3 + ["sigma1"] * 3
    assert set(table["rule"]) == {"held-out views", "discrepancy", "split noise"}
    assert (table["excess"] >= 0).all()
    assert (table["noise_std"] - 4.1).abs().max() < 0.6


def test_no_test_image_is_touched_before_the_settings_are_chosen(checkout):
    status, output = checkout.snakemake("-n", "sweeps", *TINY)
    assert status == 0, output
    assert "validation.npz" in output
    assert "test.npz" not in output
    status, output = checkout.snakemake("-n", "table_1", *TINY)
    assert status == 0, output
    inputs = {
        line.rpartition("/")[2]: before
        for before, line in re.findall(r"^    input: (.*)\n    output: (.*)$", output, re.MULTILINE)
    }
    for method in ("algebraic", "ddgm_50"):
        assert f"results/tiny/selected/{method}.json" in inputs[f"{method}.npz"]


def test_one_sweep_is_computed_anew_alone(finished):
    jobs = planned(finished, "sweep_algebraic", "-R", "sweep_algebraic_point", *TINY)
    assert jobs == {
        "sweep_algebraic_point": 1,
        "gather_rows": 1,
        "sweep_algebraic": 1,
        "total": 3,
    }


@pytest.mark.slow
def test_finished_points_are_not_found_again_when_they_are_to_be_computed_by_force(own):
    rows = own.root / "results" / "tiny" / "sweeps" / "algebraic.parquet"
    before = pd.read_parquet(rows)
    status, output = own.snakemake("sweep_algebraic", "-R", "sweep_algebraic_point", *TINY)
    assert status == 0, output
    assert "done before" not in output
    after = pd.read_parquet(rows)
    assert after["mse"].equals(before["mse"])
    assert not after["seconds"].equals(before["seconds"])


def test_a_row_more_is_one_job_more_wherever_it_is(own):
    table = own.root / "config" / "sweeps" / "tiny_sigma1.tsv"
    table.write_text(table.read_text().replace("1\t1\n", "1\t1\n2\t1\n"))
    jobs = planned(own, "sweeps", *TINY)
    assert {name for name in jobs if name.endswith("_point")} == {"sweep_sigma1_point"}
    assert jobs["sweep_sigma1_point"] == 1  # and of it, only the new point is computed (see below)
    assert "sweep_algebraic" not in jobs


def test_cosmetic_edits_rerun_no_reconstruction(own):
    shutil.copytree(REPOSITORY / "src", own.root / "src")
    source = {"PYTHONPATH": str(own.root / "src")}
    for path in [
        *(own.root / "config").rglob("*.yaml"),
        *(own.root / "config").rglob("*.tsv"),
        *(own.root / "workflow" / "rules").glob("*.smk"),
        *(own.root / "workflow" / "scripts").glob("*.py"),
        own.root / "src" / "ddgm" / "methods" / "ddgm.py",
        own.root / "src" / "ddgm" / "sweep_points.py",
    ]:
        path.write_text("# A comment.\n" + path.read_text())
    assert planned(own, "sweeps", "table_1", *TINY, **source) == {}

    figures = own.root / "src" / "ddgm" / "figures" / "style.py"
    figures.write_text(figures.read_text().replace('"font.size": 8', '"font.size": 9'))
    tables = own.root / "src" / "ddgm" / "tables.py"
    tables.write_text(tables.read_text().replace('"validation MSE"', '"MSE, validation"'))
    jobs = planned(own, "sweeps", "table_1", *TINY, **source)
    drawn = {"sweep_sigma1": 1, "sweep_algebraic": 1, "blind": 1, "select": 1, "table_1": 1}
    assert jobs == drawn | {"sweeps": 1, "total": 6}


def test_a_change_of_a_script_reruns_what_it_made(own):
    script = own.root / "workflow" / "scripts" / "sweep_point.py"
    script.write_text(script.read_text().replace("seed=params.seed", "seed=params.seed + 1"))
    jobs = planned(own, "sweep_algebraic", *TINY)
    assert jobs["sweep_algebraic_point"] == 1


def test_points_that_diverge_are_named_and_the_others_stay(own):
    table = own.root / "config" / "sweeps" / "wild.tsv"
    table.write_text("zeta\trescaled\n0.05\ttrue\n100000\tfalse\n")
    overlay = own.root / "config" / "dps.yaml"
    overlay.write_text("sweeps: {tables: {wild: {base: dps}}, job: sweep}\n")
    status, output = own.snakemake("sweep_wild", *TINY, "config/dps.yaml")
    assert status == 0, output
    missing = [line for line in output.splitlines() if "missing" in line]
    assert any("zeta = 100000, rescaled = false" in line and "diverges" in line for line in missing)
    assert "1 of 2 points diverged" in output
    rows = pd.read_parquet(own.root / "results/tiny/sweeps/wild.parquet")
    assert rows.groupby("zeta")["image"].count().to_dict() == {0.05: 2, 100000: 0}


@pytest.mark.slow
def test_a_point_that_fails_otherwise_stops_no_other_one_and_is_tried_again(own):
    shutil.copytree(REPOSITORY / "src", own.root / "src")
    source = {"PYTHONPATH": str(own.root / "src")}
    method = own.root / "src" / "ddgm" / "methods" / "algebraic.py"
    text = method.read_text()
    head = '        """Run the descent."""\n'
    assert head in text
    fault = '        if self.K == 5:\n            raise MemoryError("full")\n'
    method.write_text(text.replace(head, head + fault))
    overlay = own.root / "config" / "few.yaml"
    overlay.write_text("sweeps: {job: sweep}\ntable_1: [algebraic]\n")
    arguments = ("sweep_algebraic", "table_1", *TINY, "config/few.yaml")
    status, output = own.snakemake("--keep-going", *arguments, **source)
    assert status == 1
    assert re.search(r"missing: .*K = 5.*: MemoryError: full", output)
    assert "sweep_algebraic: 1 of 2 points are missing" in output
    results = own.root / "results" / "tiny"
    rows = pd.read_parquet(results / "sweeps" / "algebraic.parquet")
    assert rows.groupby("K")["image"].count().to_dict() == {5: 0, 20: 2}
    assert json.loads((results / "selected" / "algebraic.json").read_text())["points"] == 1
    table = pd.read_csv(results / "tables" / "table_1.csv")
    assert list(table["gradient_evals"]) == [20]

    # What is done is kept as long as the code is the same: the fault goes away by itself.
    method.write_text(text.replace(head, head + fault.replace("== 5", "== 6")))
    status, output = own.snakemake("sweep_algebraic", *TINY, "config/few.yaml", **source)
    assert status == 0, output
    assert "missing" not in output


@pytest.mark.slow
def test_finished_points_are_taken_over_by_other_jobs(own):
    overlay = own.root / "config" / "grouped.yaml"
    overlay.write_text("sweeps: {job: point}\n")
    table = own.root / "config" / "sweeps" / "tiny_algebraic.tsv"
    table.write_text(table.read_text().replace("20\n", "7\n20\n"))
    arguments = ("sweep_algebraic", *TINY, "config/grouped.yaml")
    assert planned(own, *arguments)["sweep_algebraic_point"] == 3
    rows = own.root / "results" / "tiny" / "sweeps" / "algebraic.parquet"
    before = pd.read_parquet(rows)
    status, output = own.snakemake(*arguments)
    assert status == 0, output
    assert output.count("done before") == 2
    after = pd.read_parquet(rows)
    assert list(after["K"]) == [5, 5, 7, 7, 20, 20]
    kept = after[after["K"] != 7].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)  # to the very seconds


def test_without_selection_the_settings_of_the_configuration_hold(finished):
    (finished.root / "config" / "given.yaml").write_text("sweeps: {select: false}\n")
    jobs = planned(finished, "table_1", *TINY, "config/given.yaml")
    assert not [name for name in jobs if name.startswith(("sweep", "select"))]
    assert jobs["reconstruct"] == 2  # ddgm_50 and algebraic, whose settings were chosen before


def test_a_wrong_row_is_refused_with_its_line_before_anything_starts(checkout):
    table = checkout.root / "config" / "sweeps" / "tiny_sigma1.tsv"
    table.write_text(table.read_text() + "0\t1\n")
    status, output = checkout.snakemake("sweeps", *TINY)
    assert status == 1
    lines = checkout.complaints(output)
    assert lines == ["config/sweeps/tiny_sigma1.tsv, line 4: K = 0 must be at least 1"], output
    assert not (checkout.root / "results").exists()
