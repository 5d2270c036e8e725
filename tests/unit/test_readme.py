"""What the README shows works."""

import re
from pathlib import Path

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


def test_the_config_example_is_valid_on_top_of_those_it_is_used_with():
    from snakemake.utils import update_config

    config = {}
    for name in ("config", "fib25"):
        text = (REPOSITORY / "config" / f"{name}.yaml").read_text(encoding="utf-8")
        update_config(config, yaml.safe_load(text))
    guide = REPOSITORY / "docs" / "guides" / "your_volume.md"
    (example,) = blocks("yaml", guide.read_text(encoding="utf-8"))
    update_config(config, yaml.safe_load(example))
    check_schema(config, REPOSITORY / "workflow" / "schemas" / "config.schema.yaml")
    assert config["run"] == "mine"


def test_no_place_is_left_to_be_filled_in():
    for path in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        assert not re.search(r"@[A-Z_]+@|TODO|TBD", path.read_text(encoding="utf-8"))


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
