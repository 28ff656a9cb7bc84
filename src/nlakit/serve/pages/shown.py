"""How things look on the page: templates, numbers, and what a browser may load."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nlakit.publish.report.numbers import interval, num, percent
from nlakit.serve.pages.pairs import LEVELS, Marks

SERVE = Path(__file__).parents[1]
STATIC = SERVE / "static"
# Nothing from elsewhere, no script or style that stands in a page, no frame, no plugin.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without any, a form names no origin and is refused
    "Cache-Control": "no-store",
}
WIDTH = 120  # of a bar, in pixels
TAIL = 110  # characters
LEGEND = (
    "at its floor or below",
    f"up to {LEVELS[0]} over",
    f"{LEVELS[0]} to {LEVELS[1]}",
    f"{LEVELS[1]} to {LEVELS[2]}",
    f"{LEVELS[2]} and more",
)


@cache
def templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(SERVE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "num": num, "percent": percent, "chip": on_chip, "named": named, "said": said, "bar": bar,
        "tail": tail, "average": fmean, "interval": interval,
    }  # fmt: skip
    made.globals |= {"legend": LEGEND, "width": WIDTH}
    return made


def render(template: str, **values: Any) -> str:
    return templates().get_template(f"{template}.html.j2").render(values)


def page(template: str, status: int = 200, events: str = "", **values: Any) -> HTMLResponse:
    """A page or a part of one; `events`: what its arrival is called on the page."""
    headers = HEADERS | ({"HX-Trigger-After-Settle": events} if events else {})
    return HTMLResponse(render(template, **values), status, headers)


def on_chip(token: str) -> str:
    """A token as a chip holds it: what is invisible is drawn."""
    shown = token.replace("\r", "").replace("\n", "↵").replace("\t", "⇥")
    return "␣" * len(shown) if shown.isspace() else shown


def named(token: str) -> str:
    """A token as it is spoken of."""
    return f"“{on_chip(token.strip() or token)}”"


def tail(source: str, token: str) -> str:
    """The end of a source text before its last token, from the beginning of a word."""
    before = source.removesuffix(token).rstrip()
    if len(before) <= TAIL:
        return before
    return f"… {before[-TAIL:].partition(' ')[2] or before[-TAIL:]}"


def said(marks: Marks | None, measure: str) -> str:
    """A score in a line, with its floor."""
    if marks is None:
        return "no reconstructor"
    return f"{measure} {num(marks.value, 2)}, floor {num(marks.floor, 2)}"


def bar(value: float) -> int:
    """Length of the bar of a value; nothing below zero is drawn."""
    return round(WIDTH * min(max(value, 0.0), 1.0))
