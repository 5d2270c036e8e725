"""A page to look at reconstructions: one HTML file that needs neither server nor network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.events import DocumentReady
from bokeh.layouts import column, gridplot, row
from bokeh.models import (
    CheckboxButtonGroup,
    ColorBar,
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    CustomJSTickFormatter,
    Div,
    GlobalInlineStyleSheet,
    InlineStyleSheet,
    LinearColorMapper,
    Metric,
    RadioButtonGroup,
    Range1d,
    ScaleBar,
    Slider,
    Span,
)
from bokeh.plotting import figure
from bokeh.resources import INLINE
from numpy.typing import NDArray

from ddgm.errors import DdgmError

# Okabe and Ito's, told apart by colour-blind readers.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_SIDES = ("left", "right")
_SIDE = 540  # pixels of the screen, of the longer side of a panel


@dataclass(frozen=True)
class Shown:
    """What one method made of the images.

    Attributes
    ----------
    label : str
        What the page calls it.
    images : ndarray
        (count, rows, columns) float32, network units; of the first images, or of all.
    measures : mapping
        Numbers to be shown with an image, (count,) each, by name: MSE, SSIM.
    overlays : mapping
        Maps that can be laid over an image, by name, such as its uncertainty: (count, rows,
        columns) float32 ≥ 0, network units.
    """

    label: str
    images: NDArray[np.float32]
    measures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    overlays: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def viewer(
    truth: NDArray[np.float32], methods: Sequence[Shown], *, voxel_size: float, title: str
) -> str:
    """Return a page with the truth and the methods under one slider.

    Two panels zoom and pan in step. The left one shows what the slider says, and between two
    methods a blend of them or a wipe; the right one the truth or another choice. All images share
    one grey scale, and all maps that are laid over them one scale.

    Parameters
    ----------
    truth : ndarray
        (count, rows, columns) float32, network units.
    methods : sequence of Shown
        In the order of the slider; to the overlays of each its error `|x − truth|` is added.
    voxel_size : float
        Pixel size, nm, for the scale bar.
    title : str
        Of the page.

    Returns
    -------
    str
        HTML; the images in it have 8 bits.

    Raises
    ------
    DdgmError
        If there are no methods, a method's images are not of the truth's size, or two methods share
        a label.
    """
    if not methods:
        raise DdgmError("viewer: there are no methods to show beside the truth")
    shown = [Shown("Truth", truth), *(_with_error(each, truth) for each in methods)]
    labels = [each.label for each in shown]
    if len(set(labels)) < len(labels):
        raise DdgmError(f"viewer: labels must differ; they are {', '.join(labels)}")
    overlays = list(dict.fromkeys(name for each in shown for name in each.overlays))
    low, high = np.percentile(truth, [0.5, 99.5])
    errors = [float(np.percentile(each.overlays["error"], 99)) for each in shown[1:]]
    top = max(errors) or 1.0  # any scale will do for errors that are none
    # One list a kind of picture, of one array a label: what the browser composes panels from.
    stacks = {"grey": [_eight_bits(each.images, low, high) for each in shown]}
    for name in overlays:
        stacks[name] = [_eight_bits(each.overlays.get(name, _NOTHING), 0, top) for each in shown]
    texts = _texts(shown)
    document = _document(truth.shape, labels, texts, stacks, top, voxel_size, title)
    page: str = file_html(document, INLINE, title)
    return page


_NOTHING = np.zeros(0, dtype=np.float32)


def _with_error(shown: Shown, truth: NDArray[np.float32]) -> Shown:
    count = len(shown.images)
    if count > len(truth) or shown.images.shape[1:] != truth.shape[1:]:
        raise DdgmError(
            f"viewer: {shown.label} has images {shown.images.shape}, the truth {truth.shape}"
        )
    error = np.abs(shown.images - truth[:count])
    return Shown(shown.label, shown.images, shown.measures, {"error": error, **shown.overlays})


def _eight_bits(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    eight: NDArray[np.uint8] = (np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5).astype(
        "u1"
    )
    return eight


def _texts(shown: Sequence[Shown]) -> list[list[str]]:
    """Return the measures in words, for each label and image."""
    count = len(shown[0].images)
    return [
        [
            " · ".join(f"{name} {values[image]:.3f}" for name, values in each.measures.items())
            if image < len(each.images)
            else "not reconstructed"
            for image in range(count)
        ]
        for each in shown
    ]


# What the panels show, from the state of the widgets.
_UPDATE = """
const number = image.active, last = labels.length - 1, width = x_range.bounds[1]
const at = Math.round(slider.value * 50) / 50  // whole where the slider's steps of 0.02 are
const shown = flip.active.length ? compared.active : at
const first = Math.floor(shown), share = shown - first, next = Math.min(first + 1, last)
const wiped = mode.active == 1
const fill = (side, from, to, part) => {
  for (const [kind, stack] of Object.entries(stacks)) {
    const target = side.data[kind][0], start = number * target.length
    for (let i = 0; i < target.length; i++) {
      const weight = wiped ? Number(i % columns < part * columns) : part
      target[i] = Math.round((1 - weight) * (stack[from][start + i] ?? 0)
        + weight * (stack[to][start + i] ?? 0))
    }
  }
  side.change.emit()
}
const describe = (label) => {
  const end = (number + 1) * left.data.grey[0].length
  const absent = overlay.labels.filter((name, index) =>
    overlay.active.includes(index) && label > 0 && stacks[name][label].length < end)
  return [labels[label], texts[label][number], ...absent.map((name) => `no ${name}`)].join("   ")
}
fill(left, first, next, share)
fill(right, compared.active, compared.active, 0)
left_title.text = wiped && share > 0
  ? `${labels[next]}  |  ${labels[first]}` : describe(share < 0.5 ? first : next)
