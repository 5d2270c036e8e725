"""The demonstration does what it promises (minutes)."""

import pandas as pd
import pytest


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_in_the_demo_ddgm_is_better_than_the_algebraic_method(checkout):
    status, output = checkout.snakemake("paper", "--configfile", "config/demo.yaml")
    assert status == 0, output
    table = pd.read_csv(checkout.root / "results/demo/tables/table_1.csv").set_index("method")
    ddgm, algebraic = table.loc["DDGM, N ≤ 50"], table.loc["Algebraic"]
    assert ddgm["mse"] < algebraic["mse"]
    assert ddgm["ssim"] > algebraic["ssim"]
