import logging
from pathlib import Path

import pandas as pd

from ddgm.console import session
from ddgm.errors import DdgmError
from ddgm.figures import save_figure, sweep
from ddgm.selection import failed_points, finished_points
from ddgm.sweep_tables import describe

with session(snakemake.log[0]):
    rows = pd.read_parquet(snakemake.input.rows)
    failed, points = failed_points(rows), rows["settings"].nunique()
    for settings, reason in failed:
        logging.warning("%s: missing: %s: %s", snakemake.rule, describe(settings), reason)
    if rows["try_again"].any():
        # Without its file, the next run does a job again: the points that are missing, that is.
        for path in map(Path, snakemake.input.points):
            if pd.read_parquet(path, columns=["try_again"])["try_again"].any():
                path.unlink()
        raise DdgmError(
            f"{snakemake.rule}: {int(rows['try_again'].sum())} of {points} points are missing (see "
            "above); the next run tries them again"
        )
    if failed:
        logging.warning("%s: %d of %d points diverged", snakemake.rule, len(failed), points)
    if len(failed) == points:
        raise DdgmError(f"{snakemake.rule}: no point has a result to show")
    figure = sweep(
        finished_points(rows),
        snakemake.params.parameters,
        noise_std=snakemake.params.noise_std,
        only=snakemake.params.get("only"),
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
