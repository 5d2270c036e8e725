from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.tables import Row, table_1, to_html, to_latex, to_markdown

with session(snakemake.log[0]):
    # A method may be called 50 or NA.
    metrics = pd.read_csv(
        snakemake.input[0], dtype={"method": str}, keep_default_na=False, na_values=[""]
    )
    table = table_1(
        [
            Row(label, method, metrics[metrics["method"] == name])
            for name, label, method in snakemake.params.rows
        ]
    )
    table.to_csv(snakemake.output.csv, index=False)
    Path(snakemake.output.markdown).write_text(to_markdown(table), encoding="utf-8")
    Path(snakemake.output.latex).write_text(to_latex(table), encoding="utf-8")
    Path(snakemake.output.html).write_text(to_html(table), encoding="utf-8")
    print(to_markdown(table))
