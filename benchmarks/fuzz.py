"""The command line under 2,000 odd calls: how each command ends, and whether any is a traceback.

python benchmarks/fuzz.py [--cases 2000] [--first 0] [--out docs/results/fuzz.md]

A case is made by its number alone: a line of the documents, with words, options and files gone
wrong (`tests/fuzz/cases.py`), run in this process over toy models. `make test` runs the first 100.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from nlakit.errors import ExitCode
from nlakit.run.folder import git_commit, library_versions
from tests import labelserver, toyplace
from tests.fuzz.cases import Case, fill_odd, run_case, safe

CODES = tuple(ExitCode)


def run(first: int, count: int) -> list[Case]:
    with tempfile.TemporaryDirectory(prefix="nlakit-fuzz-") as scratch:
        root = Path(scratch)
        embedded = toyplace.toy_model(root / "embedded", toyplace.EMBEDDED_BLOCKS)
        (root / "place").mkdir()
        with labelserver.running() as (url, _):
            master = toyplace.build(root / "place", url)
            fill_odd(master)
            with safe(embedded):
                return [run_case(seed, master, root) for seed in range(first, first + count)]


def lines_of(cases: list[Case], first: int, seconds: float) -> list[str]:
    ends = Counter((case.words[0], case.said.code) for case in cases if not case.said.crash)
    crashes = Counter(case.words[0] for case in cases if case.said.crash)
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    lines = [
        "# Odd calls of the command line",
        "",
        f"- command: `python benchmarks/fuzz.py --cases {len(cases)} --first {first}`",
        f"- commit: {git_commit()}; {seconds:.0f} s; {versions}",
        f"- {sum(bool(case.problem) for case in cases)} cases against the rule: no traceback, exit"
        f" codes {', '.join(str(int(code)) for code in CODES)}, and one line where the code is 2",
        "",
        f"| command | {' | '.join(f'{int(c)} {c.name.lower()}' for c in CODES)} | traceback |",
        f"|---|{'---|' * (len(CODES) + 1)}",
    ]
    for name in sorted({case.words[0] for case in cases}):
        cells = [str(ends[name, code] or "") for code in CODES]
        lines.append(f"| {name} | {' | '.join(cells)} | {crashes[name] or ''} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--out", type=Path, help="write the table here")
    given = parser.parse_args()
    torch.set_num_threads(1)  # the models are so small that threads would wait for each other
    started = time.monotonic()
    cases = run(given.first, given.cases)
    text = "\n".join(lines_of(cases, given.first, time.monotonic() - started)) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    against = [case for case in cases if case.problem]
    for case in against:
        print(f"{case}\n{case.problem}", file=sys.stderr)
    sys.exit(bool(against))


if __name__ == "__main__":
    main()
