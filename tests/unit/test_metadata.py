"""What the repository says of itself agrees with itself."""

import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


def read(name):
    return yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))


def test_the_citation_has_what_the_format_requires_and_the_version_of_the_package():
    # The schema of 1.2.0 itself is in no package that this project needs; the file was valid by it.
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    for entry in (citation, citation["preferred-citation"]):
        assert entry["title"]
        assert all({"family-names", "name"} & set(author) for author in entry["authors"])
    assert citation["message"]
    assert citation["preferred-citation"]["type"] in ("article", "generic")
    assert "Diffusive Denoising" in citation["preferred-citation"]["title"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_the_catalogue_of_workflows_finds_what_it_looks_for():
    usage = read(".snakemake-workflow-catalog.yml")["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert {type(value) for value in usage["software-stack-deployment"].values()} == {bool}
    for needed in ("workflow/Snakefile", "config/README.md", "README.md"):
        assert (REPOSITORY / needed).is_file()
