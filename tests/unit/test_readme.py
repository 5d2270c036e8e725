"""What the README shows works."""

import re
from pathlib import Path

import pytest
import yaml

from ddgm.config import check_schema

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_library_examples_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDGM_CACHE_DIR", str(tmp_path / "cache"))
    guide = (REPOSITORY / "docs" / "sweeps.md").read_text(encoding="utf-8")
    names = {}
    (example,) = blocks("python")
    exec(example, names)
    output = capsys.readouterr().out
    assert "[2, 64, 64]" in output
    assert "network=20" in output

    (example,) = blocks("python", guide)
    exec(example, names)
    output = capsys.readouterr().out
    for rule in ("held-out views", "discrepancy"):
        assert re.search(rf"'{rule}': '{{\"N\": 20, \"c\": (0\.5|1\.0|2\.0)}}'", output)

    uncertainty = (REPOSITORY / "docs" / "uncertainty.md").read_text(encoding="utf-8")
    (example,) = blocks("python", uncertainty)
    exec(example, names)
    assert capsys.readouterr().out.count("[2, 64, 64]") == 3
    assert (tmp_path / "posterior.npz").exists()


GUIDES = [REPOSITORY / "docs", REPOSITORY / "docs" / "guides"]
CONFIGURING = [
    page
    for folder in GUIDES
    for page in sorted(folder.glob("*.md"))
    if blocks("yaml", page.read_text(encoding="utf-8")) and page.name != "cluster.md"  # profiles
]


@pytest.mark.parametrize("page", CONFIGURING, ids=lambda page: page.stem)
def test_configurations_that_a_page_shows_are_valid_on_top_of_those_of_fib25(page):
    from snakemake.utils import update_config

    config = {}
    for name in ("config", "fib25"):
        text = (REPOSITORY / "config" / f"{name}.yaml").read_text(encoding="utf-8")
        update_config(config, yaml.safe_load(text))
    for example in blocks("yaml", page.read_text(encoding="utf-8")):
        update_config(config, yaml.safe_load(example))
        check_schema(config, REPOSITORY / "workflow" / "schemas" / "config.schema.yaml")
    if page.stem == "your_volume":
        assert config["run"] == "mine"


def test_no_place_is_left_to_be_filled_in():
    pages = [page for folder in (REPOSITORY, *GUIDES) for page in folder.glob("*.md")]
    for path in pages:
        assert not re.search(r"@[A-Z_]+@|TODO|TBD", path.read_text(encoding="utf-8"))


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
