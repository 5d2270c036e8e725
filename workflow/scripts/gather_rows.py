import pandas as pd

from ddgm.console import session

with session(snakemake.log[0]):
    rows = pd.concat([pd.read_parquet(path) for path in snakemake.input], ignore_index=True)
    rows.to_parquet(snakemake.output.parquet, index=False)
    rows.to_csv(snakemake.output.csv, index=False)
