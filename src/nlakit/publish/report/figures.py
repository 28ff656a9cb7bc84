"""The report's figures as inline SVG.

Text stays text and takes its colour from the page, so that one figure serves the light and the dark
scheme. Hash salt and metadata are fixed: the same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Stand-ins that the page's own colours replace.
INK, RULE = "#010101", "#020202"
PAGE_COLOURS = {INK: "var(--soft)", RULE: "var(--rule)"}
# Mid tones that keep their contrast on white and on near-black.
BLUE, ORANGE, GREY = "#3f86bd", "#c9752d", "#8b939b"
COLOURS = (BLUE, ORANGE, "#3c9a6c", "#a8679f", "#a08a35", "#5d7fa8", "#c26565", "#6f9b9b")
# One fewer than the colours, so that 56 families stay apart.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
WIDE, NARROW = (4.0, 3.1), (3.2, 4.2)
Estimates = Mapping[str, Any]
Panel = tuple[str, Sequence[tuple[str, Estimates]], Sequence[Estimates | None]]


def histogram(real: Sequence[float], floor: Sequence[float], floor_name: str) -> Markup | None:
    """Centred cosine of the real explanations over that of the best floor."""
    left, right = _finite(real), _finite(floor)
    if not left.size:
        return None
    both = np.concatenate([left, right])
    edges = np.linspace(min(both.min(), 0.0), max(both.max(), 0.1), 25)
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(WIDE)
        axes.hist(right, edges, color=ORANGE, alpha=0.45, hatch="///", edgecolor=ORANGE,
                  label=f"best floor: {floor_name}")  # fmt: skip
        axes.hist(left, edges, color=BLUE, alpha=0.65, label="the pair")
        axes.set(xlabel="centred cosine", ylabel="rows")
        _legend_above(axes, 1)
        return _svg(figure, "histogram")


def scatter(
    label: Sequence[float], real: Sequence[float], families: Sequence[str]
) -> Markup | None:
    """A point a row: what the label reaches against what the AV's text reaches."""
    x, y = np.asarray(label, dtype=float), np.asarray(real, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None
    names = np.asarray(families)
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(WIDE)
        for place, family in enumerate(sorted(set(names[known].tolist()))):
            chosen = known & (names == family)
            axes.scatter(x[chosen], y[chosen], s=20, alpha=0.75, label=str(family), linewidths=0,
                         color=COLOURS[place % 8], marker=MARKERS[place % 7])  # fmt: skip
        low, high = min(x[known].min(), y[known].min()), max(x[known].max(), y[known].max())
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--")
        axes.set(xlabel="centred cosine, label", ylabel="centred cosine, AV text")
        _legend_above(axes, 3)
        return _svg(figure, "scatter")


def bars(measure: str, entries: Sequence[tuple[str, Estimates, str]]) -> Markup | None:
    """A horizontal bar a condition with its interval; `entries` are name, estimate, colour."""
    known = [e for e in entries if _number(e[1].get("mean")) is not None]
    if not known:
        return None
    means = [float(estimate["mean"]) for _, estimate, _ in known]
    reach = [[_reach(estimate, side) for _, estimate, _ in known] for side in ("low", "high")]
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(WIDE)
        axes.barh(range(len(known)), means, color=[colour for *_, colour in known], height=0.62,
                  alpha=0.8)  # fmt: skip
        axes.errorbar(means, range(len(known)), xerr=reach, fmt="none", ecolor=INK, capsize=2.5,
                      elinewidth=1)  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(known)), [name for name, *_ in known])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlabel(measure)
        return _svg(figure, f"bars {measure}")


def multiples(name: str, panels: Sequence[Panel], axis: str) -> Markup | None:
    """Small multiples with one scale: points in their order with intervals, floors dashed.

    A panel is its title, its points (label and estimate), and a floor a point, None without one.
    """
    if not panels:
        return None
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure, grid = _canvas((0.4 + 2.5 * columns, 2.4 * lines), (lines, columns))
        for axes, (title, entries, floors) in zip(grid.flat, panels, strict=False):
            places = range(len(entries))
            reach = [[_reach(one, side) for _, one in entries] for side in ("low", "high")]
            axes.errorbar(places, [_mean(one) for _, one in entries], yerr=reach, color=BLUE,
                          ecolor=INK, marker="o", markersize=4, capsize=2.5, linewidth=1.6,
                          elinewidth=1)  # fmt: skip
            axes.plot(places, [_mean(one) for one in floors], color=ORANGE, linewidth=1.2,
                      linestyle="--")  # fmt: skip
            axes.set_xticks(places, [label for label, _ in entries])
            axes.set_title(title)
            axes.set_xlabel(axis)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        return _svg(figure, name)


