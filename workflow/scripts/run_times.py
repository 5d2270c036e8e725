from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.pages import page_of_tables
from ddgm.provenance import run_times, times_of_images, times_of_steps

with session(snakemake.log[0]):
    jobs = run_times(snakemake.params.directory)
    jobs.to_csv(snakemake.output.csv, index=False)
    # A method may be called 50 or NA.
    metrics = pd.read_csv(
        snakemake.input.metrics, dtype={"method": str}, keep_default_na=False, na_values=[""]
    )
    tables = {
        "Steps": times_of_steps(jobs),
        "An image of the test set": times_of_images(metrics, snakemake.params.labels),
        "Jobs": jobs,
    }
    page = page_of_tables(tables, "Run times")
    Path(snakemake.output.html).write_text(page, encoding="utf-8")
