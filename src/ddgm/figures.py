"""Figures, as matplotlib objects; saving them is the caller's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ddgm.image_statistics import radial_power_spectrum
from ddgm.selection import lowest
from ddgm.training_settings import band_edges

# Okabe and Ito's colours, told apart by colour-blind readers; line styles for prints in grey.
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7")
_LINES = ("-", "--", ":", "-.", "-")
_MARKERS = "os^Dv"
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}


def save_figure(figure: Figure, *paths: Path | str) -> None:
    """Write a figure in the formats that the paths' endings name, without a date inside."""
    for path in paths:
        metadata = {"CreationDate": None} if str(path).endswith(".pdf") else None
        figure.savefig(path, metadata=metadata)


def comparison(
    truth: NDArray[np.float32],
    sinograms: NDArray[np.float32],
    reconstructions: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    voxel_size: float,
    max_tilt: float,
) -> Figure:
    """Show images beside their tilt series and reconstructions, one row an image (cf. Fig. 4).

    Parameters
    ----------
    truth : ndarray
        (count, rows, columns).
    sinograms : ndarray
        (count, views, detector).
    reconstructions : sequence of (str, ndarray)
        A label and (count, rows, columns) images, a column each.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    max_tilt : float
        Largest tilt, degrees, for the axis of the sinogram.
    """
    with mpl.rc_context(_STYLE):
        columns = len(reconstructions) + 2
        figure = Figure(figsize=(1.6 * columns, 1.65 * len(truth) + 0.35), layout="constrained")
        panels = figure.subplots(len(truth), columns, squeeze=False)
        # All images share one grey scale, so that a washed-out one looks it.
        low, high = np.percentile(truth, [0.5, 99.5])
        for row, image in enumerate(truth):
            _show(panels[row, 0], image, low, high)
            panels[row, 1].imshow(
                sinograms[row], cmap="gray", aspect="auto", extent=(0, 1, max_tilt, -max_tilt)
            )
            panels[row, 1].set(xticks=[], yticks=[-max_tilt, 0, max_tilt])
            panels[row, 1].spines[:].set_visible(False)
            panels[row, 1].yaxis.set_major_formatter("{x:.0f}°")
            for column, (_, images) in enumerate(reconstructions, start=2):
                _show(panels[row, column], images[row], low, high)
                mse = float(np.square(images[row] - image).mean())
                panels[row, column].set_xlabel(f"MSE {mse:.3f}", labelpad=2)
        titles = ["truth", "tilt series", *(label for label, _ in reconstructions)]
        for panel, title in zip(panels[0], titles, strict=True):
            panel.set_title(title)
        _scale_bar(panels[0, 0], voxel_size)
        return figure


def slab(
    sinogram: NDArray[np.float32],
    images: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    truth: NDArray[np.float32] | None = None,
    voxel_size: float,
    tilts: tuple[float, float],
) -> Figure:
    """Show a section of a slab: its tilt views above reconstructions and truth (cf. Fig. 1).

    Parameters
    ----------
    sinogram : ndarray
        (views, detector).
    images : sequence of (str, ndarray)
        A label and a (depth, lateral) image each.
    truth : ndarray, optional
        (depth, lateral); with it errors are given.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    tilts : (float, float)
        Of the first and the last view, degrees.
    """
    with mpl.rc_context(_STYLE):
        rows, columns = images[0][1].shape
        width = 7.0
        height = max(0.5, width * rows / columns)
        shown = [*images, *([] if truth is None else [("truth", truth)])]
        count = len(shown) + 1
        figure = Figure(figsize=(width, count * (height + 0.2)), layout="constrained")
        panels = figure.subplots(count, 1, squeeze=False)[:, 0]
        panels[0].imshow(
            sinogram, cmap="gray", aspect="auto", extent=(0, 1, len(sinogram) - 0.5, -0.5)
        )
        panels[0].set(xticks=[], yticks=[0, len(sinogram) - 1])
        panels[0].set_yticklabels([f"{tilt:.0f}°" for tilt in tilts])
        panels[0].spines[:].set_visible(False)
        panels[0].set_title("tilt series", loc="left")
        low, high = np.percentile(shown[-1][1], [0.5, 99.5])
        for index, (panel, (label, image)) in enumerate(zip(panels[1:], shown, strict=True)):
            _show(panel, image, low, high)
            if truth is not None and index < len(images):
                label = f"{label}, MSE {np.square(image - truth).mean():.3f}"
            panel.set_title(label, loc="left")
        _scale_bar(panels[-1], voxel_size)
        return figure


