"""Table 1, and the settings it stands on: accuracy and work of the methods."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from ddgm.errors import DdgmError
from ddgm.methods import METHODS, Evaluations
from ddgm.pages import page_of_tables
from ddgm.sweep_tables import describe

if TYPE_CHECKING:
    from ddgm.blind import BlindChoice
    from ddgm.calibration import Calibration
    from ddgm.selection import Choice


@dataclass(frozen=True)
class Row:
    """A method's entry.

    Attributes
    ----------
    label : str
        What the table calls it.
    method : str
        Its name in `ddgm.methods.METHODS`.
    metrics : DataFrame
        One row an image: the columns of `ddgm.evaluation.evaluate`.
    """

    label: str
    method: str
    metrics: pd.DataFrame


def table_1(rows: Sequence[Row]) -> pd.DataFrame:
    """Summarise methods, one row each (Table 1).

    Parameters
    ----------
    rows : sequence of Row
        In the order of the table.

    Returns
    -------
    DataFrame
        Columns method, requires_svd, requires_network_gradient, the evaluations of each kind,
        every one of `MEASURES` with its standard error over images (mse, mse_se, …), and images,
        the number of them.

    Raises
    ------
    DdgmError
        If a value is missing: a mean over the other images would not be comparable.
    """
    return pd.DataFrame([_summary(row) for row in rows])


MEASURES = ("mse", "ssim", "psnr", "data_error")
_WORK = tuple(f"{field.name}_evals" for field in fields(Evaluations))


def _summary(row: Row) -> dict[str, object]:
    kind, metrics = METHODS[row.method], row.metrics
    for measure in MEASURES:
        missing = metrics[measure].isna()
        if missing.any():
            raise DdgmError(
                f"table 1: {row.label} has no {measure} for image {int(missing.argmax())}; "
                "reconstruct it anew"
            )
    summary: dict[str, object] = {
        "method": row.label,
        "requires_svd": kind.needs_svd,
        "requires_network_gradient": kind.needs_network_gradient,
    }
    summary |= {name: int(metrics[name].max()) for name in _WORK}
    for measure in MEASURES:
        summary |= {measure: metrics[measure].mean(), f"{measure}_se": metrics[measure].sem()}
    return summary | {"images": len(metrics)}


_HEADINGS = {
    "markdown": ("method", "SVD", "∇ε", "grad evals ↓", "net evals ↓", "MSE ↓", "SSIM ↑"),
    "latex": (
        "method",
        "SVD",
        r"$\nabla_x \epsilon_\theta$",
        r"grad evals $\downarrow$",
        r"net evals $\downarrow$",
        r"MSE $\downarrow$",
        r"SSIM $\uparrow$",
    ),
}


def to_markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown, the best MSE and SSIM in bold."""
    escaped = table.assign(method=[label.replace("|", r"\|") for label in table["method"]])
    lines = _lines(escaped, _HEADINGS["markdown"], "**{}**", "±")
    return f"{_markdown(lines)}\n{_images(table)}\n"


def to_html(table: pd.DataFrame, title: str = "Table 1") -> str:
    """Return the table as a page of HTML, the best MSE and SSIM in bold."""
    lines = _lines(table, _HEADINGS["markdown"], Markup("<b>{}</b>"), "±")
    return _page(lines, title, _images(table))


