"""The command that changes an explanation and lets the subject go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nlakit.cli.tables import Format, Save, check_output, emit
from nlakit.cli.use.pair import (
    ArBlocks,
    ArBos,
    BaseModel,
    Chat,
    Device,
    Injection,
    Other,
    Pair,
    Precision,
    load_pair,
)
from nlakit.core.shown import cut, plain_table, shorter
from nlakit.core.text.edits import parse_edits
from nlakit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nlakit.models.nla import Positions
    from nlakit.models.steering.record import Steered
    from nlakit.studies.steering import Edit

console = Console(highlight=False)


def steer(
    pair: Pair,
    text: Annotated[str | None, typer.Argument()] = None,
    original: Annotated[
        str | None, typer.Option("--from", help="explanation; the pair's own unless given")
    ] = None,
    edited: Annotated[str | None, typer.Option("--to", help="the edited explanation")] = None,
    edit: Annotated[
        list[str] | None, typer.Option("--edit", metavar="OLD=NEW", help="exchange words in it")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="edits, a line each (.jsonl): text, original, edited or edit, document"),
    ] = None,
    alpha: Annotated[str, typer.Option(help="sizes of the push, of the activation's norm")] = (
        "0.25,0.5,1"
    ),
    at: Annotated[str, typer.Option(help="last, all, or a token index")] = "last",
    random: Annotated[int, typer.Option(help="random directions to compare with")] = 10,
    window: Annotated[int, typer.Option(help="places at which the words are listened for")] = 8,
    tokens: Annotated[int, typer.Option(help="tokens to write")] = 24,
    temperature: Annotated[float, typer.Option(help="0 is greedy")] = 0.0,
    seed: int = 0,
    format: Format = "table",
    save: Save = None,
    other: Other = None,
    base_model: BaseModel = None,
    precision: Precision = None,
    ar_blocks: ArBlocks = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
    device: Device = "auto",
) -> None:
    """Edit an explanation and see what the subject then writes, beside no steering and random
    directions of the same size."""
    check_output(format, save)
    sizes, places = _sizes(alpha), _place(at)
    if (text is None) == (file is None):
        raise ConfigError(
            "a text or --file is needed", found="both" if text else "neither", do="give one of them"
        )
    if text is not None and (edited is None) == (not edit):
        raise ConfigError(
            "--to or --edit is needed", found="both" if edit else "neither", do="give one of them"
        )
    if file and (original or edited or edit):
        raise ConfigError("--file has explanations of its own", do="leave out --from, --to, --edit")
    changes = parse_edits(edit or []) if edited is None else edited
    edits = read_edits(file) if file else []
    from nlakit.models.steering.record import Asked

    asked = Asked(sizes, random, seed, window, tokens, temperature)
    nla = load_pair(pair, other, base_model, precision, ar_blocks, injection, chat, ar_bos, device)
    if text is not None:
        found = nla.steer(text, original, changes, positions=places, **vars(asked))
        records = found.as_dicts()
    else:
        from nlakit.studies.steering import measure, summarise

        found = None
        records = [one for some in measure(nla, edits, asked, places) for one in some]
        if format == "table":
            console.print(table_of(summarise(records)))
    if save is not None or format == "jsonl":
        emit(records, format, save)
    elif found is not None:
        _show(found)


def read_edits(path: Path) -> list[Edit]:
    """Edits from JSON lines. Raises DataError for a line that lacks text or edit, for no lines, and
    for too many."""
    from nlakit.files.text import read_jsonl
    from nlakit.studies.steering import Edit, check_count

    found: list[Edit] = []
    for where, row in read_jsonl(path):
        given = row.get("edit")
        if isinstance(given, str):
            given = [given]
        strings = [row.get("text"), row.get("original", ""), row.get("edited", "")]
        right = all(isinstance(one, str) for one in strings) and row.get("text")
        listed = isinstance(given, list) and all(isinstance(one, str) for one in given)
        if not right or bool(row.get("edited")) == bool(given) or (given and not listed):
            raise DataError(
                f"{where} is no edit",
                found=", ".join(map(str, row)) or "nothing",
                do='give text, and edited or edit ("old=new"), each as text',
            )
        changes = row["edited"] if row.get("edited") else parse_edits(given or [])
        document = str(row.get("document", f"line {len(found) + 1}"))
        kind = str(row.get("kind", "edit"))
        found.append(Edit(row["text"], row.get("original"), changes, document, kind))
    check_count(found)
    return found


def _sizes(given: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in given.split(","))
    except ValueError as error:
        raise ConfigError(
            "--alpha takes numbers", found=given[:80], do="for example 0.25,0.5,1"
        ) from error


def _place(given: str) -> Positions:
    if given == "last":
        return "last"
    if given == "all":
        return "all"
    try:
        return [int(given)]
    except ValueError as error:
        raise ConfigError(
            "--at takes last, all or a token index", found=given[:80], do="for example --at -2"
        ) from error


def _show(found: Steered) -> None:
    words = ", ".join(found.words) or "none that begins in a way of its own"
    for line in (
        f"from: {found.original}",
        f"to:   {found.edited}",
        f"words that came in: {words}",
    ):
        console.print(line, markup=False, soft_wrap=True)
    console.print(continuations(found))
    if found.chance is not None:
        console.print(
            f"success: likelier than unsteered and than along random directions of the same size; "
            f"one of these would be in {found.chance:.0%} of cases",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def continuations(found: Steered) -> Table:
    """What the subject writes: unsteered, then by size, with a random direction below each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("α", "nats over\nunsteered", "nats over\nrandom", "success"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("the text goes on", overflow="fold", ratio=1)
    table.add_row("0", "", "", "", escape(repr(found.unsteered)))
    for one in found.sizes:
        success = {True: "yes", False: "no", None: ""}[one.success]
        table.add_row(
            f"{one.alpha:g}", _nats(one.rise), _nats(one.gain), success,
            escape(repr(one.continuation)),
        )  # fmt: skip
        for said in one.random_continuations[:1]:
            table.add_row("random", "", "", "", f"[dim]{escape(repr(said))}[/dim]")
    return table


def table_of(findings: Sequence[dict[str, Any]]) -> Table:
    """Findings by kind of edit and size, each with its interval."""
    columns = ("edits", "α", "n", "success ±95%", "chance", "over unsteered", "over random")
    table = plain_table(columns)
    for one in findings:
        chance = "" if one["chance"] is None else f"{one['chance']:.2f}"
        measured = [shorter(one[name]) if one[name] else "" for name in ("success", "rise", "gain")]
        cells = (measured[0], chance, *measured[1:])
        table.add_row(cut(one["kind"], 10), f"{one['alpha']:g}", f"{one['heard']}", *cells)
    return table


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def register(app: typer.Typer) -> None:
    app.command()(steer)
