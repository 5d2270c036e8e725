"""Workers that are processes, and what they make undisturbed."""

import pytest
from cases import make_case

from ddgm.cluster import ClusterSettings, connect


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
