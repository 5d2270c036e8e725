import pandas as pd

from ddgm.console import session
from ddgm.figures import save_figure, training_curve

with session(snakemake.log[0]):
    losses = pd.read_csv(snakemake.input[0])
    save_figure(training_curve(losses), snakemake.output.pdf, snakemake.output.png)
