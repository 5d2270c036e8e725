from pathlib import Path

import pandas as pd
import torch

from ddgm.blind import RULES, choose, judge, scores
from ddgm.console import session
from ddgm.devices import allotted_cores
from ddgm.engine import make_operator
from ddgm.figures import blind_scores, save_figure
from ddgm.noise_level import estimate_noise_std
from ddgm.sinograms import SinogramSet
from ddgm.tables import blind_choices, blind_choices_to_html, blind_choices_to_markdown

with session(snakemake.log[0]):
    torch.set_num_threads(allotted_cores(snakemake.threads))
    measured = SinogramSet.load(snakemake.input.sinograms)
    eigenbasis = str(snakemake.input.eigenbasis)  # empty for images too large for one
    operator = make_operator(measured.geometry, cache=Path(eigenbasis).parent)
    noise_std = estimate_noise_std(operator, measured.sinograms)
    sweeps = {
        name: pd.read_parquet(path)
        for name, path in zip(snakemake.params.sweeps, snakemake.input.sweeps, strict=True)
    }
    picks = {name: choose(rows, noise_std) for name, rows in sweeps.items()}
    table = blind_choices({name: judge(rows, picks[name]) for name, rows in sweeps.items()})
    table.assign(noise_std=noise_std).to_csv(snakemake.output.csv, index=False)
    for write, path in (
        (blind_choices_to_markdown, snakemake.output.markdown),
        (blind_choices_to_html, snakemake.output.html),
    ):
        Path(path).write_text(write(table, noise_std, measured.noise_std), encoding="utf-8")
    scored = {name: scores(rows, noise_std) for name, rows in sweeps.items()}
    rules = [rule for rule in RULES if all(rule in table for table in scored.values())]
    figure = blind_scores(scored, rules, picks)
    save_figure(figure, snakemake.output.pdf, snakemake.output.png)
