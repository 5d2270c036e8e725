"""The course of a training."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ddgm.figures.style import COLOURS, STYLE, WIDTH
from ddgm.training_settings import band_edges


def training_curve(losses: pd.DataFrame) -> Figure:
    """Show the losses of a training over its steps and, at its end, by noise level.

    Parameters
    ----------
    losses : DataFrame
        What `ddgm.training.collect_losses` returns.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
        course, bands = figure.subplots(1, 2)
        trained = losses.dropna(subset="train_loss")
        validated = losses.dropna(subset="val_loss")
        # Single batches say little: a mean over a twentieth of the training is drawn.
        smooth = trained["train_loss"].rolling(max(1, len(trained) // 20), min_periods=1).mean()
        course.plot(trained["step"] + 1, smooth, lw=1, color=COLOURS[2], label="training")
        course.plot(
            validated["step"] + 1,
            validated["val_loss"],
            "o-",
            ms=3,
            lw=1,
            color=COLOURS[1],
            label="validation",
        )
        course.set(xlabel="training step", ylabel="loss, mean (ε − ε_θ)²", yscale="log")
        course.yaxis.set_major_formatter("{x:g}")
        course.yaxis.set_minor_formatter("{x:g}")
        course.legend(frameon=False)
        names = [name for name in losses.columns if name.startswith("val_loss_")]
        ends = validated.iloc[sorted({0, len(validated) - 1})] if len(validated) else validated
        for (_, row), line in zip(ends.iterrows(), ("-", "--"), strict=False):
            levels = [np.sqrt(np.prod(band_edges(name))) for name in names]
            bands.loglog(
                levels,
                row[names].to_numpy(dtype=float),
                f"o{line}",
                ms=3,
                lw=1,
                color=COLOURS[1],
                label=f"step {int(row['step']) + 1:,}",
            )
        bands.set(xlabel="noise level σ", ylabel="validation loss")
        if len(ends):
            bands.legend(frameon=False)
        return figure
