"""Cards in Markdown from templates."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(folder: Path) -> Environment:
    """Templates of a folder, with the filter `cell`."""
    made = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: what would break a table is escaped by `cell`
    )
    made.filters["cell"] = cell
    return made


def cell(value: object) -> str:
    """Text that cannot end its cell of a Markdown table."""
    return " ".join(str(value).replace("|", "\\|").split())
