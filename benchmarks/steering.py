"""Does the subject follow an edited explanation? Contexts from held-out rows, edits by rule.

python benchmarks/steering.py --out docs/results/steering.md
python benchmarks/steering.py --pair runs/demo --rows runs/demo/05_tables/test.parquet

30 contexts (the first row of a document each), three edits each of the pair's own explanation,
10 random directions and 4 of other documents' edits beside each. `--json` keeps the records of
finished edits, and the same call goes on after them.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nlakit.core.shown import span
from nlakit.files.places import quoted
from nlakit.files.rows import rows_of_file
from nlakit.files.text import as_json, read_jsonl
from nlakit.models.nla import NLA
from nlakit.models.steering.record import Asked
from nlakit.run.folder import git_commit
from nlakit.studies.steering import KINDS, Edit, measure, ruled_edits, summarise

BOX_ROWS = Path(__file__).parents[1] / "src/nlakit/box/rows/test.parquet"
SPARE = 2  # contexts that are explained for each that is used: some allow no edit
MEANING = {
    "word": "the content word that the explanation says most often → that of another document's",
    "topic": "each content word of its first sentence → those of the other's first sentence",
    "next": "its guess at what comes next → the other's first guess that is one word",
}
RULE = """An edit succeeds if the words that it brings in are likelier than without steering, and
likelier than along every random direction of the same size. Likelier: log p of the words' first
tokens in nats, mean over words and over the next places of the subject's own unsteered
continuation. `over`: the same figure less that without steering (also at the next token alone), of
random directions, of other documents' edits. The last two columns: what the push does to log p of
that continuation itself, in nats a token. Where a random push does more harm than an edit's, it
lowers every word, and success over it is cheap: there, `over other edits` is the column to read."""
COLUMNS = {
    "success": "success", "rise": "over unsteered", "next_rise": "the same, next token",
    "gain": "over random",
    "other_gain": "over other edits", "cost": "own continuation",
    "random_cost": "the same, random",
}  # fmt: skip


def contexts(nla: NLA, rows: Path, count: int, seed: int) -> list[Edit]:
    """Edits of the pair's own explanations of the first row of each document."""
    table = rows_of_file(rows)
    firsts = {doc: at for at, doc in reversed([*enumerate(table.doc_ids)])}
    used = table.take(sorted(firsts.values())[: count * SPARE])
    assert nla.av is not None
    said = nla.av.explain(used.vectors)
    return ruled_edits(used.sources, said, used.doc_ids, count, seed)


def measured(nla: NLA, chosen: argparse.Namespace, asked: Asked) -> list[dict[str, Any]]:
    """Records of all edits; those of a former call are read from its file."""
    edits, kept = contexts(nla, chosen.rows, chosen.contexts, asked.seed), Path(chosen.json)
    records = [one for _, one in read_jsonl(kept)] if kept.exists() else []
    done = {(one["document"], one["kind"]) for one in records}
    begun = time.time()
    with kept.open("a", encoding="utf-8") as handle:
        for new in measure(nla, edits, asked, chosen.at, chosen.others, done):
            handle.write("".join(as_json(one) + "\n" for one in new))
            handle.flush()
            records += new
            print(new[0]["document"], new[0]["kind"], f"{time.time() - begun:.0f} s", flush=True)
    return records


def lines_of(records: list[dict[str, Any]], chosen: argparse.Namespace) -> list[str]:
    """The record as Markdown."""
    documents = {one["document"] for one in records}
    edits = {(one["document"], one["kind"]) for one in records}
    command = " ".join(["python benchmarks/steering.py", *map(quoted, sys.argv[1:])])
    lines = [
        "# Steering by words",
        "",
        f"- command: `{command}`",
        f"- date: {datetime.now(UTC):%Y-%m-%d}; commit: {git_commit()};"
        f" machine: {os.cpu_count()} CPU cores ({platform.machine()})",
        f"- pair: {chosen.pair}; {len(documents)} contexts, {len(edits)} edits; steered:"
        f" {chosen.at}; seed {chosen.seed}",
        f"- {chosen.random} random directions and {chosen.others} of other documents' edits of the"
        f" same kind beside each; window {chosen.window}; 95% intervals over documents",
        "",
        *RULE.split("\n"),
        "",
        *(f"- `{kind}`: {MEANING[kind]}" for kind in KINDS),
        "",
        "| edits | α | n | chance | " + " | ".join(COLUMNS.values()) + " |",
        "|---|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for one in summarise(records):
        cells = " | ".join(span(one[name]) if one[name] else "" for name in COLUMNS)
        lines.append(
            f"| {one['kind']} | {one['alpha']:g} | {one['heard']} | {one['chance']:.3f} | {cells} |"
        )
    lines += ["", "The first edit of each kind:", ""]
    for kind in KINDS:
        first = next(one for one in records if one["kind"] == kind)
        lines += [f"- `{kind}`: {first['original']} → {first['edited']} (words: "
                  f"{', '.join(first['words']) or 'none'})"]  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", default="demo")
    parser.add_argument("--rows", type=Path, default=BOX_ROWS)
    parser.add_argument("--contexts", type=int, default=30)
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.05, 0.1, 0.25, 0.5])
    parser.add_argument("--at", choices=("last", "all"), default="last")
    parser.add_argument("--random", type=int, default=10)
    parser.add_argument("--others", type=int, default=4)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default="steering.jsonl", help="records of finished edits")
    parser.add_argument("--table", action="store_true", help="the records as they are, and stop")
    parser.add_argument("--out", type=Path, help="the record (.md)")
    chosen = parser.parse_args()
    asked = Asked(tuple(chosen.alphas), chosen.random, chosen.seed, chosen.window, new_tokens=0)
    if chosen.table:
        records = [one for _, one in read_jsonl(Path(chosen.json))]
    else:
        records = measured(NLA.load(chosen.pair), chosen, asked)
    text = "\n".join(lines_of(records, chosen)) + "\n"
    print(text)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
