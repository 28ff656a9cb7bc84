"""Figures of comparisons and cards: dots with intervals beside floors; curves over a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nlakit.evaluate.compare import CONTENT
from nlakit.publish.layer_figure import CHOSEN, INK, PAPER, RULE
from nlakit.publish.report.figures import BLUE, COLOURS, GREY, LINES, MARKERS, series
from nlakit.publish.report.numbers import finite
from nlakit.run.folder import atomic_path

# Held-out measures of a training, a panel each: key in metrics.jsonl → legend.
CURVES = {
    "FVE": {"fve_real": "own text", "fve_empty": "empty text", "fve_other": "another row's text"},
    "centred cosine": {
        "centred_real": "own text",
        "centred_empty": "empty text",
        "centred_other": "another row's text",
    },
    "gap on labels, nats a token": {"gap_nats": "gap"},
}


@dataclass(frozen=True)
class Dot:
    """One estimate: a claim in colour, a floor in grey."""

    name: str
    found: Mapping[str, Any]
    floor: bool = False


def draw_dots(title: str, dots: Sequence[Dot], target: Path) -> None:
    """A row a dot with its 95% interval, as PNG. The same numbers give the same bytes."""
    with matplotlib.rc_context(PAPER):
        figure = Figure(figsize=(6.4, 0.9 + 0.27 * len(dots)), layout="constrained")
        axes = figure.subplots()
        _paper(axes)
        for place, dot in enumerate(dots):
            mean, colour = dot.found["mean"], GREY if dot.floor else BLUE
            reach = [[mean - dot.found["low"]], [dot.found["high"] - mean]] if _has(dot) else None
            axes.errorbar([mean], [place], xerr=reach, fmt="o", color=colour, markersize=4.5,
                          capsize=2.5, elinewidth=1.2)  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.7)
        axes.set_yticks(range(len(dots)), [dot.name for dot in dots])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(dots) - 0.4, -0.6)
        axes.set_title(title)
        _save(figure, target)


def draw_trajectory(
    stages: Mapping[str, Sequence[Mapping[str, Any]]],
    best: Mapping[str, Mapping[str, Any] | None],
    target: Path,
) -> None:
    """A column a stage, a panel a held-out measure over the steps, its floors beside it; the best
    step by content is marked."""
    panels = {
        stage: [name for name, keys in CURVES.items() if any(series(records, k)[0] for k in keys)]
        for stage, records in stages.items()
    }
    high = max(len(names) for names in panels.values())
    with matplotlib.rc_context(PAPER):
        size = (3.6 * len(stages), 0.4 + 2.3 * high)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(high, len(stages), squeeze=False)
        for column, (stage, records) in enumerate(stages.items()):
            for row in range(high):
                axes = grid[row, column]
                if row >= len(panels[stage]):
                    axes.set_axis_off()
                    continue
                name = panels[stage][row]
                _curves(axes, records, CURVES[name], best[stage])
                axes.set_title(f"{stage}: {name}, held out")
        _save(figure, target)


def _curves(
    axes: Axes,
    records: Sequence[Mapping[str, Any]],
    keys: Mapping[str, str],
    best: Mapping[str, Any] | None,
) -> None:
    _paper(axes)
    axes.axhline(0, color=INK, linewidth=0.7)
    if best and best["measure"] in keys and best["measure"] in CONTENT:
        axes.axvline(best["step"], color=CHOSEN, linewidth=5, alpha=0.3,
                     label=f"best, step {best['step']}")  # fmt: skip
    for place, (key, label) in enumerate(keys.items()):
        axes.plot(*series(records, key), color=COLOURS[0] if not place else GREY, label=label,
                  linestyle=LINES[place], marker=MARKERS[place], markersize=3.2)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("step")
    axes.legend(loc="best", handlelength=1.6, labelspacing=0.25)


def _has(dot: Dot) -> bool:
    """Whether the interval is bounded: over one document it is not."""
    return all(finite(dot.found[side]) for side in ("low", "high"))


def _paper(axes: Axes) -> None:
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)


def _save(figure: Figure, target: Path) -> None:
    nothing: dict[str, Any] = {"Software": None}
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor="white", metadata=nothing)
