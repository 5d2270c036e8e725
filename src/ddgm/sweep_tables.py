"""Sweeps as tables: one row a point of the grid, and which points are computed in one job.

Loads without PyTorch and pandas, since every job of the workflow reads the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddgm.errors import DdgmError

GRIDS = ("coarse", "medium", "full")
GRID_COLUMN = "grid"
JOBS = ("point", "line", "sweep")

Value = bool | int | float


@dataclass(frozen=True)
class Point:
    """A point of a sweep's grid.

    Attributes
    ----------
    text : mapping
        The cells of the swept parameters, in the order of the columns.
    values : mapping
        What they mean.
    line : int
        Line of the table, from 1.
    """

    text: Mapping[str, str]
    values: Mapping[str, Value]
    line: int


@dataclass(frozen=True)
class Sweep:
    """Points of a grid, with what they have in common.

    Attributes
    ----------
    table : Path
        Where the points come from.
    method : str
        Name in `ddgm.methods.METHODS`.
    base : mapping
        Settings that hold where the table has none.
    images : int or None
        Evaluate on so many images, the first ones; on all if None.
    points : tuple of Point
        In the order of the table.
    """

    table: Path
    method: str
    base: Mapping[str, Any]
    images: int | None
    points: tuple[Point, ...]

    @property
    def parameters(self) -> list[str]:
        """Names of the swept parameters."""
        return list(self.points[0].values)

    def settings(self, point: Point) -> dict[str, Any]:
        """Return all settings at a point."""
        return {**self.base, **point.values}


def read_table(path: Path | str, grid: str = "full") -> list[Point]:
    """Read the points of a sweep.

    The table has tab-separated columns, one a parameter; the first is the abscissa of the figure,
    the second tells its lines apart, the third its rows of panels. Empty lines and those that begin
    with # do not count. An optional column `grid` says in which grids a point is: "coarse" is in
    all, "medium" in the medium and the full one, "full" in the full one alone; an empty cell stands
    for "coarse".

    Parameters
    ----------
    path : path-like
        The table.
    grid : str
        One of `GRIDS`.

    Returns
    -------
    list of Point
        In the order of the rows.

    Raises
    ------
    DdgmError
        If the table cannot be read, a cell is no number and neither true nor false, a point is
        there twice, or the grid has none; the message names file and line.
    """
    lines = _lines(path)
    if not lines:
        raise DdgmError(f"{path}: the table is empty; its first line names the parameters")
    (_, header), *rows = lines
    columns = [name for name in header if name != GRID_COLUMN]
    if not columns or len(set(header)) < len(header) or not all(map(_is_name, columns)):
        raise DdgmError(
            f"{path}: the first line is {' '.join(header)!r}; it names each parameter once, with "
            "tabs between them"
        )
    points: list[Point] = []
    chosen: list[Point] = []
    for line, cells in rows:
        where = f"{path}, line {line}"
        if header[-1] == GRID_COLUMN and len(cells) == len(header) - 1:
            cells = [*cells, ""]  # editors take a tab at the end away
        if len(cells) != len(header):
            raise DdgmError(
                f"{where}: {len(cells)} values between tabs; the first line has {len(header)}"
            )
        row = dict(zip(header, cells, strict=True))
        coarsest = row.pop(GRID_COLUMN, "") or GRIDS[0]
        if coarsest not in GRIDS:
            raise DdgmError(f"{where}: grid = {coarsest!r}; it takes {', '.join(GRIDS)}")
        values = {name: _value(text, name, where) for name, text in row.items()}
        twin = next((point for point in points if point.values == values), None)
        if twin is not None:
            raise DdgmError(f"{where}: {describe(values)} is on line {twin.line} already")
        points.append(Point(row, values, line))
        if GRIDS.index(coarsest) <= GRIDS.index(grid):
            chosen.append(points[-1])
    if not chosen:
        raise DdgmError(f"{path}: no point is in the {grid} grid")
    return chosen


def group_points(points: Sequence[Point], by: str) -> dict[str, list[Point]]:
    """Divide the points of a sweep among jobs.

    Which job a point belongs to depends on its own values alone, so that a row more, wherever it is
    put, concerns one job.

    Parameters
    ----------
    points : sequence of Point
        In the order of the table.
    by : str
        One of `JOBS`: each "point" by itself; each "line" of the figure, points that differ in the
        first parameter alone; or the whole "sweep".

    Returns
    -------
    dict
        Points of each job by its name, in the order of the table.
    """
    jobs: dict[str, list[Point]] = {}
    for point in points:
        texts = {"point": point.text, "line": dict([*point.text.items()][1:]), "sweep": {}}[by]
        jobs.setdefault(_name(texts) or "all", []).append(point)
    return jobs


def _name(texts: Mapping[str, str]) -> str:
    # No comma: Snakemake divides wildcards at commas when it hands a job to a cluster.
    return "_".join(f"{name}={text}" for name, text in texts.items())


def describe(values: Mapping[str, Any]) -> str:
    """Put settings into words, such as "K = 25, sigma_1 = 3"."""
    return ", ".join(f"{name} = {_shown(value)}" for name, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lines(path: Path | str) -> list[tuple[int, list[str]]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DdgmError(f"{path}: the table of a sweep cannot be read ({error})") from error
    return [
        (number, [cell.strip() for cell in line.split("\t")])
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) is not None


def _value(text: str, name: str, where: str) -> Value:
    """Read a cell; its text becomes part of a file's name, so that only plain ones will do."""
    if re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?|true|false", text) is None:
        raise DdgmError(
            f"{where}: {name} = {text!r} is not allowed; plain decimal numbers (3, 0.05), true and "
            "false are"
        )
    if text in ("true", "false"):
        return text == "true"
    return float(text) if "." in text else int(text)
