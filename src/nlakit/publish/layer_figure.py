"""The plot of a layer survey: a panel a measure over the layers, with floors and intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from nlakit.publish.report.figures import BLUE, GREY, ORANGE, STYLE

INK, RULE = "#333a41", "#d9dde1"
PAPER: dict[Any, Any] = {
    **STYLE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 8.5,
    "legend.fontsize": 7.5,
}
CHOSEN = "#3c9a6c"
Report = Mapping[str, Any]
Record = Mapping[str, Any]


def draw(report: Report, target: Path) -> None:
    """Write the PNG of what `nlakit.studies.layers.survey` returns."""
    with matplotlib.rc_context(PAPER):
        figure = Figure(figsize=(11.5, 6.0), layout="constrained")
        grid = figure.subplots(2, 4, sharex=True)
        for axes, panel in zip(grid.flat, PANELS, strict=True):
            axes.grid(color=RULE, linewidth=0.5)
            axes.set_axisbelow(True)
            _mark(axes, report["recommendation"])
            panel(axes, report["layers"])
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best", handlelength=1.4, handletextpad=0.4, labelspacing=0.25)
        for axes in grid[-1]:
            axes.set_xlabel("layer")
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        figure.suptitle(_title(report), x=0.01, ha="left", fontsize=10.5)
        figure.savefig(target, format="png", dpi=150, facecolor="white")


def _title(report: Report) -> str:
    advice = report["recommendation"]
    chosen = (
        "no layer recommended"
        if advice["layer"] is None
        else f"recommended: layer {advice['layer']}"
    )
    return (
        f"{report['model']}, {report['blocks']} layers, held-out documents, 95% bands — {chosen} "
        f"(green; two thirds of the depth, layer {advice['two_thirds']}, dotted)"
    )


def _mark(axes: Axes, advice: Mapping[str, Any]) -> None:
    axes.axvline(advice["two_thirds"], color=INK, linewidth=1.0, linestyle=":")
    if advice["layer"] is not None:
        axes.axvline(advice["layer"], color=CHOSEN, linewidth=5, alpha=0.3)


def _line(
    axes: Axes, records: Sequence[Record], pick: Callable[[Record], Any], label: str, colour: str
) -> None:
    """An estimate over the layers with its band; layers without one leave a gap."""
    layers = [record["layer"] for record in records]
    found = [pick(record) or {} for record in records]
    mean, low, high = (
        np.array([one.get(name, np.nan) for one in found], dtype=float)
        for name in ("mean", "low", "high")
    )
    axes.plot(layers, mean, color=colour, linewidth=1.6, marker="o", markersize=3.2, label=label)
    axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)


def _floor(
    axes: Axes, records: Sequence[Record], pick: Callable[[Record], Any], label: str, style: str
) -> None:
    values = [pick(record) for record in records]
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    layers = [record["layer"] for record in records]
    axes.plot(layers, numbers, color=GREY, linewidth=1.2, linestyle=style, label=label)


def _measured(name: str) -> Callable[[Record], Any]:
    return lambda record: None if "not_measured" in record[name] else record[name]


def _floor_of(name: str, floor: str) -> Callable[[Record], Any]:
    return lambda record: record[name].get("floors", {}).get(floor)


def _ar(condition: str, measure: str) -> Callable[[Record], Any]:
    return lambda record: record["ar"].get("scores", {}).get(condition, {}).get(measure)


def _ar_mean(condition: str, measure: str) -> Callable[[Record], Any]:
    return lambda record: (_ar(condition, measure)(record) or {}).get("mean")


def _mean_share(axes: Axes, records: Sequence[Record]) -> None:
    axes.set_title("energy in the common mean direction")
    _line(axes, records, _measured("mean_share"), "", BLUE)
    _floor(axes, records, _floor_of("mean_share", "isotropic"), "isotropic", "--")
    axes.set_ylim(-0.02, 1.02)


def _norm(axes: Axes, records: Sequence[Record]) -> None:
    axes.set_title("activation norm")
    _line(axes, records, _measured("norm"), "norm", BLUE)
    _floor(axes, records, lambda r: r["norm"]["mean"] / r["norm_to_embedding"], "embedding", "--")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _rank(axes: Axes, records: Sequence[Record]) -> None:
    axes.set_title(f"effective rank (at most {records[0]['effective_rank']['bound']})")
    _line(axes, records, lambda r: {"mean": r["effective_rank"]["value"]}, "", BLUE)
    axes.set_ylim(bottom=0)


def _document(axes: Axes, records: Sequence[Record]) -> None:
    axes.set_title("document found by another position")
    count = records[0]["document_retrieval"].get("candidates")
    if count is None:
        return _absent(axes)
    _line(axes, records, _measured("document_retrieval"), f"top-1 of {count}", BLUE)
    _floor(axes, records, _floor_of("document_retrieval", "shuffled"), "shuffled", "--")
    axes.set_ylim(bottom=0)
    return None


def _family(axes: Axes, records: Sequence[Record]) -> None:
    axes.set_title("family, balanced accuracy")
    count = records[0]["family_probe"].get("classes")
    if count is None:
        return _absent(axes)
    _line(axes, records, _measured("family_probe"), f"linear probe, {count} classes", BLUE)
    _floor(axes, records, _floor_of("family_probe", "guess"), "guess", "--")
    _floor(axes, records, _floor_of("family_probe", "shuffled"), "shuffled", ":")
    axes.set_ylim(bottom=0)
    return None


def _absent(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_yticks([])


def _tokens(axes: Axes, records: Sequence[Record]) -> None:
    count = records[0]["next_token"]["candidates"]
    axes.set_title(f"token read linearly, MRR of {count}")
    _line(axes, records, _measured("next_token"), "next token", BLUE)
    _line(axes, records, _measured("own_token"), "own token", ORANGE)
    _floor(axes, records, _floor_of("next_token", "shuffled"), "next, shuffled", "--")
    _floor(axes, records, _floor_of("own_token", "shuffled"), "own, shuffled", ":")
    axes.set_ylim(bottom=0)


def _scores(measure: str, name: str) -> Callable[[Axes, Sequence[Record]], None]:
    def panel(axes: Axes, records: Sequence[Record]) -> None:
        axes.set_title(f"quick AR: {name}")
        if not any("scores" in record["ar"] for record in records):
            return _absent(axes)
        axes.axhline(0, color=INK, linewidth=0.7)
        _line(axes, records, _ar("real", measure), "its label", BLUE)
        floors = (("mean", "-"), ("empty", "--"), ("gibberish", ":"), ("other_row", "-."))
        for condition, style in floors:
            shown = f"floor: {condition.replace('_', ' ')}"
            _floor(axes, records, _ar_mean(condition, measure), shown, style)
        return None

    return panel


PANELS: tuple[Callable[[Axes, Sequence[Record]], None], ...] = (
    _scores("centred_cosine", "centred cosine"),
    _scores("fve", "FVE"),
    _document,
    _family,
    _tokens,
    _rank,
    _mean_share,
    _norm,
)
