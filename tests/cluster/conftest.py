"""A real SLURM for the tests, and checkouts to run the workflow on it."""

import shutil
from dataclasses import dataclass

import pytest
import yaml
from checkouts import TINY, make_checkout
from cluster_runs import CHAIN, ClusterCheckout
from small_slurm import SmallSlurm, obstacle


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A SLURM that takes jobs."""
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
    small = SmallSlurm(tmp_path_factory.mktemp("slurm"))
    try:
        small.start()
        yield small
    finally:
        small.stop()


@dataclass(frozen=True)
class Chain:
    """The chain run without a cluster, and the same checkout before its training."""

    table: bytes
    prepared: ClusterCheckout

    def copy(self, root):
        """Return a checkout in which training comes next."""
        shutil.copytree(self.prepared.root, root, symlinks=True)
        return ClusterCheckout(root)


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """The chain, for tests to disturb."""
    made = make_checkout(tmp_path_factory.mktemp("chain"))
    prepared = ClusterCheckout(made.root)
    prepared.configure(yaml.safe_load(TINY.read_text()), CHAIN)
    status, output = prepared.run_here("table_1")
    assert status == 0, output
    results = made.root / "results/chain"
    table = (results / "tables/table_1.csv").read_bytes()
    for name in ("network", "reconstructions", "metrics", "tables", "logs"):
        shutil.rmtree(results / name)
    return Chain(table, prepared)


@pytest.fixture
def disturbed(slurm, chain, tmp_path):
    """A checkout whose run is going to be disturbed, on a cluster that is whole again after."""
    slurm.wait_until_idle()
    yield chain.copy(tmp_path / "checkout")
    slurm.mend()
