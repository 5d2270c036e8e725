import dataclasses
import json
from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.selection import select

with session(snakemake.log[0]):
    rows = pd.concat([pd.read_parquet(path) for path in snakemake.input], ignore_index=True)
    choice = select(rows, network_evals=snakemake.params.network_evals)
    text = json.dumps(dataclasses.asdict(choice), indent=2)
    Path(snakemake.output[0]).write_text(text + "\n", encoding="utf-8")
