"""Write the descriptions of the installed Python packages as a corpus: text of another kind.

python scripts/package_texts.py texts.jsonl
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import distributions
from pathlib import Path

LEAST, MOST = 800, 2500  # characters of a text


def texts() -> dict[str, str]:
    """Name of a package → the beginning of its description, where that is long enough."""
    found = {}
    for package in distributions():
        said = package.metadata.json.get("description", "")
        if isinstance(said, str) and len(said.strip()) >= LEAST:
            found[package.metadata["Name"]] = said.strip()[:MOST]
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    with parser.parse_args().out.open("w", encoding="utf-8") as file:
        for name, text in texts().items():
            file.write(json.dumps({"id": name, "text": text, "kind": "package"}) + "\n")


if __name__ == "__main__":
    main()
