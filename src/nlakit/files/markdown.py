"""Cards in Markdown from templates, and text in Markdown that is read back as it was."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

# What Markdown (CommonMark with GitHub's tables) takes for markup where it stands.
MARKUP = re.compile(
    r"""[\\`*~|]                              # anywhere
    | <(?=[A-Za-z/!?]) | &(?=\#?[A-Za-z0-9]+;)  # what begins a tag, or a reference
    | \](?=[(\[])                             # the end of a link's text
    | \#(?=\#*$)                              # what closes a heading
    | (?<![^\W_])_+ | _+(?![^\W_])            # emphasis, but not inside a word""",
    re.VERBOSE,
)
# What begins a heading, quotation, list, line or link definition at the start of a line.
START = re.compile(r"(?:[-+](?=[\s-]|$)|[#>=\[]|\d+[.)](?=\s|$))")


def environment(folder: Path) -> Environment:
    """Templates of a folder, with the filters `cell`, `code` and `fenced`."""
    made = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: what would be taken for markup is escaped by the filters
    )
    made.filters |= {"cell": cell, "code": code, "fenced": fenced}
    return made


def cell(value: object) -> str:
    """Text as one cell of a table, or one line of a heading or list, that Markdown shows as it is.

    What is invisible (line ends, tabs, controls, spaces at the ends or beside others) stands as a
    character reference. Only NUL, which Markdown does not allow, is shown as its replacement.
    """
    text = MARKUP.sub(lambda found: "".join("\\" + one for one in found[0]), str(value))
    if found := START.match(text):
        text = f"{found[0][:-1]}\\{text[found.end() - 1 :]}"
    shown = re.sub(r"^ | $|(?<= ) ", "&#32;", text)
    return "".join(one if one.isprintable() else f"&#{ord(one)};" for one in shown)


def code(value: object) -> str:
    """A name as code, unless it holds what code in a table cannot show: then as `cell`."""
    text = str(value)
    plain = text.isprintable() and text == text.strip() and not set("`|\\") & set(text) and text
    return f"`{text}`" if plain else cell(text)


def fenced(text: str, language: str = "text") -> str:
    """Text as it came, in a fence that nothing in it can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
