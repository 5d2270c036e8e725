from pathlib import Path

import pandas as pd

from ddgm.calibration import Scored, calibrate
from ddgm.console import session
from ddgm.figures import calibration, save_figure
from ddgm.patches import PatchSet
from ddgm.posterior import Posterior
from ddgm.statistics import load_statistics
from ddgm.tables import uncertainty, uncertainty_to_html, uncertainty_to_markdown

with session(snakemake.log[0]):
    normalisation = load_statistics(snakemake.input.statistics)

    def scored(path, patches):
        made = Posterior.load(path)
        truth = PatchSet.load(patches).normalised(normalisation)[: len(made.mean)]
        return Scored.of(made.mean.numpy(), made.std.numpy(), truth.numpy(), made.samples)

    found = {
        label: calibrate(
            scored(test, snakemake.input.test_patches),
            scored(validation, snakemake.input.validation_patches),
        )
        for label, test, validation in zip(
            snakemake.params.labels, snakemake.input.test, snakemake.input.validation, strict=True
        )
    }

    def rows(part):
        named = [getattr(each, part).assign(method=label) for label, each in found.items()]
        return pd.concat(named, ignore_index=True)

    for part in ("curve", "shares", "means"):
        rows(part).to_csv(snakemake.output[part], index=False)
    uncertainty(found).to_csv(snakemake.output.csv, index=False)
    Path(snakemake.output.markdown).write_text(uncertainty_to_markdown(found), encoding="utf-8")
    Path(snakemake.output.html).write_text(uncertainty_to_html(found), encoding="utf-8")
    figure = calibration(
        *(
            [(label, getattr(each, part)) for label, each in found.items()]
            for part in ("curve", "shares", "means")
        )
    )
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