right_title.text = describe(compared.active)
method.active = Number.isInteger(at) ? at : null
border.visible = wiped && share > 0
border.location = share * width
veils.forEach((veil, index) => {
  veil.visible = overlay.active.includes(index % overlay.labels.length)
  veil.glyph.global_alpha = opacity.value
})
"""

_KEYS = """
const turn = (group, by) => {
  group.active = Math.max(0, Math.min(group.labels.length - 1, group.active + by))
}
const toggle = (group, index) => {
  group.active = group.active.includes(index)
    ? group.active.filter((each) => each != index) : [...group.active, index]
}
const zoom = (factor) => {
  for (const range of [x_range, y_range]) {
    const middle = (range.start + range.end) / 2, half = (range.end - range.start) / 2 * factor
    const clip = (value) => Math.max(range.bounds[0], Math.min(range.bounds[1], value))
    range.setv({start: clip(middle - half), end: clip(middle + half)})
  }
}
const actions = {
  ArrowRight: () => { slider.value = Math.min(slider.end, Math.floor(slider.value) + 1) },
  ArrowLeft: () => { slider.value = Math.max(0, Math.ceil(slider.value) - 1) },
  ArrowDown: () => turn(image, 1),
  ArrowUp: () => turn(image, -1),
  "+": () => zoom(0.8),
  "=": () => zoom(0.8),
  "-": () => zoom(1.25),
  "0": () => zoom(1e9),
  f: () => toggle(flip, 0),
  w: () => { mode.active = 1 - mode.active },
}
overlay.labels.forEach((name, index) => { actions[name[0]] = () => toggle(overlay, index) })
window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in actions)) return
  actions[event.key]()
  // Before a focused slider takes the key for itself.
  event.preventDefault()
  event.stopPropagation()
}, true)
"""

_SLIDER_TEXT = """
const percents = Math.round(100 * tick), first = Math.floor(percents / 100)
const percent = percents - 100 * first
return percent == 0 ? labels[first] : `${labels[first]} → ${labels[first + 1]}  ${percent} %`
"""

_FOLLOW = "if (method.active != null) slider.value = method.active"

_STYLE = """
body { margin: 1em auto; width: fit-content; font-family: system-ui, sans-serif; color: #222; }
"""

_HEAD = """
<h1 style="font-size: 1.5em; margin: 0">{title}</h1>
<p style="margin: 0.4em 0">Left what the slider says, right the truth or another choice, of the same
place: scroll to zoom, drag to move. Keys: <b>← →</b> method, <b>↑ ↓</b> image, <b>+ −</b> zoom,
<b>0</b> whole image, {overlays}, <b>w</b> blend or wipe, <b>f</b> flip the left to the right image
and back.</p>
"""


def _document(
    shape: tuple[int, ...],
    labels: list[str],
    texts: list[list[str]],
    stacks: dict[str, list[NDArray[np.uint8]]],
    top: float,
    voxel_size: float,
    title: str,
) -> Document:
    count, rows, columns = shape
    overlays = list(stacks)[1:]
    x_range = Range1d(0, columns * voxel_size, bounds=(0, columns * voxel_size), name="x")
    # The first row is at the top.
    y_range = Range1d(rows * voxel_size, 0, bounds=(0, rows * voxel_size), name="y")
    palettes = [[f"{colour}{alpha:02x}" for alpha in range(256)] for colour in _COLOURS]
    colours = dict(zip(overlays, palettes, strict=False))
    panels = {side: _panel(side, shape, list(stacks), colours, x_range, y_range) for side in _SIDES}
    crosshair = CrosshairTool(
        overlay=[Span(dimension=each, line_alpha=0.4) for each in ("width", "height")]
    )
    border = Span(dimension="height", line_color="white", visible=False, name="border")
    scale = ScaleBar(
        range=x_range,
        unit="nm",
        dimensional=Metric(base_unit="m"),
        location="bottom_left",
        background_fill_alpha=0.8,
    )
    for place in (border, scale):
        panels["left"].add_layout(place)
    for panel in panels.values():
        panel.add_tools(crosshair)
    for index, (name, palette) in enumerate(colours.items()):
        bar = ColorBar(
            color_mapper=LinearColorMapper(palette, low=0, high=top),
            title=f"{name}, in standard deviations",
            width=_SIDE // 2,
            height=10,
        )
        panels[_SIDES[index % 2]].add_layout(bar, "below")

    wide: Any = {"width": _SIDE, "margin": (5, 5, 5, 5)}
    wrapped = InlineStyleSheet(css=".bk-btn-group { flex-wrap: wrap }")
    many: Any = {"labels": labels, "stylesheets": [wrapped], **wide}
    method = RadioButtonGroup(active=1, name="method", **many)
    slider = Slider(
        start=0,
        end=len(labels) - 1,
        value=1,
        step=0.02,
        title="",
        format=CustomJSTickFormatter(args={"labels": labels}, code=_SLIDER_TEXT),
        name="slider",
        **wide,
    )
    compared = RadioButtonGroup(active=0, name="compared", **many)
    opacity = Slider(
        start=0, end=1, value=1, step=0.05, title="opacity of error and uncertainty", **wide
    )
    numbers = [str(number) for number in range(1, count + 1)]
    image = RadioButtonGroup(labels=numbers, active=0, name="image")
    overlay = CheckboxButtonGroup(labels=overlays, active=[], name="overlay")
    mode = RadioButtonGroup(labels=["blend", "wipe"], active=0, name="mode")
    flip = CheckboxButtonGroup(labels=["flip"], active=[], name="flip")
    state = {
        "method": method,
        "slider": slider,
        "compared": compared,
        "opacity": opacity,
        "image": image,
        "overlay": overlay,
        "mode": mode,
        "flip": flip,
        "x_range": x_range,
        "y_range": y_range,
    }
    shown = {
        "left": panels["left"].renderers[0].data_source,
        "right": panels["right"].renderers[0].data_source,
        "left_title": panels["left"].title,
        "right_title": panels["right"].title,
        "veils": [veil for panel in panels.values() for veil in panel.renderers[1:]],
        "border": border,
    }
    data = {"stacks": stacks, "labels": labels, "texts": texts, "columns": columns}
    update = CustomJS(args={**state, **shown, **data}, code=_UPDATE)
    for widget in (slider, opacity):
        widget.js_on_change("value", update)
    for widget in (compared, image, overlay, mode, flip):
        widget.js_on_change("active", update)
    method.js_on_change("active", CustomJS(args=state, code=_FOLLOW))

    document = Document(title=title)
    named = ", ".join(f"<b>{name[0]}</b> {name}" for name in overlays)
    document.add_root(
        column(
            Div(text=_HEAD.format(title=escape(title), overlays=named), width=2 * _SIDE),
            row(Div(text="image", align="center"), image, overlay, mode, flip, spacing=16),
            row(column(method, slider), column(compared, opacity)),
            gridplot([list(panels.values())], toolbar_location="right"),
            stylesheets=[GlobalInlineStyleSheet(css=_STYLE)],
        )
    )
    document.js_on_event(DocumentReady, update, CustomJS(args=state, code=_KEYS))
    return document


def _panel(
    side: str,
    shape: tuple[int, ...],
    kinds: Sequence[str],
    colours: Mapping[str, list[str]],
    x_range: Range1d,
    y_range: Range1d,
) -> figure:
    """Return a panel with an image of each kind above each other, all of them black."""
    _, rows, columns = shape
    blank = {kind: [np.zeros((rows, columns), dtype=np.uint8)] for kind in kinds}
    source = ColumnDataSource(blank, name=side)
    panel = figure(
        x_range=x_range,
        y_range=y_range,
        frame_width=_SIDE * columns // max(rows, columns),
        frame_height=_SIDE * rows // max(rows, columns),
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
        title=side,
        name=f"{side}_panel",
    )
    panel.axis.visible = panel.grid.visible = False
    panel.title.text_font_size = "14px"
    for kind in kinds:
        panel.image(
            kind,
            x=0,
            y=0,
            dw=x_range.end,
            dh=y_range.start,
            source=source,
            color_mapper=LinearColorMapper(colours.get(kind, "Greys256"), low=0, high=255),
        )
    return panel