def prior_samples(
    sets: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    voxel_size: float,
    count: int = 12,
) -> Figure:
    """Show samples of a prior beside real images, and the statistics of both (cf. Figs. 2 and 5).

    Parameters
    ----------
    sets : sequence of (str, ndarray)
        A label and (count, size, size) images in network units; the first are real.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    count : int
        Images of each set to show, at most.
    """
    with mpl.rc_context(_STYLE):
        columns, rows = 4, -(-count // 4)
        figure = Figure(figsize=(columns * len(sets), rows + 2.6), layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=[rows + 0.3, 2.3])
        top, bottom = halves
        low, high = np.percentile(sets[0][1], [0.5, 99.5])
        parts = top.subfigures(1, len(sets), squeeze=False)[0]
        for index, (part, (label, images)) in enumerate(zip(parts, sets, strict=True)):
            part.suptitle(label, fontsize=8)
            panels = part.subplots(rows, columns, squeeze=False).ravel()
            for panel in panels:
                panel.set_axis_off()
            for panel, image in zip(panels, images[:count], strict=False):
                _show(panel, image, low, high)
            if index == 0:
                _scale_bar(panels[0], voxel_size)
        histogram, spectrum = bottom.subplots(1, 2)
        darkest, brightest = np.percentile(sets[0][1], [0.01, 99.99])
        bins = np.linspace(darkest, brightest, 200)
        for (label, images), colour, style in zip(sets, _COLOURS, _LINES, strict=False):
            kept = {"color": colour, "linestyle": style, "lw": 1.2}
            density, _ = np.histogram(images, bins, density=True)
            # Real images have whole grey values, which a finer histogram would show as a comb.
            density = gaussian_filter1d(density, 5)
            histogram.plot((bins[1:] + bins[:-1]) / 2, density, **kept, label=label)
            frequency, power = radial_power_spectrum(images)
            spectrum.loglog(frequency, power, **kept)
        histogram.set(xlabel="intensity, standard deviations", ylabel="density")
        histogram.legend(frameon=False)
        spectrum.set(xlabel="spatial frequency, cycles a pixel", ylabel="power")
        return figure


def training_curve(losses: pd.DataFrame) -> Figure:
    """Show the losses of a training over its steps and, at its end, by noise level.

    Parameters
    ----------
    losses : DataFrame
        What `ddgm.training.collect_losses` returns.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.9, 2.4), layout="constrained")
        course, bands = figure.subplots(1, 2)
        trained = losses.dropna(subset="train_loss")
        validated = losses.dropna(subset="val_loss")
        # Single batches say little: a mean over a twentieth of the training is drawn.
        smooth = trained["train_loss"].rolling(max(1, len(trained) // 20), min_periods=1).mean()
        course.plot(trained["step"] + 1, smooth, lw=1, color=_COLOURS[2], label="training")
        course.plot(
            validated["step"] + 1,
            validated["val_loss"],
            "o-",
            ms=3,
            lw=1,
            color=_COLOURS[1],
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
                color=_COLOURS[1],
                label=f"step {int(row['step']) + 1:,}",
            )
        bands.set(xlabel="noise level σ", ylabel="validation loss")
        if len(ends):
            bands.legend(frameon=False)
        return figure


# How axes and legends write the parameters.
_SYMBOLS = {
    "K": "gradient steps K",
    "c": "trust in the denoised image c",
    "eta": "share of fresh noise η",
    "zeta": "strength of the data ζ",
    "sigma_1": "σ₁",
    "sigma_N": "σ_N",
}
_MEASURES = {"mse": "MSE", "ssim": "SSIM", "data_error": "mean (Ax − y)²"}


def sweep(rows: pd.DataFrame, parameters: Sequence[str], *, noise_std: float) -> Figure:
    """Show MSE, SSIM and data error over a sweep (Figs. 9 to 16).

    The first parameter is the abscissa, the second tells the lines apart, the third the rows of
    panels. Bars are standard errors over images; a star marks the best point of all.

    Parameters
    ----------
    rows : DataFrame
        One row an image and point: the parameters, mse, ssim and data_error.
    parameters : sequence of str
        The swept ones, at most three.
    noise_std : float
        σ_y; the data error of the true image is its square.
    """
    abscissa, (line, level) = parameters[0], [*parameters[1:], None, None][:2]
    points = rows.groupby(list(parameters))[list(_MEASURES)].agg(["mean", "sem"])
    points.columns = points.columns.map("_".join)  # mse_mean, mse_sem, …
    points = points.reset_index()
    levels = [None] if level is None else sorted(points[level].unique())
    lines = [None] if line is None else sorted(points[line].unique())
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.9, 2.1 * len(levels) + 0.2), layout="constrained")
        panels = figure.subplots(len(levels), 3, squeeze=False, sharex=True, sharey="col")
        colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(lines)))
        for row, chosen in zip(panels, levels, strict=True):
            for value, colour, marker in zip(lines, colours, cycle(_MARKERS), strict=False):
                part = points
                for name, wanted in ((level, chosen), (line, value)):
                    part = part if name is None else part[part[name] == wanted]
                for panel, measure in zip(row, _MEASURES, strict=True):
                    panel.errorbar(
                        part[abscissa],
                        part[f"{measure}_mean"],
                        yerr=part[f"{measure}_sem"],
                        fmt=f"{marker}-",
                        ms=3,
                        lw=1,
                        color=colour,
                        label=None if line is None else _equation(line, value),
                    )
            row[2].axhline(noise_std**2, color="grey", lw=0.8, ls=":")
            if level is not None:
                row[0].set_title(_equation(level, chosen), loc="left")
        for column, label in enumerate(_MEASURES.values()):
            panels[-1, column].set_xlabel(_SYMBOLS.get(abscissa, abscissa))
            for panel in panels[:, column]:
                panel.set_ylabel(label)
        for column, measure, sign in ((0, "mse_mean", 1), (1, "ssim_mean", -1)):
            winner = lowest(points.assign(order=sign * points[measure]), "order")
            at = 0 if level is None else levels.index(winner[level])
            star = {"ms": 11, "mfc": "none", "color": _COLOURS[1]}
            panels[at, column].plot(winner[abscissa], winner[measure], "*", **star)
        # A setting far off would flatten all that matters.
        for column, measure in ((0, "mse_mean"), (2, "data_error_mean")):
            if points[measure].max() > 10 * points[measure].min():
                panels[0, column].set_yscale("log")
        values = points[abscissa]
        if values.min() > 0 and values.max() >= 20 * values.min():
            panels[0, 0].set_xscale("log")
            for panel in panels[-1]:
                panel.set_xticks(sorted(values.unique()), minor=False)
                panel.xaxis.set_major_formatter("{x:g}")
                panel.xaxis.set_minor_locator(NullLocator())
        if line is not None:
            panels[0, 0].legend(frameon=False, fontsize=6)
        panels[0, 2].annotate(
            "σ_y²", (1, noise_std**2), xycoords=("axes fraction", "data"), color="grey", va="bottom"
        )
        return figure


def blind_scores(
    scores: Mapping[str, pd.DataFrame],
    rules: Sequence[str],
    picks: Mapping[str, Mapping[str, str]],
) -> Figure:
    """Show the true error of settings against what rules without the truth make of them.

    Parameters
    ----------
    scores : mapping
        What `ddgm.blind.scores` returned for each sweep, by the sweep's name.
    rules : sequence of str
        Columns to show, one a column of panels.
    picks : mapping
        What `ddgm.blind.choose` returned for each sweep.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.9, 2.2 * len(scores)), layout="constrained")
        panels = figure.subplots(len(scores), len(rules), squeeze=False, sharey="row")
        for row, (name, points) in zip(panels, scores.items(), strict=True):
            best = lowest(points, "mse")
            row[0].set_ylabel(f"{name}: MSE")
            for panel, rule in zip(row, rules, strict=True):
                pick = lowest(points[points["settings"] == picks[name][rule]], "mse")
                panel.plot(points[rule], points["mse"], "o", ms=3, color=_COLOURS[2])
                for point, marker, label in ((pick, "s", "picked"), (best, "*", "best")):
                    style = {"ms": 9, "mfc": "none", "color": _COLOURS[1], "ls": "none"}
                    panel.plot(point[rule], point["mse"], marker, label=label, **style)
                panel.set_xlabel(rule)
        panels[0, 0].legend(frameon=False)
        return figure


def _equation(name: str, value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return name if value else f"not {name}"
    return f"{_SYMBOLS.get(name, name).rpartition(' ')[2]} = {value:g}"


def _show(panel: Axes, image: NDArray[np.float32], low: float, high: float) -> None:
    panel.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def _scale_bar(panel: Axes, voxel_size: float) -> None:
    rows, columns = panel.images[0].get_size()
    nanometres = round_length(columns * voxel_size / 3)
    length = nanometres / voxel_size
    y, x = rows * 0.93, columns * 0.05
    panel.plot([x, x + length], [y, y], lw=3, color="white", solid_capstyle="butt")
    panel.text(x, y - rows * 0.03, f"{nanometres:g} nm", color="white", va="bottom", fontsize=6)


def round_length(most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))
