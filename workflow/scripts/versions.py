from pathlib import Path

from ddgm.console import session
from ddgm.pages import page_of_tables
from ddgm.provenance import versions

with session(snakemake.log[0]):
    table = versions(".", Snakemake=snakemake.params.snakemake)
    table.to_csv(snakemake.output.csv, index=False)
    page = page_of_tables({"": table}, "Versions and machine")
    Path(snakemake.output.html).write_text(page, encoding="utf-8")
