import json
from pathlib import Path

from ddgm.console import session
from ddgm.selection import Choice
from ddgm.tables import selected, selected_to_html, selected_to_markdown

with session(snakemake.log[0]):
    choices = {
        row: Choice(**json.loads(Path(path).read_text(encoding="utf-8")))
        for row, path in zip(snakemake.params.rows, snakemake.input, strict=True)
    }
    table = selected(choices)
    table.to_csv(snakemake.output.csv, index=False)
    Path(snakemake.output.markdown).write_text(selected_to_markdown(table), encoding="utf-8")
    Path(snakemake.output.html).write_text(selected_to_html(table), encoding="utf-8")
