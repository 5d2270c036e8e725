"""Checkouts in which the workflow is run, and how tests share them."""

import pytest
from checkouts import make_checkout


@pytest.fixture
def checkout(tmp_path):
    """An empty checkout."""
    return make_checkout(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A checkout in which the tiny configuration has been run; not to be changed."""
    made = make_checkout(tmp_path_factory.mktemp("finished"))
    status, output = made.snakemake("paper", "--configfile", "config/tiny.yaml")
    assert status == 0, output
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep tests in one process, where several share the work, that share what was run."""
    for item in items:
        if {"finished", "slab"} & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("workflow"))