def to_latex(table: pd.DataFrame) -> str:
    """Return the table as a LaTeX tabular (booktabs), the best MSE and SSIM in bold."""
    escaped = table.assign(method=[_escape(label) for label in table["method"]])
    head, *body = _lines(escaped, _HEADINGS["latex"], r"\textbf{{{}}}", r"$\pm$")
    rows = [" & ".join(cells) + r" \\" for cells in [head, *body]]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{lccrrll{'r' * (len(head) - 7)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _lines(
    table: pd.DataFrame, head: Sequence[str], bold: str, plus_minus: str
) -> list[tuple[str, ...]]:
    # A mean over fewer images is not to be compared with the others.
    whole = table[table["images"] == table["images"].max()]
    best_mse, best_ssim = whole["mse"].idxmin(), whole["ssim"].idxmax()
    differ = len(whole) < len(table)
    lines = [(*head, "images") if differ else tuple(head)]
    for at, row in table.iterrows():
        mse = f"{row['mse']:.4f} {plus_minus} {row['mse_se']:.4f}"
        ssim = f"{row['ssim']:.3f} {plus_minus} {row['ssim_se']:.3f}"
        cells = (
            str(row["method"]),
            "yes" if row["requires_svd"] else "no",
            "yes" if row["requires_network_gradient"] else "no",
            # The paper's N/A: a method whose data step is not a gradient.
            str(row["gradient_evals"]) if row["gradient_evals"] else "–",
            str(row["network_evals"]),
            bold.format(mse) if at == best_mse else mse,
            bold.format(ssim) if at == best_ssim else ssim,
        )
        lines.append((*cells, str(row["images"])) if differ else cells)
    return lines


def _images(table: pd.DataFrame) -> str:
    fewer = "" if table["images"].nunique() == 1 else " unless the last column says fewer"
    return f"{table['images'].max()} test images{fewer}; mean ± standard error."


def selected(choices: Mapping[str, Choice]) -> pd.DataFrame:
    """List the settings that sweeps have decided.

    Parameters
    ----------
    choices : mapping
        What `ddgm.selection.select` returned for each row of Table 1, by the row's name.

    Returns
    -------
    DataFrame
        One row an entry of `choices`: row, the fields of `Choice`, its settings in words.
    """
    return pd.DataFrame(
        [
            {"row": name, **vars(choice), "settings": describe(choice.settings)}
            for name, choice in choices.items()
        ]
    )


def selected_to_markdown(table: pd.DataFrame) -> str:
    """Return what `selected` returned as Markdown."""
    return _markdown(_selected(table))


def selected_to_html(table: pd.DataFrame) -> str:
    """Return what `selected` returned as a page of HTML."""
    return _page(_selected(table), "Settings that the sweeps choose")


def _selected(table: pd.DataFrame) -> list[tuple[str, ...]]:
    head = ("row", "sweep", "settings", "net evals", "validation MSE", "images", "points")
    lines = [
        (
            str(row["row"]),
            str(row["sweep"]),
            str(row["settings"]),
            str(row["network_evals"]),
            f"{row['mse']:.4f} ± {row['mse_se']:.4f}",
            str(row["images"]),
            str(row["points"]),
        )
        for _, row in table.iterrows()
    ]
    return [head, *lines]


def blind_choices(choices: Mapping[str, Sequence[BlindChoice]]) -> pd.DataFrame:
    """List the settings chosen without the truth beside the best ones.

    Parameters
    ----------
    choices : mapping
        What `ddgm.blind.judge` returned for each sweep, by the sweep's name.

    Returns
    -------
    DataFrame
        One row a sweep and rule: sweep, the fields of `BlindChoice` with settings in words, and
        excess, the MSE above that of the best settings, relative to it.
    """
    return pd.DataFrame(
        [
            {
                "sweep": name,
                **vars(choice),
                "settings": describe(json.loads(choice.settings)),
                "best_settings": describe(json.loads(choice.best_settings)),
                "excess": choice.mse / choice.best_mse - 1,
            }
            for name, rules in choices.items()
            for choice in rules
        ]
    )


def blind_choices_to_markdown(table: pd.DataFrame, estimated: float, true: float) -> str:
    """Return what `blind_choices` returned as Markdown, with σ_y as estimated and as it is."""
    return f"{_markdown(_blind_choices(table))}\n{_noise(estimated, true)}\n"


def blind_choices_to_html(table: pd.DataFrame, estimated: float, true: float) -> str:
    """Return the same as a page of HTML."""
    title = "Settings chosen without the truth"
    return _page(_blind_choices(table), title, _noise(estimated, true))


def _noise(estimated: float, true: float) -> str:
    return f"σ_y estimated from the tilt views: {estimated:.3f}; simulated with {true:g}."


def _blind_choices(table: pd.DataFrame) -> list[tuple[str, ...]]:
    head = ("sweep", "rule", "settings", "MSE", "best settings", "their MSE", "excess")
    lines = [
        (
            str(row["sweep"]),
            str(row["rule"]),
            str(row["settings"]),
            f"{row['mse']:.4f}",
            str(row["best_settings"]),
            f"{row['best_mse']:.4f}",
            f"{row['excess']:.1%}",
        )
        for _, row in table.iterrows()
    ]
    return [head, *lines]


def uncertainty(calibrations: Mapping[str, Calibration]) -> pd.DataFrame:
    """Summarise what the spread of runs says of their error, one row a method.

    Parameters
    ----------
    calibrations : mapping
        What `ddgm.calibration.calibrate` returned for each method, by its label.

    Returns
    -------
    DataFrame
        Columns method; those of `Calibration.summary`; share_1, share_2 and their standard errors,
        as they are and with the ending _recalibrated; expected_1 and expected_2, those of Student's
        t; mse_<runs> and mse_limit with standard errors over images.
    """
    return pd.DataFrame(
        [
            {"method": label, **each.summary, **_shares(each.shares), **_errors(each.means)}
            for label, each in calibrations.items()
        ]
    )


def _shares(shares: pd.DataFrame) -> dict[str, float]:
    found: dict[str, float] = {}
    for _, row in shares[shares["deviations"].isin([1, 2])].iterrows():
        name = f"share_{row['deviations']:g}"
        ending = "_recalibrated" if row["recalibrated"] else ""
        found |= {name + ending: row["share"], f"{name}_se{ending}": row["share_se"]}
        found[f"expected_{row['deviations']:g}"] = row["expected"]
    return found


def _errors(means: pd.DataFrame) -> dict[str, float]:
    found: dict[str, float] = {}
    for count in means["samples"].unique():
        name = f"mse_{count:g}" if math.isfinite(count) else "mse_limit"
        mse = means.loc[means["samples"] == count, "mse"]
        found |= {name: mse.mean(), f"{name}_se": mse.sem()}
    return found


_SPREAD_NOTE = (
    "Factors are those of validation images; mean ± standard error over test images; expected are "
    "the shares of a truth that is one more run; MSE for ∞ runs is extrapolated."
)


def uncertainty_to_markdown(calibrations: Mapping[str, Calibration]) -> str:
    """Return what `uncertainty` returns as two Markdown tables, of the spread and of the means."""
    spread, means = (
        _markdown([[cell.replace("|", r"\|") for cell in line] for line in lines])
        for lines in (_spread(calibrations), _means(calibrations))
    )
    return f"{spread}\n{means}\n{_SPREAD_NOTE}\n"


def uncertainty_to_html(calibrations: Mapping[str, Calibration]) -> str:
    """Return the same as a page of HTML."""
    tables = {}
    for heading, lines in (
        ("Deviation and error", _spread(calibrations)),
        ("Error of the mean of several runs", _means(calibrations)),
    ):
        tables[heading] = pd.DataFrame(lines[1:], columns=list(lines[0]), dtype=object)
    return page_of_tables(tables, "Uncertainty", _SPREAD_NOTE)


def _spread(calibrations: Mapping[str, Calibration]) -> list[tuple[str, ...]]:
    table = uncertainty(calibrations)
    head = ("method", "images", "runs", "RMS error", "predicted", "error / predicted")
    spread: list[tuple[str, ...]] = [(*head, "correlation", "within 1", "within 2", "expected")]
    for _, row in table.iterrows():
        label = str(row["method"])
        for times, ending in ((1.0, ""), (row["factor"], "_recalibrated")):
            shares = [
                f"{row[f'share_{k}{ending}']:.1%} ± {row[f'share_{k}_se{ending}']:.1%}"
                for k in (1, 2)
            ]
            spread.append(
                (
                    f"{label}, deviation × {times:.2f}" if ending else label,
                    f"{row['images']:g}",
                    f"{row['samples']:g}",
                    f"{row['rms_error']:.3f}",
                    f"{times * row['rms_predicted']:.3f}",
                    f"{row['dispersion'] / times:.2f} ± {row['dispersion_se'] / times:.2f}",
                    f"{row['correlation']:.2f} ± {row['correlation_se']:.2f}",
                    *shares,
                    f"{row['expected_1']:.1%}, {row['expected_2']:.1%}",
                )
            )
    return spread


def _means(calibrations: Mapping[str, Calibration]) -> list[tuple[str, ...]]:
    counts = sorted({count for each in calibrations.values() for count in each.means["samples"]})
    means: list[tuple[str, ...]] = [
        ("MSE of the mean of", *(f"{count:g}" if count < math.inf else "∞" for count in counts))
    ]
    for label, each in calibrations.items():
        cells = [label]
        for count in counts:
            mse = each.means.loc[each.means["samples"] == count, "mse"]
            cells.append(f"{mse.mean():.4f} ± {mse.sem():.4f}" if len(mse) else "–")
        means.append(tuple(cells))
    return means


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [lines[0], rule, *lines[1:]])


def _page(lines: Sequence[Sequence[str]], title: str, note: str = "") -> str:
    head, *body = lines
    # Text as such, lest pandas forget what is HTML already.
    return page_of_tables({"": pd.DataFrame(body, columns=list(head), dtype=object)}, title, note)


_LATEX = str.maketrans(
    {letter: "\\" + letter for letter in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _escape(text: str) -> str:
    return text.translate(_LATEX)
