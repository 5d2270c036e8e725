from pathlib import Path

from ddgm.console import session
from ddgm.pages import page_of_markdown

with session(snakemake.log[0]):
    text = Path(snakemake.input.markdown).read_text(encoding="utf-8")
    page = page_of_markdown(text, snakemake.params.title)
    Path(snakemake.output[0]).write_text(page, encoding="utf-8")
