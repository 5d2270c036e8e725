from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.tables import selected_to_markdown

with session(snakemake.log[0]):
    table = pd.read_csv(snakemake.input[0], dtype={"row": str}, keep_default_na=False)
    Path(snakemake.output[0]).write_text(selected_to_markdown(table), encoding="utf-8")
