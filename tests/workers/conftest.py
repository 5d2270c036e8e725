"""Workers that are processes, and what they make undisturbed."""

from pathlib import Path

import pytest
from cases import make_case

from ddgm.cluster import ClusterSettings, connect


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep these tests in one process: two sets of workers would be in each other's way."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("workers"))


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="session")
def client():
    """Two workers of one thread."""
    settings = ClusterSettings(workers=2, memory="3GiB")
    with connect(settings, device="cpu", cores=2) as workers:
        yield workers.client


@pytest.fixture(scope="session")
def whole(case, client, tmp_path_factory):
    """What an undisturbed run gives."""
    return case.reconstruct(tmp_path_factory.mktemp("whole") / "whole.zarr", client)