def training(
    name: str, records: Sequence[Mapping[str, Any]], held_out: Mapping[str, str], measure: str
) -> Markup | None:
    """Training loss above, held-out measures below (`held_out`: key in the records → legend)."""
    steps, losses = series(records, "loss")
    if not steps:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(NARROW, 2)
        axes[0].plot(steps, losses, color=BLUE, alpha=0.35, linewidth=0.8)
        axes[0].plot(*running_mean(steps, losses), color=BLUE, linewidth=1.8)
        axes[0].set_title("training loss")
        axes[1].set_title(measure)
        axes[1].axhline(0, color=GREY, linewidth=0.8)
        for place, (key, label) in enumerate(held_out.items()):
            axes[1].plot(*series(records, key), color=COLOURS[place], linestyle=LINES[place],
                         marker=MARKERS[place], markersize=3.5, label=label)  # fmt: skip
        if len(held_out) > 1:
            figure.legend(loc="outside lower left", ncols=3, fontsize=8, handlelength=1.8,
                          handletextpad=0.4, columnspacing=1.0)  # fmt: skip
        axes[1].set_xlabel("step")
        return _svg(figure, f"training {name}")


def curves(
    title: str,
    lines: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    kept: int,
    *,
    points: bool,
) -> Markup | None:
    """Measures over the steps of a training, by legend, and where the pair that is kept was."""
    known = {name: line for name, line in lines.items() if len(line[0])}
    if not known:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(WIDE)
        for place, (name, line) in enumerate(known.items()):
            axes.plot(*line, color=COLOURS[place % 8], linestyle=LINES[place % 3], label=name,
                      marker=MARKERS[place % 7] if points else "", markersize=3.5,
                      linewidth=1.6)  # fmt: skip
        axes.axvline(kept, color=INK, linewidth=1, linestyle=":", label="kept")
        axes.set_xlabel("step")
        _legend_above(axes, 3)
        return _svg(figure, f"curves {title}")


def series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the records that hold a finite `key`."""
    found = [(int(r["step"]), value) for r in records if (value := _number(r.get(key))) is not None]
    return [step for step, _ in found], [value for _, value in found]


def running_mean(steps: Sequence[int], values: Sequence[float]) -> tuple[Sequence[int], Any]:
    """Mean over a window of a tenth of the steps, at the window's middle."""
    width = max(1, len(values) // 10)
    sums = np.cumsum([0.0, *values])
    means = (sums[width:] - sums[:-width]) / width
    return steps[width // 2 :][: len(means)], means


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if number else None


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    return array[np.isfinite(array)]


def _mean(estimate: Estimates | None) -> float:
    """NaN, a gap in a line, where there is none."""
    mean = _number((estimate or {}).get("mean"))
    return math.nan if mean is None else mean


def _reach(estimate: Estimates, side: str) -> float:
    """Length of an error bar; an unbounded interval has none."""
    bound, mean = _number(estimate.get(side)), _number(estimate.get("mean"))
    return 0.0 if bound is None or mean is None else abs(bound - mean)


def _canvas(size: tuple[float, float], panels: int | tuple[int, int] = 1) -> tuple[Figure, Any]:
    """`panels` one below another share their x axis; a grid `(lines, columns)` its y axis."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    if isinstance(panels, tuple):
        axes = figure.subplots(*panels, sharey=True, squeeze=False)
    else:
        axes = figure.subplots(panels, 1, sharex=True)
    for one in np.ravel(axes):
        one.grid(color=RULE, linewidth=0.6, alpha=0.7)
        one.set_axisbelow(True)
        one.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, handletextpad=0.4,
                columnspacing=1.0, borderaxespad=0.2)  # fmt: skip


def _svg(figure: Figure, salt: str) -> Markup:
    """The `<svg>` element alone. Salts keep ids apart between the figures of one page."""
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(target, format="svg", transparent=True, metadata=nothing)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' id="[A-Za-z][.\w]*_\d+"', "", text)
    text = re.sub(r'<style type="text/css">.*?</style>|font-family: [^;]*; ', "", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" ', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*" ', r'<svg \1aria-hidden="true" ', text, count=1)
    for stand_in, colour in PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    return Markup(text)  # matplotlib has escaped every text in it
