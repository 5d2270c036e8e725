from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.tables import Row, table_1, to_latex, to_markdown

with session(snakemake.log[0]):
    table = table_1(
        [
            Row(label, method, pd.read_csv(path))
            for (label, method), path in zip(snakemake.params.rows, snakemake.input, strict=True)
        ]
    )
    table.to_csv(snakemake.output.csv, index=False)
    Path(snakemake.output.markdown).write_text(to_markdown(table), encoding="utf-8")
    Path(snakemake.output.latex).write_text(to_latex(table), encoding="utf-8")
    print(to_markdown(table))
