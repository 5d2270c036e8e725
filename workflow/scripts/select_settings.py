import json
from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.selection import select
from ddgm.tables import selected, selected_to_markdown

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
    table = selected(choices)
    table.to_csv(snakemake.output.csv, index=False)
    Path(snakemake.output.markdown).write_text(selected_to_markdown(table), encoding="utf-8")
