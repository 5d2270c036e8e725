"""Pinned versions agree wherever they are written down."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parents[2]
CONDA = sorted((REPOSITORY / "envs").glob("*.yaml"))


def normalised(name):
    return re.sub("[-_.]+", "-", name).lower()


def pins():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    entries = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normalised(name): version for name, version in entries}


def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def wanted(extra=None):
    entries = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    return [Requirement(entry) for entry in entries]


def names(requirements):
    return {normalised(each.name) for each in requirements}


def with_all_they_need(requirements, python):
    """Names of packages and of all that they need in turn, as those installed here say."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found, todo = (
        set(),
        [(each.name, extra) for each in requirements for extra in ("", *each.extras)],
    )
    while todo:
        name, extra = todo.pop()
        if (normalised(name), extra) in found:
            continue
        found.add((normalised(name), extra))
        for needed in map(Requirement, requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({**environment, "extra": extra}):
                todo += [(needed.name, each) for each in ("", *needed.extras)]
    return {name for name, _ in found}


def instructions():
    """What the container's definition does, a line each."""
    text = (REPOSITORY / "envs" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def python_of_conda(path):
    entries = yaml.safe_load(path.read_text())["dependencies"]
    return next(
        each.removeprefix("python =") for each in entries if str(each).startswith("python ")
    )


def python_of_container():
    """Version of Python in the base image that is taken unless another is given."""
    given = next(each for each in instructions() if each.startswith("ARG BASE_IMAGE="))
    return re.search(r"python:(\d+\.\d+)", given).group(1)


def test_every_direct_dependency_is_pinned():
    for extra in (None, "workflow", "cluster", "dev"):
        assert names(wanted(extra)) <= set(pins())


@pytest.mark.parametrize("path", CONDA, ids=lambda path: path.stem)
def test_a_conda_environment_has_the_pinned_version_of_all_that_ddgm_needs(path):
    entries = yaml.safe_load(path.read_text())["dependencies"][-1]["pip"]
    found = {normalised(name): version for name, version in (e.split(" ==") for e in entries)}
    # Constraints say nothing of the packages that differ among builds of torch.
    needed = with_all_they_need(wanted(), python_of_conda(path)) & set(pins())
    assert found == {name: pins()[name] for name in needed}


def test_conda_and_container_have_the_same_python_and_one_that_ddgm_supports():
    versions = {python_of_container(), *map(python_of_conda, CONDA)}
    assert len(versions) == 1
    assert versions.pop() in SpecifierSet(project()["requires-python"])


def test_the_container_has_the_pinned_versions_and_none_of_its_own():
    installs = [each for each in instructions() if re.search(r"\binstall\b", each)]
    assert installs
    for each in installs:
        assert "--constraint /checkout/constraints.txt" in each
        assert '"/checkout[workflow,cluster]"' in each
        assert each.count(" install ") == 1
        assert not re.search(r"[=~<>!]=|://", each)


def test_the_containers_build_is_given_all_that_an_installation_reads():
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    given = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    metadata = {project()["readme"], *project()["license-files"]}
    assert {"constraints.txt", "pyproject.toml", "src"} | metadata <= given
