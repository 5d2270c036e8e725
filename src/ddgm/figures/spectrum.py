"""The singular values of a projector."""

from __future__ import annotations

from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from ddgm.conditioning import Conditioning
from ddgm.figures.style import COLOURS, STYLE, WIDTH


def singular_values(values: NDArray[np.float64], measured: Conditioning) -> Figure:
    """Show singular values, largest first, beside what the paper says of them (Fig. 8).

    Parameters
    ----------
    values : ndarray
        (pixels,) float64, in any order.
    measured : Conditioning
        Of these values.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        curve, words = figure.subplots(1, 2, width_ratios=[1.5, 1])
        rank = np.arange(1, len(values) + 1)
        curve.semilogy(rank, np.sort(values)[::-1], color=COLOURS[2], lw=1.5)
        tenth = 0.1 * measured.largest
        at = measured.count - measured.below_tenth
        curve.axhline(tenth, color=COLOURS[1], lw=1, ls="--")
        curve.plot([at, at], [measured.resolution, tenth], color=COLOURS[1], lw=1, ls=":")
        curve.text(rank[-1], tenth, "0.1 × the largest", color=COLOURS[1], ha="right", va="bottom")
        curve.axhline(measured.resolution, color="grey", lw=1, ls=":")
        style = {"color": "grey", "ha": "right", "va": "bottom"}
        curve.text(rank[-1], measured.resolution, "rounding of float64", **style)
        curve.set(xlabel="rank", ylabel="singular value of A", xlim=(0, 1.01 * rank[-1]))
        curve.yaxis.set_major_locator(LogLocator(numticks=20))
        words.set_axis_off()
        said = (
            "“over half of the singular values being smaller than 0.1 × the largest”",
            "“spanning a range from 10² down to 10⁻⁵”",
        )
        found = (
            f"{measured.share_below_tenth:.1%}: {measured.below_tenth:,} of {measured.count:,}",
            f"from {measured.largest:.1f} down to {_scientific(measured.smallest)}",
        )
        for paper, here, top in zip(said, found, (1.0, 0.42), strict=True):
            words.text(0, top, "The paper:\n" + fill(paper, 40), va="top", style="italic")
            words.text(0, top - 0.26, f"Measured here:\n{here}", va="top")
        return figure


def _scientific(value: float) -> str:
    digits, power = f"{value:.1e}".split("e")
    return rf"{digits} × $10^{{{int(power)}}}$"
