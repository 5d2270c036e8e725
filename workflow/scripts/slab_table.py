from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.evaluation import evaluate_volume
from ddgm.statistics import load_statistics
from ddgm.tables import Row, table_1, to_html, to_markdown
from ddgm.volume import open_volume

with session(snakemake.log[0]):
    truth = open_volume(str(snakemake.input.truth))
    normalisation = load_statistics(snakemake.input.statistics)
    frames, rows = [], []
    for (name, label, method), path in zip(
        snakemake.params.rows, snakemake.input.volumes, strict=True
    ):
        metrics = evaluate_volume(open_volume(path), truth, normalisation)
        rows.append(Row(label, method, metrics))
        frames.append(metrics.assign(method=name))
    pd.concat(frames).to_csv(snakemake.output.metrics, index=False)
    table = table_1(rows)
    table.to_csv(snakemake.output.csv, index=False)
    Path(snakemake.output.markdown).write_text(to_markdown(table), encoding="utf-8")
    Path(snakemake.output.html).write_text(to_html(table, "Slab"), encoding="utf-8")
    print(to_markdown(table))
