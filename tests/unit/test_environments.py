"""Pinned versions agree wherever they are written down."""

import re
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


def normalised(name):
    return re.sub("[-_.]+", "-", name).lower()


def pins():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    entries = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normalised(name): version for name, version in entries}


def wanted(extra=None):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    entries = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {normalised(re.match(r"[\w.-]+", entry).group()) for entry in entries}


def test_every_direct_dependency_is_pinned():
    for extra in (None, "workflow", "cluster", "dev"):
        assert wanted(extra) <= set(pins())


def test_conda_environments_have_the_pinned_versions_of_all_that_ddgm_needs():
    for path in (REPOSITORY / "envs").glob("*.yaml"):
        dependencies = yaml.safe_load(path.read_text())["dependencies"]
        entries = dependencies[-1]["pip"]
        found = {normalised(name): version for name, version in (e.split(" ==") for e in entries)}
        assert set(found) == wanted()
        assert {name: pins()[name] for name in found} == found
