"""Draw what `nlakit explain demo TEXT` prints, as docs/explanation.svg.

python scripts/record_explanation.py
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rich.console import Console

from nlakit.cli.tables import table_of
from nlakit.models.nla import NLA

TEXTS = {
    "The captain ordered the crew to lower the boats, and the old sailor began to": [7, 13, 16],
    "Preheat the oven, then fold the egg whites gently into the": [-1],
}
TARGET = Path("docs/explanation.svg")
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    console = Console(record=True, width=80, highlight=False, force_terminal=True)
    nla = NLA.load("demo")
    for text, positions in TEXTS.items():
        at = "".join(f" --position {position}" for position in positions if position != -1)
        console.print(f'[bold]$ nlakit explain demo "{text}"{at}[/bold]')
        console.print(table_of(nla.explain(text, positions).as_dicts()))
    # Fonts would be fetched from elsewhere: the reader's own will do.
    TARGET.write_text(FONTS.sub("", console.export_svg(title="nlakit")), encoding="utf-8")


if __name__ == "__main__":
    main()
