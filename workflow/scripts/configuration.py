from pathlib import Path

import yaml

from ddgm.console import session
from ddgm.pages import page_of_tables
from ddgm.provenance import configuration

with session(snakemake.log[0]):
    text = yaml.safe_dump(snakemake.config, sort_keys=False, allow_unicode=True)
    Path(snakemake.output.yaml).write_text(text, encoding="utf-8")
    page = page_of_tables({"": configuration(snakemake.config)}, "Configuration")
    Path(snakemake.output.html).write_text(page, encoding="utf-8")
