"""The command that audits a table of rows that somebody else made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nlakit.core.shown import cut, plain_table, short
from nlakit.errors import ExitCode

console = Console(highlight=False)

NAME = 18  # characters of a measure, a condition or a floor
OWN = ("real", "explanation")
HIDDEN = frozenset({"unique_40", "unique_80", "unique_120", "unique_200", "cjk"})
# Part → the question its measures answer.
QUESTIONS = {
    "collapse": "Do the texts differ?",
    "roundtrip": "How near are the reconstructions, and to what floor?",
    "stored": "The same, as stored in the table",
    "source": "Are the texts about their sources?",
    "token": "Do the texts name the token that was read?",
    "labels": "Labels",
    "split": "Has training seen these rows?",
}


def audit(
    file: Annotated[Path, typer.Argument(metavar="ROWS", help=".jsonl, .json, .csv or .parquet")],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=NAME", help="what a column is called here; repeatable"),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="a .json file, or a folder for results.json")
    ] = None,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="exit 3 if collapsed, content-blind, contaminated or cut"),
    ] = False,
) -> None:
    """Audit a table of explanations, scores or vectors that somebody else made.

    Any of these columns will do: explanation, cosine, mse, or activation_vector with
    reconstruction; each further one (doc_id, row_id, variant, source_text, label, split, fve, ...)
    allows more. What could not be said is listed with the column it needs. Names that cannot be
    mistaken are known; --column explanation=text says what another name means, --column label=
    leaves a column out. Neuronpedia's answers (results with description, token, mse and
    cosine_similarity) are read as they are.
    """
    from nlakit.evaluate.audit.audit import GATE
    from nlakit.evaluate.audit.audit import audit as audited
    from nlakit.evaluate.audit.table import parse_columns, read_audit_table
    from nlakit.files.places import check_file, check_folder
    from nlakit.files.text import as_json
    from nlakit.run.folder import atomic_write

    chosen, target = parse_columns(column or []), save
    if save is not None and save.suffix.lower() != ".json":
        check_folder(save)
        target = save / "results.json"
    if target is not None:
        check_file(target, [".json"])
    results = audited(read_audit_table(file, chosen))
    _show(results)
    if target is not None:
        atomic_write(target, as_json(results, indent=1) + "\n")
        _say([str(target)])
    if gate and GATE & {one["code"] for one in results["warnings"]}:
        raise typer.Exit(ExitCode.GATE)


def _show(results: Mapping[str, Any]) -> None:
    rows, found = results["rows"], results["provenance"]
    named = [f"{own} as {name}" for name, own in found["columns"].items() if own != name]
    _say([f"{found['file']}: {rows['judged']} rows judged of {rows['table']}, "
          f"{rows['documents']} documents"])  # fmt: skip
    if named or found["ignored"]:
        _say([f"read: {', '.join(named) or 'each column by its own name'}"
              f"; not read: {', '.join(found['ignored']) or 'none'}"])  # fmt: skip
    for one in results["warnings"]:
        console.print(f"[bold red]{one['code']}[/bold red]: ", end="")
        _say([one["message"]])
    if not results["warnings"]:
        _say(["no warning"])
    if verdict := results["verdict"]:
        console.print(f"[bold]verdict: {verdict['word']}[/bold]")
        _say(f"  {reason}" for reason in verdict["reasons"])
    for part, question in QUESTIONS.items():
        records = [r for r in results["findings"] if r["part"] == part and r["group"] == "all"]
        if records:
            _say(["", question])
            console.print(_table(records, _shown(records)))
    if card := results["detail"].get("roundtrip", {}).get("card"):
        _say([_card(card)])
    _say(f"note: {note}" for note in results["notes"])
    _say(f"could not be said: {one['measure']} (needs {one['missing']})"
         for one in results["unsaid"])  # fmt: skip


def _shown(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What a terminal has room for: the judged texts, their floors beside them, and one score of
    each other condition; --save has everything."""
    own = {r["measure"] for r in records if r["condition"] in OWN}
    lead = "centred_cosine" if "centred_cosine" in own else "cosine"
    return [
        r for r in records
        if r["measure"] not in HIDDEN
        and (r["condition"] in OWN or r["measure"] not in own or r["measure"] == lead)
    ]  # fmt: skip


def _table(records: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> Table:
    """The judged texts' measures, and under each the other conditions by name."""
    means = {(r["measure"], r["condition"]): r["mean"] for r in records}
    table = plain_table(("measure", "mean ±95%", "floor", "gain ±95%", "rows"))
    above = None
    for r in shown:
        floor = means.get((r["measure"], r["floor"]))
        own = r["condition"] in OWN
        if not own and above != r["measure"]:
            table.add_row(cut(r["measure"], NAME))
        above = r["measure"]
        table.add_row(
            escape(cut(r["measure"] if own else f"  {r['condition']}", NAME)),
            short(r["mean"], r["low"], r["high"]),
            "" if floor is None else escape(cut(f"{floor:.3f} {r['floor']}", NAME)),
            "" if r["gain"] is None else short(r["gain"], r["gain_low"], r["gain_high"], "+"),
            str(r["rows"]),
        )
    return table


def _card(card: Mapping[str, Any]) -> str:
    """The block in which the Gemma-4-E2B card gives its raw cosines."""
    head = f"raw cosine as model cards give it: {card['evaluated']} of {card['attempted']} rows"
    if "mean" not in card:
        return head
    return (
        f"{head}, {card['mean']:.3f} ± {card['sd']:.3f}, median {card['median']:.3f}, "
        f"{card['min']:.3f} to {card['max']:.3f}, {card['above_0_30']:.0%} above 0.30"
    )


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.command("audit")(audit)
