import json
from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.selection import as_table, select

with session(snakemake.log[0]):
    sweeps = {
        name: pd.read_parquet(path)
        for name, path in zip(snakemake.params.sweeps, snakemake.input, strict=True)
    }
    choices = {
        row: select(pd.concat([sweeps[name] for name in names]), network_evals=limit)
        for row, names, limit in snakemake.params.rows
    }
    for choice, path in zip(choices.values(), snakemake.output.rows, strict=True):
        Path(path).write_text(json.dumps({"method": choice.method, **choice.settings}) + "\n")
    as_table(choices).to_csv(snakemake.output.table, index=False)
