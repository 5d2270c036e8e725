from ddgm.conditioning import Conditioning
from ddgm.console import session
from ddgm.eigenbasis import Eigenbasis
from ddgm.figures import save_figure, singular_values

with session(snakemake.log[0]):
    values = Eigenbasis.load(snakemake.input[0]).singular_values.numpy()
    measured = Conditioning.of(values)
    measured.table().to_csv(snakemake.output.csv, index=False)
    save_figure(singular_values(values, measured), snakemake.output.pdf, snakemake.output.png)
