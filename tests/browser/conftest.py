"""Pages are opened in a real Chromium, where there is one."""

import pytest
from browsers import PROGRAM, browser


@pytest.fixture(scope="session")
def chromium():
    if PROGRAM is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium)")
    with browser() as running:
        yield running


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep tests in one process that share a browser."""
    for item in items:
        if "chromium" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("browser"))
